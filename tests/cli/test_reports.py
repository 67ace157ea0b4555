"""The report of `evaluate`: its numbers, its files and its pictures."""

import csv
import json
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from keras_mixer.cli import reports
from keras_mixer.cli.measuring import MOST_IMAGES
from keras_mixer.cli.measuring import measure

PIXELS = (6, 9, 3)


class Model:
    """Predicts given probabilities, batch by batch."""

    def __init__(self, probabilities, batch_size):
        starts = range(0, len(probabilities), batch_size)
        self._batches = iter(
            [probabilities[i : i + batch_size] for i in starts]
        )

    def predict_on_batch(self, images):
        return next(self._batches)


def measured(count, names, known=None, batch_size=13):
    """A `Measurement`, and the images, classes and probabilities.

    The predictions are random, and favor the true class.
    """
    known = known or names
    rng = np.random.default_rng(0)
    true = rng.integers(0, len(names), count)
    scores = rng.uniform(0, 1, (count, len(known)))
    scores[np.arange(count), [known.index(names[t]) for t in true]] += 0.6
    probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype("f4")
    images = rng.integers(0, 256, (count, *PIXELS), "uint8")
    labels = np.eye(len(names))[true]
    batches = [
        (images[i : i + batch_size], labels[i : i + batch_size])
        for i in range(0, count, batch_size)
    ]
    model = Model(probabilities, batch_size)
    return measure(batches, model, names, known), (images, true, probabilities)


def test_classes_with_the_same_name_are_one_class():
    """The images have other classes and another order than the model."""
    names = ["heron", "crane"]
    known = ["crane", "cup", "heron", "crane", "bus"]
    measurement, (images, true, probabilities) = measured(301, names, known)
    true = np.array(names)[true]
    predicted = np.array(known)[probabilities.argmax(axis=1)]
    columns, matrix = measurement.confusion()
    assert columns == ["heron", "crane", "cup", "bus"]
    assert matrix.tolist() == [
        [np.sum((true == row) & (predicted == column)) for column in columns]
        for row in names
    ]
    assert measurement.accuracy == np.mean(true == predicted)
    mistakes = measurement.mistakes
    assert sorted(mistakes) == np.flatnonzero(true != predicted).tolist()
    probability = probabilities.max(axis=1)[mistakes]
    assert probability.tolist() == sorted(probability, reverse=True)
    for image in mistakes:
        assert (
            measurement.names[measurement.predicted[image]] == predicted[image]
        )
        assert measurement.true_probability[image] == pytest.approx(
            sum(probabilities[image][np.array(known) == true[image]])
        )
    assert len(mistakes) > MOST_IMAGES
    for image, (worst, pixels) in zip(
        mistakes, measurement.worst, strict=False
    ):
        assert image == worst
        np.testing.assert_array_equal(pixels, images[image])


def test_scores_that_are_not_defined_are_no_zeros():
    """Class 1 has no images, class 2 is never predicted, class 3 neither."""
    true, predicted = [0, 0, 0, 2, 2, 4], [0, 1, 0, 0, 1, 4]
    names, eye = list("abcde"), np.eye(5)
    batches = [(np.zeros((6, *PIXELS)), eye[true])]
    measurement = measure(batches, Model(eye[predicted], 6), names, names)
    _, images, precision, recall, f1 = map(
        np.array, zip(*measurement.classes(), strict=True)
    )
    assert images.tolist() == [3, 0, 2, 0, 1]
    np.testing.assert_allclose(precision, [2 / 3, 0, np.nan, np.nan, 1])
    np.testing.assert_allclose(recall, [2 / 3, np.nan, 0, np.nan, 1])
    np.testing.assert_allclose(f1, [2 / 3, 0, 0, np.nan, 1])


ODD_NAMES = ["<b>, 100 %", "a/b $x^2$", "größer als alle anderen zusammen"]


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def report(folder, measurement, paths=(), **about):
    about = {"data": "photos", **about}
    return reports.Report(folder, measurement, paths, about, "0123")


def test_files_have_any_class_names(tmp_path):
    names = [*ODD_NAMES, 'quote"d', "line\nbreak", "\udcff"]
    measurement, _ = measured(151, names)
    paths = tuple(f"photos/{i},\udcff.jpg" for i in range(151))
    reports.write_report(report(tmp_path / "r", measurement, paths))
    written = [*names[:-1], "\\udcff"]
    rows = read_csv(tmp_path / "r" / "confusion.csv")
    assert rows[0] == ["true class", *written]
    assert [row[0] for row in rows[1:]] == written
    np.testing.assert_array_equal(
        np.array([row[1:] for row in rows[1:]], int), measurement.confusion()[1]
    )
    rows = read_csv(tmp_path / "r" / "classes.csv")
    assert rows[0] == ["class", "images", "precision", "recall", "f1"]
    assert [row[0] for row in rows[1:]] == written
    for row, (_, *values) in zip(rows[1:], measurement.classes(), strict=True):
        np.testing.assert_allclose([float(c) for c in row[1:]], values, 1e-5)
    rows = read_csv(tmp_path / "r" / "mistakes.csv")[1:]
    for row, image in zip(rows, measurement.mistakes, strict=True):
        assert row[0] == f"photos/{image},\\udcff.jpg"
        assert row[2] == written[measurement.true[image]]
    lines = reports.class_lines(measurement)
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 1 + len(names)
    assert lines[5].strip().startswith(r"line\nbreak ")


@pytest.mark.parametrize("num_classes", [2, 30, 130])
def test_pictures_are_drawn(num_classes, tmp_path, caplog):
    names = [f"class {i}" for i in range(num_classes)]
    names[:2] = ODD_NAMES[:2]
    known = [*names, "never seen"]
    measurement, _ = measured(3 * num_classes + 20, names, known)
    reports.write_report(report(tmp_path / "r", measurement))
    for name in ("confusion.png", "mistakes.png"):
        with Image.open(tmp_path / "r" / name) as image:
            image.load()
            assert 200 < image.width < 2200
            assert 200 < image.height < 2200
    assert caplog.text == ""


def test_characters_without_a_glyph_are_reported(tmp_path, caplog):
    reports.write_report(
        report(tmp_path / "r", measured(40, ["日本", "dog"])[0])
    )
    assert "They are boxes in 'confusion.png'" in caplog.text
    assert read_csv(tmp_path / "r" / "confusion.csv")[1][0] == "日本"


def test_perfect_model_has_no_picture_of_mistakes(tmp_path):
    names, labels = ["ant", "bee"], np.eye(2)[[0, 1, 1]]
    batches = [(np.zeros((3, *PIXELS), "uint8"), labels)]
    perfect = measure(batches, Model(labels, 3), names, names)
    folder = tmp_path / "r"
    reports.write_report(report(folder, measured(40, names)[0]))
    assert (folder / "mistakes.png").exists()
    # A file of the user stays.
    (folder / "notes.txt").write_text("mine")
    reports.write_report(report(folder, perfect))
    assert not (folder / "mistakes.png").exists()
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(read_csv(folder / "mistakes.csv")) == 1
    assert json.loads((folder / "evaluation.json").read_text()) == {
        "about": {"data": "photos"},
        "model_digest": "0123",
        "images": 3,
        "mistakes": 0,
        "accuracy": 1.0,
    }


def test_table_has_the_ten_worst_classes():
    names = [f"class {i:02}" for i in range(14)]
    measurement, _ = measured(140, names)
    title, _, *lines = reports.class_lines(measurement)
    f1 = [row[4] for row in measurement.classes()]
    assert title == "The 10 classes with the lowest F1 score:"
    assert [line.strip()[:8] for line in lines] == [
        names[i] for i in np.argsort(f1, kind="stable")[:10]
    ]


def snapshot(folder):
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_folders_of_others_are_not_overwritten(tmp_path):
    measurement, _ = measured(40, ["ant", "bee"])
    folder = tmp_path / "r"
    folder.mkdir()
    reports.check_folder(folder, {"data": "photos"})
    reports.check_folder(tmp_path / "new", {"data": "photos"})
    reports.write_report(report(folder, measurement))
    reports.check_folder(folder, {"data": "photos"})
    with pytest.raises(ValueError, match="data: 'photos' there, 'other' now"):
        reports.check_folder(folder, {"data": "other"})
    for content in ("{}", "[]", '{"about": 3}', ""):
        (folder / "evaluation.json").write_text(content)
        with pytest.raises(ValueError, match="is not a report of `evaluate`"):
            reports.check_folder(folder, {"data": "photos"})
    (folder / "evaluation.json").unlink()
    for other in (folder, folder / "classes.csv"):
        with pytest.raises(ValueError, match="is not a report of `evaluate`"):
            reports.check_folder(other, {"data": "photos"})


def test_full_disk_leaves_the_previous_report(tmp_path, small_disk):
    folder = tmp_path / "r"
    reports.write_report(report(folder, measured(40, ["ant", "bee"])[0]))
    before = snapshot(tmp_path)
    measurement, _ = measured(400, ["ant", "bee"])
    for name in ("r", "new"):
        with small_disk(3000), pytest.raises(OSError, match="File too large"):
            reports.write_report(report(tmp_path / name, measurement))
    assert snapshot(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_report_is_written_into_folders_that_cannot_be_renamed(
    tmp_path, monkeypatch
):
    first, second = (measured(count, ["ant", "bee"])[0] for count in (40, 50))
    (tmp_path / "r").mkdir()
    (tmp_path / "link").symlink_to("r")
    monkeypatch.chdir(tmp_path / "r")
    for folder, measurement in ((".", first), (tmp_path / "link", second)):
        reports.check_folder(folder, {"data": "photos"})
        reports.write_report(report(folder, measurement))
        assert sorted(p.name for p in pathlib.Path().iterdir()) == sorted(
            reports.FILES
        )
        text = pathlib.Path("evaluation.json").read_text()
        assert json.loads(text)["images"] == len(measurement.true)
    with pytest.raises(ValueError, match="is not a report of `evaluate`"):
        reports.check_folder("classes.csv/r", {"data": "photos"})


def test_report_without_matplotlib_has_tables(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    reports.write_report(report(tmp_path / "r", measured(40, ["a", "b"])[0]))
    assert "Drawing needs Matplotlib, which is not installed" in caplog.text
    names = sorted(path.name for path in (tmp_path / "r").iterdir())
    assert names == sorted(n for n in reports.FILES if not n.endswith(".png"))
