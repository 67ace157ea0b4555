"""The folder of downloaded weights, and downloads from an address.

`keras.utils.get_file` is not used: it accepts any existing file with the right
name, and half a file if the server does not send the length, and it waits
forever for a server that does not send data.

Here a download has a timeout and is written to a part file, `.part-<name>`. It
gets its name after its size and its checksum, where they are known, were
compared, and after it was read as weights. A part that is left over is
continued. A process that writes to a part first renames it to a name of its
own, so no two processes write to the same.

Two environment variables are read at every call:

- `KERAS_MIXER_WEIGHTS_URL` is a mirror: files come from `<mirror>/<file>`.
- `KERAS_MIXER_OFFLINE=1` turns downloads off. Errors then explain which file to
  put where.
"""

import contextlib
import glob
import hashlib
import http.client
import logging
import os
import pathlib
import re
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

from keras_mixer.arguments import check_local_path
from keras_mixer.atomic import replacing
from keras_mixer.weights import reading
from keras_mixer.weights.errors import DownloadError
from keras_mixer.weights.errors import WeightsError

# A server that sends nothing for this time is down. A slow server still sends.
STALL_SECONDS = 30

CHUNK = 2**20  # bytes

# Allows one download at a time in a process. A thread that waited for another
# thread then finds the file in the cache.
_LOCK = threading.Lock()

logger = logging.getLogger("keras_mixer")


def folder():
    """Returns the cache folder: `models/keras_mixer` in the folder of Keras.

    The folder of Keras is `KERAS_HOME` or `~/.keras`, as in
    `keras.utils.get_file`. Its fallback /tmp/.keras is not used, because other
    users can put files there.

    Raises:
        DownloadError: If there is no home folder, and `KERAS_HOME` is not set.
        ValueError: If `KERAS_HOME` is an address such as "gs://bucket".
    """
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    check_local_path("KERAS_HOME", home)
    expanded = os.path.expanduser(home)
    if expanded.startswith("~"):
        raise DownloadError(
            f"There is no home folder, so '{home}' is not a place for weights. "
            "Set KERAS_HOME to a folder of yours, such as "
            f"'{os.path.join(os.sep, 'var', 'tmp', 'my_keras')}'."
        )
    return pathlib.Path(os.path.abspath(expanded), "models", "keras_mixer")


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


def make_folder(path):
    """Creates a folder of the cache."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def download(file, url, size=None, sha256=None, check=reading.read):
    """Returns the path of a published file; downloads it if necessary.

    Args:
        file: Relative name in the cache and on the mirror, with "/".
        url: Address of the published file.
        size: Integer, exact size in bytes. Without it, any file with this name
            in the cache is used.
        sha256: String, checksum as hexadecimal digits, or `None`.
        check: Function that reads the file before it gets its name. It raises
            `WeightsError` if this is not the file.

    Returns:
        `pathlib.Path` of the complete file.

    Raises:
        DownloadError: If the file cannot be downloaded completely and
            unchanged, if downloads are turned off, or if the cache cannot be
            written.
        ValueError: If `file` is absolute or leads out of the cache.
    """
    path = path_of(file)
    url = mirrored(file) or url
    if is_cached(path, size):
        return path
    if is_offline():
        raise DownloadError(
            f"Cannot fetch '{file}': KERAS_MIXER_OFFLINE is set, and "
            f"{_state(path, size)}. Get the file from {url} and put it at "
            f"'{path}', or unset KERAS_MIXER_OFFLINE."
        )
    with _LOCK:
        if not is_cached(path, size):
            _download(path, url, size, sha256, check)
    return path


def _state(path, size):
    if os.path.isfile(path):
        return f"'{path}' has {os.path.getsize(path)} bytes, not {size}"
    return f"there is no file '{path}'"


def _download(path, url, size, sha256, check):
    if path.is_dir():
        raise _unwritable(path.parent, f"'{path.name}' is a directory")
    with _part_of(path) as part:
        if size is None or part.stat().st_size != size:
            size = _receive(part, url, path, size)
        try:
            _check(part, size, sha256)
            check(part)
        except WeightsError as error:
            part.unlink()
            raise DownloadError(
                f"What came from {url} is not the file, and was removed: "
                f"{error}. {advice(path)}"
            ) from error
        try:
            with replacing(path) as complete:
                part.rename(complete)
        except OSError as error:
            raise _unwritable(path.parent, error) from error


@contextlib.contextmanager
def _part_of(path):
    """Gives the part file to continue or to begin; keeps it if it is left."""
    left = path.with_name(f".part-{path.name}")
    part = path.with_name(f".part-{uuid.uuid4().hex[:8]}-{path.name}")
    make_folder(path.parent)
    try:
        for other in (left, *path.parent.glob(f".part-????????-{_name(path)}")):
            if other == left or _is_abandoned(other):
                with contextlib.suppress(FileNotFoundError):
                    other.rename(part)
                    break
        part.touch()
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    try:
        yield part
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.replace(left)


def _name(path):
    return glob.escape(path.name)


def _is_abandoned(part):
    """Returns whether the process that wrote to a part must have ended."""
    with contextlib.suppress(FileNotFoundError):
        return time.time() - part.stat().st_mtime > 2 * STALL_SECONDS
    return False


def _receive(part, url, path, size):
    """Downloads the rest of `url` to `part`; returns its size, if known."""
    done = part.stat().st_size
    headers = {"Range": f"bytes={done}-"} if done else {}
    _announce(url)
    try:
        request = urllib.request.Request(url, headers=headers)
        with (
            urllib.request.urlopen(request, timeout=STALL_SECONDS) as answer,
            part.open("ab") as file,
        ):
            if answer.status != http.client.PARTIAL_CONTENT:
                file.truncate(0)
                done = 0
            length = answer.headers["Content-Length"]
            if length is not None:
                total = done + int(length)
                if size not in (None, total):
                    file.truncate(0)
                    raise urllib.error.URLError(
                        f"it has {total} bytes, not {size}"
                    )
                size = total
            _copy(answer, file, size)
    # Some errors of http.client are not `OSError`s, and urllib raises
    # `ValueError` for an invalid address.
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            # The part is as long as the file, or longer.
            if error.code == 416 and done:
                part.write_bytes(b"")
                return _receive(part, url, path, size)
        raise DownloadError(
            f"Cannot fetch {url}: {reason(error)}. {advice(path)}"
        ) from error
    received = part.stat().st_size
    if size is not None and received < size:
        raise DownloadError(
            f"The download from {url} is incomplete: {received} of {size} "
            f"bytes. The next try continues there. {advice(path)}"
        )
    return size


def _announce(url):
    """Reports the download in the same place as Keras shows progress."""
    import keras  # here, since the tables of this room are needed without Keras

    if keras.config.is_interactive_logging_enabled():
        sys.stdout.write(f"Downloading data from {url}\n")
    else:
        logger.info("Downloading data from %s", url)


def _copy(answer, file, size):
    """Copies an answer to a file, with a progress bar."""
    import keras

    bar = keras.utils.Progbar(size)
    while chunk := answer.read1(CHUNK):
        file.write(chunk)
        bar.update(file.tell())


def reason(error):
    """Returns a short description of a download error."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return f"the server did not send data for {STALL_SECONDS} seconds"
    if isinstance(cause, str):
        return cause
    return f"{type(cause).__name__}: {cause}"


def _check(part, size, sha256):
    """Compares what is known of a file before it is read."""
    received = part.stat().st_size
    if size not in (None, received):
        raise WeightsError(f"it has {received} bytes, not {size}")
    if sha256 is None:
        return
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256.lower():
        raise WeightsError(f"its SHA-256 is {digest}, not {sha256.lower()}")


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
