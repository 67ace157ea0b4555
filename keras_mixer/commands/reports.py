"""The report of an evaluation: a folder with tables and pictures."""

import json
import logging
import math
import os
import pathlib
import shutil
import typing

import numpy as np

from keras_mixer.commands.confusion import Confusion
from keras_mixer.commands.confusion import scores_per_class
from keras_mixer.commands.drawing import draw_confusion
from keras_mixer.commands.drawing import draw_mistakes
from keras_mixer.commands.tables import aligned
from keras_mixer.commands.tables import printable
from keras_mixer.commands.tables import write_csv
from keras_mixer.optional import is_installed

logger = logging.getLogger("keras_mixer")

RECORD_FILE = "evaluation.json"

FILES = (
    "classes.csv",
    "confusion.csv",
    "confusion.png",
    "mistakes.csv",
    "mistakes.png",
    RECORD_FILE,
)

# A larger confusion matrix is not written: it would have millions of cells.
MOST_CLASSES = 2000

MOST_PRINTED = 10


class Report(typing.NamedTuple):
    """The report of an evaluation."""

    folder: str | os.PathLike | None  # which `check_folder` has checked
    confusion: Confusion
    paths: tuple  # of the images, or empty
    about: dict  # names the model and the images


def check_folder(folder, about):
    """Checks that a report can be written into a folder.

    Args:
        folder: Path of a new or empty folder, or of a report of the same model
            on the same images, which is then replaced.
        about: Dict of JSON values that name the model and the images.

    Raises:
        ValueError: If the folder has other files, or a report of another model
            or of other images.
    """
    folder = pathlib.Path(folder)
    file = folder / RECORD_FILE
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not file.is_file():
        raise ValueError(
            f"'{folder}' exists and is not a report of `evaluate`. Give the "
            "path of a new folder with `--output`."
        )
    try:
        written = json.loads(file.read_text("utf-8"))["about"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"'{file}' is damaged ({error}). Delete this folder, or give "
            "another one with `--output`."
        ) from error
    differ = [
        f"{key}: {written.get(key)!r} there, {value!r} now"
        for key, value in about.items()
        if written.get(key) != value
    ]
    if differ:
        raise ValueError(
            f"'{folder}' has the report of another model or of other images. "
            "Give another folder with `--output`: " + "; ".join(differ)
        )


def write_report(report):
    """Writes a report. If that fails, its folder is left as it was.

    Args:
        report: A `Report`.

    Raises:
        OSError: If a file cannot be written.
    """
    folder = pathlib.Path(report.folder)
    part = folder.parent / f"unfinished_{folder.name}"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _write_files(part, report)
        _move(part, folder)
    except OSError as error:
        raise OSError(
            f"The report could not be written to '{folder}': {error}. Free "
            "disk space, or give another folder with `--output`."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_files(folder, report):
    confusion = report.confusion
    write_csv(folder / "classes.csv", _class_rows(confusion))
    write_csv(folder / "mistakes.csv", _mistake_rows(confusion, report.paths))
    if len(confusion.names) <= MOST_CLASSES:
        write_csv(folder / "confusion.csv", _matrix_rows(confusion))
    else:
        logger.warning(
            "The confusion matrix of %d classes is not written: it is too "
            "large",
            len(confusion.names),
        )
    if is_installed("matplotlib"):
        _draw(folder, confusion)
    record = {
        "about": report.about,
        "images": int(confusion.matrix.sum()),
        "mistakes": len(confusion.mistakes),
        "accuracy": confusion.accuracy,
    }
    text = json.dumps(record, indent=2) + "\n"
    (folder / RECORD_FILE).write_text(text, "utf-8")


def _draw(folder, confusion):
    if confusion.num_classes <= MOST_CLASSES:
        draw_confusion(confusion, folder / "confusion.png")
    worst = [each for each in confusion.mistakes if each.pixels is not None]
    if worst:
        draw_mistakes(worst, folder / "mistakes.png")


def _move(part, folder):
    """Moves a finished report to its folder."""
    if not folder.exists():
        part.replace(folder)
        return
    for name in FILES:  # the record is the last
        if (part / name).exists():
            os.replace(part / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def _matrix_rows(confusion):
    yield ["true class", *confusion.names]
    for i in range(confusion.num_classes):
        yield [confusion.names[i], *confusion.matrix[i].tolist()]


def _class_rows(confusion):
    yield ["class", "images", "precision", "recall", "f1"]
    for name, images, *scores in _classes(confusion):
        yield [
            name,
            images,
            *("" if math.isnan(s) else f"{s:.6g}" for s in scores),
        ]


def _classes(confusion):
    """Returns `(name, images, precision, recall, F1 score)` of each class."""
    columns = (
        confusion.matrix.sum(axis=1),
        *scores_per_class(confusion.matrix),
    )
    rows = zip(confusion.names, *(c.tolist() for c in columns), strict=True)
    return list(rows)[: confusion.num_classes]


def _mistake_rows(confusion, paths):
    yield [
        "file",
        "image",
        "true class",
        "predicted class",
        "probability",
        "probability of the true class",
    ]
    for mistake in confusion.mistakes:
        file = paths[mistake.image] if paths else ""
        yield [
            file,
            mistake.image,
            mistake.true,
            mistake.predicted,
            f"{mistake.probability:.6g}",
            f"{mistake.true_probability:.6g}",
        ]


def class_lines(confusion):
    """Returns the lines of a table of the classes, to print.

    If there are more than ten classes, these are the ten with the lowest F1
    score.
    """
    classes = _classes(confusion)
    title = "class"
    if len(classes) > MOST_PRINTED:
        order = np.argsort([row[4] for row in classes], kind="stable")
        classes = [classes[i] for i in order[:MOST_PRINTED]]  # NaN is last
        title = f"class (the {MOST_PRINTED} with the lowest F1 score)"
    rows = [[title, "images", "precision [%]", "recall [%]", "F1 [%]"]]
    for name, images, *scores in classes:
        cells = ["-" if math.isnan(s) else f"{100 * s:.1f}" for s in scores]
        rows.append([printable(name), str(images), *cells])
    return aligned(rows)
