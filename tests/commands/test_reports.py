"""The report of `evaluate`: its numbers, its files and its pictures."""

import csv
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_mixer import cli
from keras_mixer import training
from keras_mixer.commands import reports
from keras_mixer.commands.confusion import Counter
from keras_mixer.commands.confusion import confusion_matrix
from keras_mixer.commands.confusion import scores_per_class
from keras_mixer.commands.tables import aligned
from keras_mixer.commands.tables import printable
from support.helpers import ROOT
from support.helpers import python

PIXELS = (6, 9, 3)


def predictions(count, names, known, seed=0):
    """Random images, labels and probabilities that favour the true class."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, len(names), count)
    scores = rng.uniform(0, 1, (count, len(known)))
    scores[np.arange(count), [known.index(names[t]) for t in true]] += 0.6
    probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype("f4")
    images = rng.integers(0, 256, (count, *PIXELS), "uint8")
    return images, np.eye(len(names))[true], probabilities


def counted(count, names, known=None, batch_size=13):
    known = known or names
    given = predictions(count, names, known)
    counter = Counter(names, known)
    for start in range(0, count, batch_size):
        counter.add(*(each[start : start + batch_size] for each in given))
    return counter.result(), given


@pytest.mark.parametrize("num_classes", [2, 5, 11])
def test_numbers_equal_scikit_learn(num_classes):
    from sklearn import metrics

    rng = np.random.default_rng(num_classes)
    true = rng.integers(0, num_classes, 97)
    predicted = np.where(
        rng.uniform(size=97) < 0.6, true, rng.integers(0, num_classes, 97)
    )
    matrix = confusion_matrix(true, predicted, num_classes)
    np.testing.assert_array_equal(
        matrix, metrics.confusion_matrix(true, predicted)
    )
    expected = metrics.precision_recall_fscore_support(true, predicted)
    for scores, others in zip(scores_per_class(matrix), expected, strict=False):
        np.testing.assert_allclose(scores, others, rtol=1e-12)


def test_undefined_scores_equal_scikit_learn():
    """Class 1 has no images, class 2 is never predicted, class 3 neither."""
    from sklearn import metrics

    true, predicted = [0, 0, 0, 2, 2, 4], [0, 1, 0, 0, 1, 4]
    expected = metrics.precision_recall_fscore_support(
        true, predicted, labels=range(5), zero_division=np.nan
    )
    received = scores_per_class(confusion_matrix(true, predicted, 5))
    for scores, others in zip(received, expected, strict=False):
        np.testing.assert_allclose(scores, others, rtol=1e-12)
    precision, recall, f1 = received
    assert np.isnan(precision).tolist() == [False, False, True, True, False]
    assert np.isnan(recall).tolist() == [False, True, False, True, False]
    assert np.isnan(f1).tolist() == [False, False, False, True, False]


def test_classes_with_the_same_name_are_one_class():
    """The images have other classes and another order than the model."""
    names = ["heron", "crane"]
    known = ["crane", "cup", "heron", "crane", "bus"]
    confusion, (images, labels, probabilities) = counted(301, names, known)
    from sklearn import metrics

    true = np.array(names)[labels.argmax(axis=1)]
    predicted = np.array(known)[probabilities.argmax(axis=1)]
    assert confusion.names == ["heron", "crane", "cup", "bus"]
    np.testing.assert_array_equal(
        confusion.matrix,
        metrics.confusion_matrix(true, predicted, labels=confusion.names),
    )
    assert confusion.accuracy == metrics.accuracy_score(true, predicted)
    assert len(confusion.mistakes) == np.sum(true != predicted) > 25
    order = [mistake.probability for mistake in confusion.mistakes]
    assert order == sorted(order, reverse=True)
    for rank, mistake in enumerate(confusion.mistakes):
        assert mistake.true == true[mistake.image]
        assert mistake.predicted == predicted[mistake.image]
        row = probabilities[mistake.image]
        assert mistake.probability == row.max()
        assert mistake.true_probability == pytest.approx(
            sum(row[np.array(known) == mistake.true])
        )
        if rank < 25:
            np.testing.assert_array_equal(mistake.pixels, images[mistake.image])
        else:
            assert mistake.pixels is None


ODD_NAMES = ["<b>, 100 %", "a/b $x^2$", "größer als alle anderen zusammen"]


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def report(folder, confusion, paths=(), **about):
    about = {"data": "photos", **about}
    return reports.Report(folder, confusion, paths, about)


def test_files_have_any_class_names(tmp_path):
    names = [*ODD_NAMES, 'quote"d', "line\nbreak", "\udcff"]
    confusion, _ = counted(151, names)
    paths = tuple(f"photos/{i},\udcff.jpg" for i in range(151))
    reports.write_report(report(tmp_path / "r", confusion, paths))
    written = [*names[:-1], "\\udcff"]
    rows = read_csv(tmp_path / "r" / "confusion.csv")
    assert rows[0] == ["true class", *written]
    assert [row[0] for row in rows[1:]] == written
    np.testing.assert_array_equal(
        np.array([row[1:] for row in rows[1:]], int), confusion.matrix
    )
    rows = read_csv(tmp_path / "r" / "classes.csv")
    assert rows[0] == ["class", "images", "precision", "recall", "f1"]
    assert [row[0] for row in rows[1:]] == written
    images = confusion.matrix.sum(axis=1)
    assert [int(row[1]) for row in rows[1:]] == images.tolist()
    for place, scores in enumerate(scores_per_class(confusion.matrix), start=2):
        received = [float(row[place]) for row in rows[1:]]
        np.testing.assert_allclose(received, scores, rtol=1e-5)
    rows = read_csv(tmp_path / "r" / "mistakes.csv")[1:]
    assert len(rows) == len(confusion.mistakes) > 25
    for row, mistake in zip(rows, confusion.mistakes, strict=True):
        assert row[0] == f"photos/{mistake.image},\\udcff.jpg"
        assert row[2] == mistake.true.replace("\udcff", "\\udcff")
    lines = reports.class_lines(confusion)
    assert len({len(line) for line in lines}) == 1
    assert lines[5].startswith(r"line\nbreak ")


@pytest.mark.parametrize("num_classes", [2, 10, 100, 130])
def test_pictures_are_drawn(num_classes, tmp_path, caplog):
    names = [f"class {i}" for i in range(num_classes)]
    names[:2] = ODD_NAMES[:2]
    known = [*names, "never seen"]
    confusion, _ = counted(3 * num_classes + 20, names, known)
    reports.write_report(report(tmp_path / "r", confusion))
    for name in ("confusion.png", "mistakes.png"):
        with Image.open(tmp_path / "r" / name) as image:
            image.load()
            assert 200 < image.width < 2200
            assert 200 < image.height < 2200
    assert caplog.text == ""


def test_characters_without_a_glyph_are_reported(tmp_path, caplog):
    confusion, _ = counted(40, ["日本", "dog"])
    reports.write_report(report(tmp_path / "r", confusion))
    assert "They are boxes in 'confusion.png'" in caplog.text
    assert read_csv(tmp_path / "r" / "confusion.csv")[1][0] == "日本"


def test_perfect_model_has_no_picture_of_mistakes(tmp_path):
    names, labels = ["ant", "bee"], np.eye(2)[[0, 1, 1]]
    counter = Counter(names, names)
    counter.add(np.zeros((3, *PIXELS), "uint8"), labels, labels)
    folder = tmp_path / "r"
    reports.write_report(report(folder, counted(40, names)[0]))
    assert (folder / "mistakes.png").exists()
    reports.write_report(report(folder, counter.result()))
    assert not (folder / "mistakes.png").exists()
    assert len(read_csv(folder / "mistakes.csv")) == 1
    assert json.loads((folder / "evaluation.json").read_text()) == {
        "about": {"data": "photos"},
        "images": 3,
        "mistakes": 0,
        "accuracy": 1.0,
    }


def test_table_has_the_ten_worst_classes():
    names = [f"class {i:02}" for i in range(14)]
    confusion, _ = counted(140, names)
    lines = reports.class_lines(confusion)
    _, _, f1 = scores_per_class(confusion.matrix)
    assert len(lines) == 11
    assert lines[0].startswith("class (the 10 with the lowest F1 score)")
    assert [line[:8] for line in lines[1:]] == [
        names[i] for i in np.argsort(f1, kind="stable")[:10]
    ]


def test_table_is_aligned():
    assert aligned([["a", "10"], ["long", "7"]]) == ["a     10", "long   7"]
    assert printable("a\tb\x1b[0m\u202e") == r"a\tb\x1b[0m\u202e"


def snapshot(folder):
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_folders_of_others_are_not_overwritten(tmp_path):
    confusion, _ = counted(40, ["ant", "bee"])
    folder = tmp_path / "r"
    folder.mkdir()
    reports.check_folder(folder, {"data": "photos"})
    reports.check_folder(tmp_path / "new", {"data": "photos"})
    reports.write_report(report(folder, confusion))
    reports.check_folder(folder, {"data": "photos"})
    with pytest.raises(ValueError, match="data: 'photos' there, 'other' now"):
        reports.check_folder(folder, {"data": "other"})
    (folder / "evaluation.json").write_text("{}")
    with pytest.raises(ValueError, match="is damaged"):
        reports.check_folder(folder, {"data": "photos"})
    (folder / "evaluation.json").unlink()
    for other in (folder, folder / "classes.csv"):
        with pytest.raises(ValueError, match="is not a report of `evaluate`"):
            reports.check_folder(other, {"data": "photos"})


def test_full_disk_leaves_the_previous_report(tmp_path):
    """A limit on file sizes has the same effect as a full disk."""
    folder = tmp_path / "r"
    reports.write_report(report(folder, counted(40, ["ant", "bee"])[0]))
    before = snapshot(tmp_path)
    code = f"""
import pathlib, resource, signal, sys
sys.path[:0] = [{str(ROOT / "tests")!r}, {os.path.dirname(__file__)!r}]
import test_reports
confusion, _ = test_reports.counted(400, ["ant", "bee"])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
for name in ("r", "new"):
    folder = pathlib.Path({str(tmp_path)!r}, name)
    try:
        test_reports.reports.write_report(
            test_reports.report(folder, confusion))
    except OSError as error:
        print(error)
"""
    assert python(code).count("The report could not be written to '") == 2
    assert snapshot(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """The folder of a training whose model makes mistakes."""
    folder = tmp_path_factory.mktemp("reports") / "run"
    size = ["--image-size", "8", "--epochs", "2", "--batch-size", "32"]
    cli.main(
        [
            "train",
            *("--data", str(photos), "--output", str(folder), "--quiet"),
            *size,
        ]
    )
    return folder


def evaluate(capsys, *arguments):
    cli.main(["evaluate", *map(str, arguments)])
    return capsys.readouterr().out.splitlines()


def refused(*arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    return caught.value.code


def test_report_is_in_the_folder_of_the_run(run, photos, capsys):
    lines = evaluate(capsys, "--run", run)
    folder = run / "evaluation"
    assert sorted(p.name for p in folder.iterdir()) == sorted(reports.FILES)
    assert lines[-1] == f"See '{folder}'."
    assert re.fullmatch(r"class +images +precision .*", lines[2])
    assert [line[:7] for line in lines[3:6]] == [
        "digit 3",
        "digit 4",
        "digit 6",
    ]
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["accuracy"] == pytest.approx(
        training.read_run(run)["finished"]["accuracy"]
    )
    rows = read_csv(folder / "mistakes.csv")[1:]
    assert len(rows) == record["mistakes"] > 0
    assert sum(
        int(row[1]) for row in read_csv(folder / "classes.csv")[1:]
    ) == len(list((photos / "test").rglob("*.png")))
    for file, _, true, predicted, *_ in rows:
        assert pathlib.Path(file).parent == photos / "test" / true
        assert true != predicted
    # Again: the same report, also after the folder was moved.
    before = snapshot(folder)
    moved = run.parent / "moved"
    shutil.copytree(run, moved)
    assert evaluate(capsys, "--run", run) == lines
    assert snapshot(folder) == before
    evaluate(capsys, "--run", moved)


def test_other_images_have_another_report(run, photos, tmp_path, capsys):
    for digit in (4, 6):
        shutil.copytree(
            photos / "test" / f"digit {digit}",
            tmp_path / "photos" / f"digit {digit}",
        )
    command = ["--run", run, "--data", tmp_path / "photos"]
    evaluate(capsys, "--run", run)
    before = snapshot(run)
    lines = evaluate(capsys, *command)
    assert "See" not in lines[-1]
    assert snapshot(run) == before
    folder = tmp_path / "report"
    lines = evaluate(capsys, *command, "--output", folder)
    rows = read_csv(folder / "confusion.csv")
    # Digit 3 has no images; it is there only if it was predicted.
    assert rows[0][:3] == ["true class", "digit 4", "digit 6"]
    assert [row[0] for row in rows[1:]] == ["digit 4", "digit 6"]
    accuracy = float(lines[1].removeprefix("accuracy: "))
    correct = int(rows[1][1]) + int(rows[2][2])
    count = sum(int(cell) for row in rows[1:] for cell in row[1:])
    assert accuracy == pytest.approx(correct / count, abs=1e-5)
    message = refused("evaluate", "--run", run, "--output", folder)
    assert f"data: '{tmp_path / 'photos'}' there" in message
    message = refused("evaluate", "--run", run, "--output", run)
    assert "is not a report of `evaluate`" in message
    message = refused("evaluate", *command, "--output", run / "evaluation")
    assert "has the report of another model or of other images" in message
    assert snapshot(run) == before


def test_unknown_classes_have_no_report(run, photos, tmp_path, capsys):
    for digit, name in ((3, "three"), (4, "digit 4")):
        shutil.copytree(
            photos / "test" / f"digit {digit}", tmp_path / "photos" / name
        )
    command = ["--run", run, "--data", tmp_path / "photos", "--few-shot", "2"]
    evaluate(capsys, *command)
    message = refused("evaluate", *command, "--output", tmp_path / "report")
    assert "the model does not know: ['three']" in message
    assert not (tmp_path / "report").exists()


def test_report_without_matplotlib_has_tables(run, tmp_path):
    """In a process that cannot import it."""
    code = """
import logging
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        if name.partition(".")[0] == "matplotlib":
            return None
        return super().find_spec(name, *rest)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
logging.basicConfig(stream=sys.stdout)
from keras_mixer import cli
cli.main(["evaluate", "--run", sys.argv[1], "--output", sys.argv[2]])
"""
    said = python(code, run, tmp_path / "r")
    assert said.count("Drawing needs Matplotlib, which is not installed") == 1
    names = sorted(path.name for path in (tmp_path / "r").iterdir())
    assert names == sorted(n for n in reports.FILES if not n.endswith(".png"))
