"""Files and folders that are complete or not there.

`replacing` is the only place of the package that replaces a file or a folder.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Iterator

from keras_mixer.types import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[pathlib.Path]:
    """Gives the path of a part to write, which becomes `path` at the end.

    The part is in the folder of `path`, and its name has the ending of `path`.
    It is a file or a folder, as the block under `with` creates it. A file does
    not replace a folder. The block must only write: an `OSError` in it is
    reported as a failure to write `path`. If the block raises an error, the
    part is deleted, and what was at `path` is not changed.

    The caller decides whether what is at `path` may be replaced.

    Args:
        path: Path of the file or folder.

    Raises:
        OSError: If the part cannot be written, or is a file while `path` is a
            folder. The message names `path`.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_mixer import atomic
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "log.txt")
    ...     with atomic.replacing(path) as part:
    ...         _ = part.write_text("done")
    ...     path.read_text()
    'done'
    """
    path = pathlib.Path(path)
    part = _beside(path)
    try:
        yield part
        _sync(part)
        if part.is_dir() and path.is_dir() and not path.is_symlink():
            _exchange(part, path)
        else:
            part.replace(path)
        _sync(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            error.errno, f"'{path}' could not be written: {reason}"
        ) from error
    finally:
        remove(part)


_LOST = (errno.EIO, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def remove(path: Path) -> None:
    """Deletes a file, or a folder with all that is in it, if it exists."""
    path = pathlib.Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_part(path: Path) -> bool:
    """Returns whether a path is that of an unfinished file or folder.

    A process that was killed leaves it behind.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_mixer import atomic
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic.replacing(pathlib.Path(folder, "log.csv")) as part:
    ...         _ = part.write_text("done")
    >>> atomic.is_part(part)
    True
    """
    name = pathlib.Path(path).name
    return re.match(r"\.part-[0-9a-f]{8}-", name) is not None


def _beside(path):
    """Returns a new name in the folder of `path`, with its ending.

    The ending stays, since Keras and NumPy choose the format by it. It can have
    two parts, as in ".weights.h5".
    """
    return path.with_name(f".part-{uuid.uuid4().hex[:8]}-{path.name}")


def _exchange(part, path):
    """Replaces a folder, which no system does in one step."""
    old = _beside(path)
    path.rename(old)
    try:
        part.rename(path)
    except OSError:
        old.rename(path)
        raise
    remove(old)


def _sync(path):
    """Waits until a file, or the names in a folder, are on the disk.

    Windows cannot open folders, and some file systems cannot do this: the file
    is complete there, but may be lost if the machine loses power.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some file systems notice only now that the disk is full.
        if error.errno in _LOST:
            raise
