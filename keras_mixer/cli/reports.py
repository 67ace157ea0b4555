"""The report of `evaluate`: a folder with tables and pictures."""

import json
import logging
import math
import os
import pathlib
import tempfile
import typing

import numpy as np

from keras_mixer import atomic
from keras_mixer.cli.measuring import Measurement
from keras_mixer.cli.measuring import draw_confusion
from keras_mixer.cli.measuring import draw_mistakes
from keras_mixer.cli.tables import printable
from keras_mixer.cli.tables import write_csv
from keras_mixer.optional import is_installed
from keras_mixer.optional import require
from keras_mixer.training.finished import REPORT_FILE

logger = logging.getLogger("keras_mixer")

FILES = (
    "classes.csv",
    "confusion.csv",
    "confusion.png",
    "mistakes.csv",
    "mistakes.png",
    REPORT_FILE,
)

# A larger confusion matrix is not written: it would have millions of cells.
MOST_CLASSES = 2000

MOST_PRINTED = 10


class Report(typing.NamedTuple):
    """The report of an evaluation."""

    folder: str | os.PathLike | None  # which `check_folder` has checked
    measurement: Measurement
    paths: tuple  # of the images, or empty
    about: dict  # names the model and the images
    digest: str | None = None  # of the file of the model


def check_folder(folder, about):
    """Checks that a report can be written into a folder.

    Args:
        folder: Path of a new or empty folder, or of a report of the same
            training or weights on the same images, which is then replaced.
        about: Dict of JSON values that name the model and the images.

    Raises:
        ValueError: If the folder has files that are not a report, or the report
            of another model or of other images.
    """
    folder = pathlib.Path(folder).resolve()
    place = next(p for p in (folder, *folder.parents) if p.exists())
    if place.is_dir() and not os.access(place, os.W_OK):
        raise ValueError(
            f"'{place}' cannot be written. Use another folder for `--output`."
        )
    if place.is_dir() and (
        place != folder or all(map(atomic.is_part, folder.iterdir()))
    ):
        return
    try:
        written = json.loads((folder / REPORT_FILE).read_text("utf-8"))["about"]
        differ = [
            f"{key}: {written.get(key)!r} there, {value!r} now"
            for key, value in about.items()
            if written.get(key) != value
        ]
    except (
        OSError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"'{folder}' exists and is not a report of `evaluate`. Use the "
            "path of a new folder for `--output`."
        ) from error
    if differ:
        raise ValueError(
            f"'{folder}' has the report of another model or of other images. "
            "Use another folder for `--output`: " + "; ".join(differ)
        )


def write_report(report):
    """Writes a report. If the disk is full, its folder is left as it was.

    In an existing folder the files are replaced one by one: it can be the
    current folder or the mount point of a disk, which cannot be renamed.

    Raises:
        OSError: If a file cannot be written.
    """
    folder = pathlib.Path(report.folder).resolve()
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(folder) as part:
            part.mkdir()
            _write_files(part, report)
        return
    with (
        atomic.replacing(folder / REPORT_FILE) as record,  # is the last
        tempfile.TemporaryDirectory(dir=folder, prefix=record.name) as made,
    ):
        _write_files(pathlib.Path(made), report)
        for name in FILES:
            new = pathlib.Path(made, name)
            if name == REPORT_FILE:
                new.replace(record)
            elif new.exists():
                with atomic.replacing(folder / name) as part:
                    new.replace(part)
            else:
                atomic.remove(folder / name)


def _write_files(folder, report):
    measurement = report.measurement
    write_csv(folder / "classes.csv", _class_rows(measurement))
    write_csv(folder / "mistakes.csv", _mistake_rows(report))
    has_pictures = is_installed("matplotlib")
    if measurement.num_classes <= MOST_CLASSES:
        names, matrix = measurement.confusion()
        rows = zip(names, matrix.tolist(), strict=False)
        write_csv(
            folder / "confusion.csv",
            [["true class", *names], *([name, *row] for name, row in rows)],
        )
        if has_pictures:
            draw_confusion(measurement, folder / "confusion.png")
    else:
        logger.warning(
            "The confusion matrix of %d classes is not written: it is too "
            "large",
            measurement.num_classes,
        )
    if has_pictures and measurement.worst:
        draw_mistakes(measurement, folder / "mistakes.png")
    record = {
        "about": report.about,
        "model_digest": report.digest,
        "images": len(measurement.true),
        "mistakes": len(measurement.mistakes),
        "accuracy": measurement.accuracy,
    }
    text = json.dumps(record, indent=2) + "\n"
    (folder / REPORT_FILE).write_text(text, "utf-8")


def _class_rows(measurement):
    yield ["class", "images", "precision", "recall", "f1"]
    for name, images, *scores in measurement.classes():
        cells = ("" if math.isnan(s) else f"{s:.6g}" for s in scores)
        yield [name, images, *cells]


def _mistake_rows(report):
    names, measured = report.measurement.names, report.measurement
    yield [
        "file",
        "image",
        "true class",
        "predicted class",
        "probability",
        "probability of the true class",
    ]
    for image in measured.mistakes:
        yield [
            report.paths[image] if report.paths else "",
            image,
            names[measured.true[image]],
            names[measured.predicted[image]],
            f"{measured.probability[image]:.6g}",
            f"{measured.true_probability[image]:.6g}",
        ]


def class_lines(measurement):
    """Returns the lines of a table of the classes, to print.

    If there are more than ten classes, these are the ten with the lowest F1
    score.
    """
    classes = measurement.classes()
    order = np.arange(len(classes))
    lines = []
    if len(classes) > MOST_PRINTED:
        lines = [f"The {MOST_PRINTED} classes with the lowest F1 score:"]
        scores = [row[4] for row in classes]  # NaN is last
        order = np.argsort(scores, kind="stable")[:MOST_PRINTED]
    table = require("sklearn.metrics").classification_report(
        measurement.true,
        measurement.predicted,
        labels=order,
        target_names=[printable(classes[i][0]) for i in order],
        digits=3,
        zero_division=np.nan,
    )
    header, _, *rows = table.splitlines()
    # Behind the classes are averages over these classes only.
    return [*lines, header, *rows[: len(order)]]
