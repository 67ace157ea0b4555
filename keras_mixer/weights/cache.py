"""The folder of downloaded weights, and its environment variables.

A download is first written to a unique name, `.<name>.<random>.part`, in the
same folder. When the file is complete, it gets its final name. The rename is
atomic. So a file with the final name is always complete, even if several
processes download it or a process is killed.

Two environment variables are read at every call:

- `KERAS_MIXER_WEIGHTS_URL` is a mirror: files come from `<mirror>/<file>`.
- `KERAS_MIXER_OFFLINE=1` turns downloads off. Errors then explain which file to
  put where.
"""

import contextlib
import os
import pathlib
import re
import time
import urllib.parse
import uuid

from keras_mixer.weights.errors import DownloadError

# A partial file that has not changed for a day is from a killed process.
ABANDONED_SECONDS = 24 * 60 * 60
PARTIAL = ".part"


def folder():
    """Returns the cache folder: `models/keras_mixer` in the folder of Keras.

    The folder of Keras is `KERAS_HOME` or `~/.keras`, as in
    `keras.utils.get_file`. Its fallback /tmp/.keras is not used, because other
    users can put files there.
    """
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    home = os.path.abspath(os.path.expanduser(home))
    return pathlib.Path(home, "models", "keras_mixer")


def path_of(file):
    """Returns the path of a file in the cache, from its relative name."""
    parts = file.split("/")
    if {"", ".", ".."} & set(parts) or re.search(r"[\\:\0]", file):
        raise ValueError(
            "The name of a weights file must be relative, with '/' between its "
            "parts. No part can be empty, '.' or '..'. "
            f"Received: {file!r}"
        )
    return folder().joinpath(*parts)


def is_cached(path, size=None):
    """Returns whether a file exists at `path`, with `size` bytes if given."""
    # `os.path.isfile` returns `False` for a folder without permission. The
    # download then reports the problem.
    return os.path.isfile(path) and size in (None, os.path.getsize(path))


def is_offline():
    """Returns whether downloads are turned off."""
    value = os.environ.get("KERAS_MIXER_OFFLINE", "").strip().lower()
    return value in ("1", "true", "yes", "on")


def mirrored(file):
    """Returns the address of `file` on the mirror, or `None`."""
    mirror = os.environ.get("KERAS_MIXER_WEIGHTS_URL", "").rstrip("/")
    return f"{mirror}/{urllib.parse.quote(file)}" if mirror else None


def reserve(path):
    """Creates an empty file with a unique name in the folder of `path`."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Checking permissions would not detect a read-only or full disk.
        partial.touch(exist_ok=False)
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    _remove_abandoned(path.parent)
    return partial


def _remove_abandoned(folder):
    for partial in folder.glob(f".*{PARTIAL}"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
                partial.unlink()


def publish(partial, path):
    """Renames a complete file to its final name."""
    try:
        os.replace(partial, path)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _unwritable(folder, error):
    return DownloadError(
        f"Cannot write weights to '{folder}': {error}. Make this folder "
        "writable (`chmod`), or set KERAS_HOME to a writable folder."
    )


def advice(*paths):
    """Returns advice for the error message of a failed download."""
    return (
        f"Try again, or put the file at {either(paths)} yourself, or set "
        "KERAS_MIXER_WEIGHTS_URL to a mirror that has it."
    )


def either(names):
    """Returns `'a' or 'b'`, for error messages."""
    return " or ".join(f"'{name}'" for name in names)
