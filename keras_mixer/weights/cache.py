"""The folder of fetched weights, and what the environment says of it.

A download is written to a name of its own, `.<name>.<random>.part` beside the
final one, and renamed once it is whole. The rename is atomic: whoever sees the
final name sees a whole file, however many processes fetch it and wherever one
is killed.

Two variables of the environment are read at every call:

- `KERAS_MIXER_WEIGHTS_URL`, a mirror: a file comes from `<mirror>/<file>`.
- `KERAS_MIXER_OFFLINE=1`: nothing is fetched; errors say what to put where.
"""

import contextlib
import os
import pathlib
import re
import time
import urllib.parse
import uuid

from keras_mixer.weights.errors import DownloadError

# A download writes all the time: one that has not for a day was killed.
ABANDONED_SECONDS = 24 * 60 * 60
PARTIAL = ".part"


def folder():
    """Where fetched files are: `models/keras_mixer` in the folder of Keras.

    That is `KERAS_HOME`, or `~/.keras`, as `keras.utils.get_file` has it; but
    never its last resort, /tmp/.keras, where others may have put files.
    """
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    home = os.path.abspath(os.path.expanduser(home))
    return pathlib.Path(home, "models", "keras_mixer")


def path_of(file):
    """The path of a file in the cache, by its relative POSIX name."""
    parts = file.split("/")
    if {"", ".", ".."} & set(parts) or re.search(r"[\\:\0]", file):
        raise ValueError(
            "The name of a file of weights must be relative, with '/' between "
            "its parts and none of them empty, '.' or '..'. "
            f"Received: {file!r}"
        )
    return folder().joinpath(*parts)


def is_cached(path, size=None):
    """Whether there is a file at `path`, of this size where it is known."""
    # `os.path` calls what it may not look at no file; the download then says
    # what is wrong with the folder.
    return os.path.isfile(path) and size in (None, os.path.getsize(path))


def is_offline():
    """Whether nothing may be fetched."""
    value = os.environ.get("KERAS_MIXER_OFFLINE", "").strip().lower()
    return value in ("1", "true", "yes", "on")


def mirrored(file):
    """Where the mirror has `file`, or `None` without a mirror."""
    mirror = os.environ.get("KERAS_MIXER_WEIGHTS_URL", "").rstrip("/")
    return f"{mirror}/{urllib.parse.quote(file)}" if mirror else None


def reserve(path):
    """An empty file beside `path`, under a name that nobody else has."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Asking for permissions would not tell of a read-only or full disk.
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
    """Gives a whole file its name."""
    try:
        os.replace(partial, path)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _unwritable(folder, error):
    return DownloadError(
        f"Cannot keep weights in '{folder}': {error}. Make that folder "
        "writable (`chmod`), or set KERAS_HOME to one that is."
    )


def advice(*paths):
    """What to do about a file that could not be fetched, for its error."""
    return (
        f"Try again, or put the file at {either(paths)} by hand, or set "
        "KERAS_MIXER_WEIGHTS_URL to a mirror that has it."
    )


def either(names):
    """`'a' or 'b'`, for errors."""
    return " or ".join(f"'{name}'" for name in names)
