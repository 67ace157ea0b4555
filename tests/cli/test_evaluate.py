"""`evaluate`: which images it measures, and where its report is."""

import csv
import json
import os
import pathlib
import shutil

import keras
import pytest

from keras_mixer import cli
from keras_mixer import training
from keras_mixer.cli import reports
from keras_mixer.training.finished import digest_of
from keras_mixer.training.finished import report_of


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def snapshot(folder):
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def evaluate(capsys, *arguments):
    cli.main(["evaluate", *map(str, arguments)])
    return capsys.readouterr().out.splitlines()


def refused(*arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    return caught.value.code


def test_report_is_in_the_folder_of_the_run(run, tmp_path, capsys):
    lines = evaluate(capsys, "--run", run)
    folder, test = run / "evaluation", run.parent / "photos" / "test"
    assert sorted(p.name for p in folder.iterdir()) == sorted(reports.FILES)
    assert lines[-1] == f"See '{folder}'."
    assert lines[2].split() == ["precision", "recall", "f1-score", "support"]
    for name in training.read_run(run)["data"]["class_names"]:
        assert any(line.strip().startswith(name) for line in lines[3:6])
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["accuracy"] == pytest.approx(
        training.read_run(run)["finished"]["accuracy"]
    )
    rows = read_csv(folder / "mistakes.csv")[1:]
    assert len(rows) == record["mistakes"] > 0
    assert sum(
        int(row[1]) for row in read_csv(folder / "classes.csv")[1:]
    ) == len(list(test.rglob("*.png")))
    for file, _, true, predicted, *_ in rows:
        assert pathlib.Path(file).parent == test / true
        assert true != predicted
    model = run / "model.keras"
    assert record == report_of(model)
    assert record["model_digest"] == digest_of(model)
    # Again: the same report, also after the folder was moved.
    before = snapshot(folder)
    assert evaluate(capsys, "--run", run) == lines
    assert snapshot(folder) == before
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    evaluate(capsys, "--run", moved)
    # A new model has a new report in the same place.
    keras.saving.load_model(model).save(moved / "model.keras")
    assert report_of(moved / "model.keras") is None
    evaluate(capsys, "--run", moved)
    assert report_of(moved / "model.keras") is not None


def test_images_that_were_changed_after_the_training_are_refused(run, capsys):
    """Other images would be held out, and the model was trained on some."""
    lines = evaluate(capsys, "--run", run)
    photos = run.parent / "photos"
    file = photos / "test" / "four" / "0.png"
    new = file.with_name("new.png")
    shutil.copy(file, new)
    try:
        message = refused("evaluate", "--run", run)
    finally:
        new.unlink()
    assert "are not those that the training began with" in message
    assert f"new: '{new}'" in message
    assert message.endswith("use `--data FOLDER`.")
    # The images of the run can be named, and a touched file is the same.
    os.utime(file)
    assert evaluate(capsys, "--run", run, "--data", photos) == lines


@pytest.fixture
def others(run, tmp_path):
    """A folder of images of two classes, which has no parts."""
    for name in ("four", "six"):
        shutil.copytree(
            run.parent / "photos" / "test" / name, tmp_path / "others" / name
        )
    return tmp_path / "others"


def test_other_images_have_another_report(run, others, tmp_path, capsys):
    command = ["--run", run, "--data", others]
    evaluate(capsys, "--run", run)
    before = snapshot(run)
    folder = tmp_path / "report"
    lines = evaluate(capsys, *command, "--output", folder)
    rows = read_csv(folder / "confusion.csv")
    # The other class has no images; it is there only if it was predicted.
    assert rows[0][:3] == ["true class", "four", "six"]
    assert [row[0] for row in rows[1:]] == ["four", "six"]
    # No part is held out: the model was trained on none of these images.
    count = len(list(others.rglob("*.png")))
    assert lines[0] == f"images: {count}"
    assert sum(int(cell) for row in rows[1:] for cell in row[1:]) == count
    correct = int(rows[1][1]) + int(rows[2][2])
    accuracy = float(lines[1].removeprefix("accuracy: "))
    assert accuracy == pytest.approx(correct / count, abs=1e-5)
    for file in sorted(others.rglob("*.png")):
        if int(file.stem) > 1:
            file.unlink()
    assert evaluate(capsys, *command)[0] == "images: 4"
    for options, message in (
        (["--output", folder], f"data: '{others}' there"),
        (["--output", run], "is not a report of `evaluate`"),
        (
            ["--data", others, "--output", run / "evaluation"],
            "has the report of another model or of other images",
        ),
        (["--output", "s3://b/r"], "`output` must be a path on this machine"),
        (["--batch-size", "0"], "`batch_size` must be a positive integer"),
        (["--few-shot", "5", "0"], "`few_shot` must be a positive integer"),
        (["--data", "gs://b/r"], "`data` must be a path on this machine"),
    ):
        assert message in refused("evaluate", "--run", run, *options)
    assert snapshot(run) == before


def test_unknown_classes_have_no_report(others, tmp_path, capsys):
    command = ["--data", others, "--few-shot", 2]
    lines = evaluate(capsys, *command)
    assert lines[0] == f"images: {len(list(others.rglob('*.png')))}"
    assert lines[1].startswith("accuracy with 2 images per class: ")
    assert len(lines) == 2
    message = refused("evaluate", *command, "--output", tmp_path / "report")
    assert "the model does not know: ['four', 'six']" in message
    assert not (tmp_path / "report").exists()
