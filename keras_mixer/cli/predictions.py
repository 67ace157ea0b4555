"""Predictions for photos, as lines to print and as a CSV or JSON file."""

import contextlib
import csv
import glob
import json
import mimetypes
import pathlib

import numpy as np

from keras_mixer import atomic
from keras_mixer.cli.tables import open_text
from keras_mixer.cli.tables import printable

# Longer names of files and classes are printed, but the columns of their line
# are not aligned.
WIDEST_FILE, WIDEST_CLASS = 60, 30

# The first columns of a CSV file. Columns for the classes follow.
COLUMNS = ("file", "class", "error")


def photos_in(files):
    """Yields `(path, reason)` of files and of the images in folders.

    All images in a folder and its subfolders are used. Files that are not
    images are ignored, unless their name has the ending of an image. The images
    of a folder and the matches of a pattern are sorted.

    Args:
        files: Paths of photos or folders, or patterns such as "photos/*.jpg".

    Yields:
        The path, and `None` for a file to read, or a string why it is skipped.
    """
    for file in files:
        is_pattern = glob.has_magic(file) and not pathlib.Path(file).exists()
        matches = glob.glob(file, recursive=True) if is_pattern else [file]
        if not matches:
            yield file, "no file matches this pattern"
        for match in sorted(matches):
            yield from _photos_of(match)


def _photos_of(file):
    from keras_mixer.data import finding

    if not pathlib.Path(file).is_dir():
        yield file, None
        return
    skipped = []
    found = finding.files_below(pathlib.Path(file), skipped)
    photos = [(path, None) for path in found if _is_image(path)]
    photos += [each for each in skipped if _has_name_of_image(each[0])]
    for path, reason in photos:
        yield str(path), reason
    if not photos:
        yield file, "there is no image in this folder"


def _has_name_of_image(path):
    return (mimetypes.guess_type(path.name)[0] or "").startswith("image/")


def _is_image(path):
    """Returns whether a file has an image ending, or Pillow can open it."""
    from keras_mixer.optional import require

    image_module = require("PIL.Image")
    if _has_name_of_image(path):
        return True
    try:
        with image_module.open(path):
            return True
    # On other files, Pillow can raise almost any exception.
    except Exception:
        return False


def results(loaded, photos, batch_size):
    """Yields `(path, result)` of photos, in their order.

    The result is an array of the probabilities of the classes, or a string with
    the reason if the photo cannot be read.

    Args:
        loaded: A `LoadedModel`.
        photos: List of `(path, reason)`, from `photos_in`.
        batch_size: Positive integer, the photos that the model gets at once.
    """
    for start in range(0, len(photos), batch_size):
        group = photos[start : start + batch_size]
        read = [reason or _read(loaded, file) for file, reason in group]
        images = [image for image in read if not isinstance(image, str)]
        if images and len(photos) > batch_size:
            # Batches of one size: TensorFlow and JAX compile the model again
            # for another size.
            images += [images[0]] * (batch_size - len(images))
        scores = iter(())
        if images:
            scores = iter(loaded.model.predict_on_batch(np.concatenate(images)))
        for (file, _), image in zip(group, read, strict=True):
            yield file, image if isinstance(image, str) else next(scores)


def _read(loaded, file):
    """Returns a batch of one photo, or the reason why it cannot be read."""
    from keras_mixer.data.photos import load_image

    try:
        return load_image(file, loaded.model, **loaded.evaluation)
    except (OSError, ValueError) as error:
        return str(error)


def lines_of(names, files, top):
    """Returns a function that makes the lines of a photo, to print.

    Each line has the file, a class and its probability, in columns.

    Args:
        names: Names of the classes.
        files: Paths of all photos.
        top: Positive integer, the number of classes of a photo.
    """
    names = [printable(name) for name in names]
    file_width = _width(map(printable, files), WIDEST_FILE)
    class_width = _width(names, WIDEST_CLASS)

    def lines(file, probabilities):
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [
            f"{printable(file):<{file_width}}  "
            f"{names[i]:<{class_width}}  {100 * probabilities[i]:5.1f} %"
            for i in order
        ]

    return lines


def _width(texts, widest):
    return max((len(text) for text in texts if len(text) <= widest), default=0)


def check_output(path, overwrite):
    """Raises an error if predictions cannot be written to a file.

    Args:
        path: Path of the file, or `None`.
        overwrite: Boolean, whether a file of predictions is replaced.
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
    if not path.exists():
        return
    if not _is_ours(path):
        raise ValueError(
            f"'{path}' exists, and `predict` did not write it. Use another "
            "path for `--output`."
        )
    if not overwrite:
        raise ValueError(
            f"'{path}' exists already. Use another path for `--output`, or "
            "`--overwrite` to replace it."
        )


def _is_ours(path):
    """Returns whether a file is empty, or begins as those of `predict` do."""
    if not path.is_file():
        return False
    _, beginnings = WRITERS[path.suffix.lower()]
    with path.open("rb") as file:
        found = file.read(40)
    return not found or found.startswith(beginnings)


@contextlib.contextmanager
def writing(path, names):
    """Opens a file of predictions. It is complete, or it is not written.

    Args:
        path: Path that `check_output` has checked, or `None`.
        names: List of the names of the classes.

    Yields:
        A function that writes the result of a file, from `results`.

    Raises:
        OSError: If the file cannot be written.
    """
    if path is None:
        yield lambda file, result: None
        return
    writer, _ = WRITERS[pathlib.Path(path).suffix.lower()]
    with (
        atomic.replacing(path) as part,
        open_text(part) as file,
        writer(file, unique(names)) as write,
    ):
        yield write


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


# For each ending, what writes the file, and how such a file begins.
WRITERS = {
    ".csv": (_csv, (",".join(COLUMNS).encode(),)),
    ".json": (_json, (b'[\n{"file": ', b"[]\n")),
    ".jsonl": (_json_lines, (b'{"file": ',)),
}
