"""Finds the photos that are named on the command line."""

import glob
import mimetypes
import pathlib

from keras_mixer.data import finding
from keras_mixer.optional import require


def photos_in(files):
    """Yields `(path, reason)` of files and of the images in folders.

    The reason is `None` for files to read, else a string why the file is
    skipped. The images of a folder and the matches of a pattern are sorted.
    """
    for file in files:
        matches = _matches(file)
        if not matches:
            yield file, "no file matches this pattern"
        for match in matches:
            yield from _photos_of(match)


def _matches(file):
    """Returns the paths that match a pattern; or a path itself."""
    is_pattern = glob.has_magic(file) and not pathlib.Path(file).exists()
    return sorted(glob.glob(file, recursive=True)) if is_pattern else [file]


def _photos_of(file):
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
    image_module = require("PIL.Image")
    if _has_name_of_image(path):
        return True
    try:
        with image_module.open(path):
            return True
    # On other files, Pillow can raise almost any exception.
    except Exception:
        return False
