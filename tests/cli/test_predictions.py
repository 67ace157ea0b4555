"""`predict`: what it prints and writes, and photos that cannot be read."""

import csv
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import cli
from keras_mixer import training
from keras_mixer.cli import predictions
from keras_mixer.cli.plan import resolved
from keras_mixer.cli.settings import Settings
from support.helpers import ROOT

NAMES = ["cat", "größer, <b>", "file"]

SIDES = (31, 37, 29, 43, 33)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a training, as far as `predict` reads it."""
    folder = tmp_path_factory.mktemp("predictions") / "run"
    keras.utils.set_random_seed(3)
    settings = Settings(data="photos", image_size=(8, 12), batch_size=4)
    data = {"class_names": NAMES}
    record = resolved(settings)
    training.open_run(folder, vars(record), {"data": data})
    model = keras_mixer.Mixer(
        4, 1, 10, 7, 11, input_shape=(8, 12, 3), classes=3, weights=None
    )
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(0.3 * rng.standard_normal(tuple(variable.shape)))
    model.save(folder / "model.keras")
    training.finish(folder, {})
    return folder


@pytest.fixture
def photos(tmp_path):
    """Five photos of noise; returns their paths, sorted."""
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for i, side in enumerate(SIDES):
        noise = Image.effect_noise((side, 30), 90).resize((4 + side, 9))
        noise.convert("RGB").save(folder / f"{i}.png")
    return sorted(map(str, folder.iterdir()))


def expected(run, paths):
    """The probabilities of each photo, predicted alone."""
    model = keras.saving.load_model(run / "model.keras")
    return np.concatenate(
        [
            model.predict(
                keras_mixer.load_image(path, model, crop_ratio=1.0), verbose=0
            )
            for path in paths
        ]
    )


def refused(*arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    return caught.value.code


def printed(capsys, *arguments):
    cli.main(["predict", *map(str, arguments)])
    return capsys.readouterr().out.splitlines()


@pytest.mark.backends
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_batches_have_the_predictions_of_single_photos(
    batch_size, run, photos, tmp_path
):
    """Bad photos are between them, also a whole batch of bad ones."""
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    given = [photos[0], bad, *photos[1:3], bad, bad, *photos[3:], "none.png"]
    output = tmp_path / "out.csv"
    options = ["--batch-size", batch_size, "--output", output]
    message = refused("predict", "--run", run, *options, *given)
    assert message == "keras_mixer: 4 paths could not be classified"
    rows = read_csv(output)
    assert [row[0] for row in rows[1:]] == [str(path) for path in given]
    assert rows[0] == ["file", "class", "error", *NAMES[:2], "file (2)"]
    good = [row for row in rows[1:] if not row[2]]
    received = np.array([row[3:] for row in good], float)
    probabilities = expected(run, photos)
    np.testing.assert_allclose(received, probabilities, atol=2e-6)
    columns = rows[0][3:]
    assert [row[1] for row in good] == [
        columns[i] for i in probabilities.argmax(axis=1)
    ]
    for row in rows[1:]:
        if row[2]:
            assert row[1] == ""
            assert row[3:] == ["", "", ""]
    errors = [row[2] for row in rows[1:] if row[2]]
    assert errors[0].startswith("Expected an image file that Pillow can read.")
    assert "none.png" in errors[-1]


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_json_files_have_an_object_per_photo(run, photos, tmp_path, capsys):
    outputs = {kind: tmp_path / f"out.{kind}" for kind in ("json", "jsonl")}
    given = [*photos, "none.png"]
    for output in outputs.values():
        refused("predict", "--run", run, "--output", output, *given)
    lines = outputs["jsonl"].read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert json.loads(outputs["json"].read_text("utf-8")) == records
    assert [record["file"] for record in records] == given
    assert records[-1].keys() == {"file", "error"}
    for record, row in zip(records, expected(run, photos), strict=False):
        assert list(record["probabilities"]) == [*NAMES[:2], "file (2)"]
        received = list(record["probabilities"].values())
        np.testing.assert_allclose(received, row, atol=2e-6)
        best = max(record["probabilities"], key=record["probabilities"].get)
        assert record["class"] == best


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_any_names_are_written(kind, tmp_path):
    path = tmp_path / f"out.{kind}"
    names = ["two\nlines", 'quote"d', "crane", "crane", "\udcff", "日本"]
    written = [*names[:3], "crane (2)", "\udcff", "日本"]
    rows = np.random.default_rng(0).uniform(size=(2, 6)).astype("f4")
    files = ["a,\udcff.jpg", "b\n.jpg"]
    with predictions.writing(path, names) as write:
        for file, row in zip(files, rows, strict=True):
            write(file, row)
    if kind == "csv":
        escaped = [name.replace("\udcff", "\\udcff") for name in written]
        header, *lines = read_csv(path)
        assert header == ["file", "class", "error", *escaped]
        assert [line[0] for line in lines] == ["a,\\udcff.jpg", "b\n.jpg"]
        received = [line[3:] for line in lines]
    else:
        text = path.read_text("utf-8")
        if kind == "json":
            records = json.loads(text)
        else:
            records = [json.loads(line) for line in text.splitlines()]
        assert [record["file"] for record in records] == files
        received = [list(r["probabilities"].values()) for r in records]
        assert list(records[0]["probabilities"]) == written
    # float32 numbers are written exactly.
    np.testing.assert_array_equal(np.array(received, "f4"), rows)


def test_json_without_photos_is_an_empty_list(tmp_path):
    with predictions.writing(tmp_path / "out.json", ["cat"]):
        pass
    assert json.loads((tmp_path / "out.json").read_text()) == []


def test_lines_are_aligned():
    rows = np.array([[0.005, 0.9949, 0.0001], [1.0, 0.0, 0.0]], "f4")
    files = ["a.jpg", "größe/b\n.jpg", 61 * "x"]
    lines = predictions.lines_of(["ant", "bumblebee", "c"], files, top=2)
    assert lines(files[0], rows[0]) == [
        "a.jpg          bumblebee   99.5 %",
        "a.jpg          ant          0.5 %",
    ]
    line = lines(files[1], rows[1])[0]
    assert line == r"größe/b\n.jpg  ant        100.0 %"
    line = lines(files[2], rows[1])[0]
    assert line == 61 * "x" + "  ant        100.0 %"


def test_folders_and_patterns_are_used(run, photos, tmp_path, capsys):
    folder = tmp_path / "photos"
    odd = tmp_path / "a[1].png"
    shutil.copy(photos[0], odd)
    (folder / "deep").mkdir()
    shutil.copy(photos[1], folder / "deep" / "5.png")
    command = ["--run", run, "--top", "1"]

    def files(*given):
        return [
            line.split("  ")[0] for line in printed(capsys, *command, *given)
        ]

    everything = [*photos, str(folder / "deep" / "5.png")]
    assert files(folder) == everything
    assert files(folder / "[12].png") == photos[1:3]
    assert files(folder / "**" / "*.png") == everything
    # A pattern can match a folder. An existing name is not a pattern.
    assert files(folder / "d*", odd) == [everything[-1], str(odd)]
    pattern = str(folder / "*.gif")
    message = refused("predict", *command, pattern, photos[0])
    assert message == "keras_mixer: 1 paths could not be classified"
    captured = capsys.readouterr()
    assert f"{pattern}: no file matches this pattern" in captured.err
    assert captured.out.startswith(photos[0])


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_only_files_of_predict_are_replaced(kind, run, photos, tmp_path):
    output = tmp_path / f"out.{kind}"
    command = ["predict", "--run", run, "--output", output]
    output.write_text("mine")
    message = refused(*command, "--overwrite", photos[0])
    assert "exists, and `predict` did not write it. Use another" in message
    assert output.read_text() == "mine"
    output.unlink()
    cli.main([*map(str, command), photos[0]])
    before = output.read_text()
    message = refused(*command, photos[1])
    assert "exists already. Use another path for `--output`, or" in message
    assert output.read_text() == before
    cli.main([*map(str, command), "--overwrite", photos[1]])
    assert photos[1] in output.read_text()


def test_output_that_nobody_reads_does_not_end_the_file(run, photos, tmp_path):
    """As with `| head -1`."""
    output = tmp_path / "out.csv"
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as closed:
        process = subprocess.run(
            [sys.executable, "-m", "keras_mixer", "predict", *photos]
            + ["--run", run, "--output", output],
            stdout=closed,
            stderr=subprocess.PIPE,
            env={**os.environ, "KERAS_BACKEND": "torch"},
            cwd=ROOT,
            text=True,
            check=False,
        )
    assert (process.returncode, process.stderr) == (0, "")
    assert [row[0] for row in read_csv(output)[1:]] == photos


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "out.txt"], "must end in one of ['.csv', '.json', '.jso"),
        (["--output", "no/out.csv"], "The output must be in a folder that"),
        (
            ["--output", "folder.csv"],
            "'folder.csv' exists, and `predict` did",
        ),
        (["--output", "s3://out.csv"], "`output` must be a path on this mach"),
        (["https://host/1.png"], "`files` must be a path on this machine"),
        (["--top", "0"], "top"),
        (["--batch-size", "0"], "batch_size"),
    ],
)
def test_wrong_options_are_reported(
    options, message, run, photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    said = refused("predict", "--run", run, "--overwrite", *options, photos[0])
    assert message in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "folder.csv",
        "photos",
    ]


def test_full_disk_leaves_no_unfinished_file(run, photos, tmp_path, small_disk):
    output = tmp_path / "out.jsonl"
    output.touch()
    with small_disk(100):
        said = refused(
            *("predict", "--run", run, "--overwrite", "--output", output),
            *photos,
        )
    assert said.endswith(f"'{output}' could not be written: File too large")
    assert output.read_text() == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.jsonl",
        "photos",
    ]
