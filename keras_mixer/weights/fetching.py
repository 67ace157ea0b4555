"""Downloads published weights files to the cache.

`keras.utils.get_file` is not used, because it has several problems:

- It accepts any existing file with the right name.
- It accepts half a file if the server does not send the length.
- It falls back to a folder in /tmp that every user can write to.
- It waits forever for a server that does not send data.

Here a download has a timeout, is written to a temporary name, is checked, and
is then moved into the cache.
"""

import base64
import hashlib
import http.client
import logging
import os
import re
import sys
import threading
import urllib.error
import urllib.request

import keras

from keras_mixer.weights import cache
from keras_mixer.weights.errors import DownloadError

# A server that sends nothing for this time is down. A slow server still sends.
STALL_SECONDS = 30

CHUNK = 2**20  # bytes

_MD5 = re.compile(r"[A-Za-z0-9+/]{22}==")
_SHA256 = re.compile(r'(?:W/)?"?([0-9a-f]{64})"?')

# Allows one download at a time in a process. A thread that waited for another
# thread then finds the file in the cache.
_LOCK = threading.Lock()

logger = logging.getLogger("keras_mixer")


def fetch(file, url, size=None, sha256=None):
    """Returns the path of a published file; downloads it if necessary.

    Args:
        file: Relative name in the cache and on the mirror, with "/".
        url: Address of the published file.
        size: Integer, exact size in bytes. Without it, any file with this name
            in the cache is used.
        sha256: String, checksum as hexadecimal digits. Without it, a download
            is checked with the checksum that the server sends, if any.

    Returns:
        `pathlib.Path` of the complete file.

    Raises:
        DownloadError: If the file cannot be downloaded completely and
            unchanged, if downloads are turned off, or if the cache cannot be
            written.
        ValueError: If `file` is absolute or leads out of the cache.
    """
    path = cache.path_of(file)
    url = cache.mirrored(file) or url
    if cache.is_cached(path, size):
        return path
    if cache.is_offline():
        raise DownloadError(
            f"Cannot fetch '{file}': KERAS_MIXER_OFFLINE is set, and "
            f"{_state(path, size)}. Get the file from {url} and put it at "
            f"'{path}', or unset KERAS_MIXER_OFFLINE."
        )
    with _LOCK:
        if not cache.is_cached(path, size):
            _download(path, url, size, sha256)
    return path


def _state(path, size):
    if os.path.isfile(path):
        return f"'{path}' has {os.path.getsize(path)} bytes, not {size}"
    return f"there is no file '{path}'"


def _download(path, url, size, sha256):
    partial = cache.reserve(path)
    try:
        expected = _receive(partial, url, path, size, sha256)
        _check(partial, expected, url, path)
        cache.publish(partial, path)
    finally:
        # Also after Ctrl-C. After the rename the file is missing.
        partial.unlink(missing_ok=True)


def _receive(partial, url, path, size, sha256):
    """Downloads `url` to `partial`; returns its expected measures."""
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    _announce(url)
    try:
        with (
            opener.open(url, timeout=STALL_SECONDS) as answer,
            partial.open("wb") as file,
        ):
            answers = (*redirects.headers, answer.headers)
            expected = _expected(answers, size, sha256)
            _copy(answer, file, expected.get("bytes"))
            return expected
    # Some errors of http.client are not `OSError`s, and urllib raises
    # `ValueError` for an invalid address.
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DownloadError(
            f"Cannot fetch {url}: {reason(error)}. {cache.advice(path)}"
        ) from error


def _announce(url):
    """Reports the download in the same place as Keras shows progress."""
    if keras.config.is_interactive_logging_enabled():
        sys.stdout.write(f"Downloading data from {url}\n")
    else:
        logger.info("Downloading data from %s", url)


def _copy(answer, file, size):
    """Copies an answer to a file, with a progress bar."""
    bar = keras.utils.Progbar(size)
    while chunk := answer.read1(CHUNK):
        file.write(chunk)
        bar.update(file.tell())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps their headers."""

    def __init__(self):
        self.headers = []

    def redirect_request(self, request, fp, code, msg, headers, newurl):
        self.headers.append(headers)
        return super().redirect_request(request, fp, code, msg, headers, newurl)


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


def _expected(answers, size, sha256):
    """Returns `{kind: value}`, the measures that a complete file has.

    The kinds are those of `_measure`.

    Args:
        answers: The headers of all redirects and of the final answer.
        size: The known size, or `None`.
        sha256: The known checksum, or `None`.
    """
    headers = answers[-1]
    expected = {}
    if headers["Content-Length"] is not None:
        expected["bytes"] = int(headers["Content-Length"])
    if size is not None:
        expected["bytes"] = size
    if sha256 is not None:
        return {**expected, "sha256": sha256.lower()}
    return {**expected, **_checksums(answers)}


def _checksums(answers):
    """Returns the checksums that a server sends with a file, if any."""
    headers = answers[-1]
    checksums = {}
    for part in ",".join(headers.get_all("x-goog-hash", [])).split(","):
        kind, _, value = part.strip().partition("=")
        if kind == "md5":
            checksums["md5"] = value
    content_md5 = (headers["Content-MD5"] or "").strip()
    if _MD5.fullmatch(content_md5):
        checksums["md5"] = content_md5
    for answer in answers:
        checksum = _hub_checksum(answer)
        if checksum:
            checksums["sha256"] = checksum
    return checksums


def _hub_checksum(headers):
    """Returns the SHA-256 in an answer of the Hugging Face hub, or `None`.

    The hub sends it as `X-Linked-Etag` when it redirects to its storage. The
    `ETag` of another server can be any value, also 64 other digits. So `ETag`
    is used only if the answer has the header `X-Repo-Commit` of a hub.
    """
    etag = headers["X-Linked-Etag"]
    if etag is None and headers["X-Repo-Commit"] is not None:
        etag = headers["ETag"]
    match = _SHA256.fullmatch((etag or "").strip())
    return match and match[1]


def _check(partial, expected, url, path):
    received = {kind: _measure(partial, kind) for kind in expected}
    if received != expected:
        raise DownloadError(
            f"The download from {url} is incomplete or wrong. "
            f"Expected: {_listed(expected)}. Received: {_listed(received)}. "
            f"It was removed. {cache.advice(path)}"
        )


def _measure(path, kind):
    if kind == "bytes":
        return path.stat().st_size
    with path.open("rb") as file:
        # Some servers send only MD5, which detects damage but not attacks. Some
        # builds of Python refuse MD5 without `usedforsecurity=False`.
        digest = hashlib.file_digest(
            file, lambda: hashlib.new(kind, usedforsecurity=False)
        )
    # In the encoding of the HTTP headers.
    if kind == "md5":
        return base64.b64encode(digest.digest()).decode()
    return digest.hexdigest()


def _listed(measures):
    return ", ".join(f"{kind}={value}" for kind, value in measures.items())
