"""Predictions as lines to print, and as a CSV, JSON or JSON-lines file."""

import contextlib
import csv
import json
import os
import pathlib

import numpy as np

from keras_mixer.commands.tables import open_text
from keras_mixer.commands.tables import printable

# Longer names of files and classes are printed, but the columns of their line
# are not aligned.
WIDEST_FILE, WIDEST_CLASS = 60, 30

# The first columns of a CSV file. Columns for the classes follow.
COLUMNS = ("file", "class", "error")


class Lines:
    """Makes the lines to print: file, class and probability in columns.

    Args:
        predictions: A `Predictions`.
        top: Positive integer, the number of classes of a photo.
    """

    def __init__(self, predictions, top):
        self._top = top
        self._names = [printable(name) for name in predictions.names]
        files = [printable(path) for path in predictions.paths]
        self._file = _width(files, WIDEST_FILE)
        self._class = _width(self._names, WIDEST_CLASS)

    def of(self, file, probabilities):
        """Returns the lines of a photo, the most probable class first."""
        order = np.argsort(-probabilities, kind="stable")[: self._top]
        return [
            f"{printable(file):<{self._file}}  "
            f"{self._names[i]:<{self._class}}  {100 * probabilities[i]:5.1f} %"
            for i in order
        ]


def _width(texts, widest):
    return max((len(text) for text in texts if len(text) <= widest), default=0)


def check_output(path, overwrite):
    """Raises an error if predictions cannot be written to a file.

    Args:
        path: Path of the file, or `None`.
        overwrite: Boolean, whether an existing file is replaced.
    """
    if path is None:
        return
    path = pathlib.Path(path)
    if path.suffix.lower() not in WRITERS:
        raise ValueError(
            f"The name of the output must end in one of {sorted(WRITERS)}. "
            f"Received: '{path}'"
        )
    if not path.parent.is_dir():
        raise ValueError(
            "The output must be in a folder that exists. "
            f"Received: '{path}', but '{path.parent}' is not a folder"
        )
    if path.is_dir() or (path.exists() and not overwrite):
        raise ValueError(
            "The output exists already. Give another path"
            + (". " if path.is_dir() else ", or `--overwrite` to replace it. ")
            + f"Received: '{path}'"
        )


@contextlib.contextmanager
def writing(path, names):
    """Opens a file of predictions. It is complete, or it is not written.

    Args:
        path: Path that `check_output` has checked, or `None`.
        names: List of the names of the classes.

    Yields:
        A function that writes the result of a file, from `Predictions`.

    Raises:
        OSError: If the file cannot be written.
    """
    if path is None:
        yield lambda file, result: None
        return
    path = pathlib.Path(path)
    part = path.with_name(f"unfinished_{path.name}")
    try:
        with open_text(part) as file:
            with WRITERS[path.suffix.lower()](file, unique(names)) as write:
                yield write
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BrokenPipeError:  # of what the command prints
        raise
    except OSError as error:
        raise OSError(
            f"The predictions could not be written to '{path}': {error}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def unique(names):
    """Returns names that can be columns beside `COLUMNS`.

    A name that occurs again gets a number, as in "crane" and "crane (2)".
    """
    used, result = set(COLUMNS), []
    for name in names:
        count, each = 1, name
        while each in used:
            count += 1
            each = f"{name} ({count})"
        used.add(each)
        result.append(each)
    return result


def _numbers(probabilities):
    """Returns floats that are as short as their precision allows."""
    return [float(f"{value:.8g}") for value in probabilities.tolist()]


@contextlib.contextmanager
def _csv(file, names):
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*COLUMNS, *names])

    def write(path, result):
        if isinstance(result, str):
            writer.writerow([path, "", result, *[""] * len(names)])
        else:
            best = names[int(np.argmax(result))]
            writer.writerow([path, best, "", *_numbers(result)])

    yield write


def _record(path, result, names):
    """Returns a photo as a JSON object, in one line."""
    record = {"file": path}
    if isinstance(result, str):
        record["error"] = result
    else:
        record["class"] = names[int(np.argmax(result))]
        numbers = _numbers(result)
        record["probabilities"] = dict(zip(names, numbers, strict=True))
    return json.dumps(record, ensure_ascii=False)


@contextlib.contextmanager
def _json_lines(file, names):
    yield lambda path, result: file.write(_record(path, result, names) + "\n")


@contextlib.contextmanager
def _json(file, names):
    separator = "[\n"

    def write(path, result):
        nonlocal separator
        file.write(separator + _record(path, result, names))
        separator = ",\n"

    yield write
    file.write("[]\n" if separator == "[\n" else "\n]\n")


WRITERS = {".csv": _csv, ".json": _json, ".jsonl": _json_lines}
