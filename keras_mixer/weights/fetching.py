"""Published files of weights to files on this disk.

`keras.utils.get_file` downloads too, but leaves much open: it takes any file
that it finds under the name, takes half a file for a whole one if the server
does not send its length, falls back to a folder in /tmp that anybody can write
to, and waits without end for a server that sends nothing. Here a download is
written to a name of its own, with a timeout, checked, and then put into the
cache.
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

# A server that sends nothing for so long has gone; a slow one sends something.
STALL_SECONDS = 30

CHUNK = 2**20  # bytes

_MD5 = re.compile(r"[A-Za-z0-9+/]{22}==")
_SHA256 = re.compile(r'(?:W/)?"?([0-9a-f]{64})"?')

# One download at a time in a process: a thread that waited finds the file.
_LOCK = threading.Lock()

logger = logging.getLogger("keras_mixer")


def fetch(file, url, size=None, sha256=None):
    """Returns the path of a published file, downloaded if it is not there.

    Args:
        file: Relative POSIX name in the cache, and on a mirror.
        url: Where it is published.
        size: Integer, its exact size. Without it, what is under the name in
            the cache is taken as it is.
        sha256: String of hex digits, its checksum. Without it, a download is
            checked against what the server says of it.

    Returns:
        `pathlib.Path` of the whole file.

    Raises:
        DownloadError: If the file could not be fetched whole and unchanged, or
            may not be, or the cache cannot be written.
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
        # Also after Ctrl-C; once renamed it is no longer there.
        partial.unlink(missing_ok=True)


def _receive(partial, url, path, size, sha256):
    """Downloads `url` to `partial`; returns what the file must measure."""
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
    # Some errors of http.client are not `OSError`s, and urllib raises a
    # `ValueError` for what is not an address.
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DownloadError(
            f"Cannot fetch {url}: {reason(error)}. {cache.advice(path)}"
        ) from error


def _announce(url):
    """Says what is downloaded, where Keras shows progress."""
    if keras.config.is_interactive_logging_enabled():
        sys.stdout.write(f"Downloading data from {url}\n")
    else:
        logger.info("Downloading data from %s", url)


def _copy(answer, file, size):
    """Copies an answer to a file, with a bar of progress."""
    bar = keras.utils.Progbar(size)
    while chunk := answer.read1(CHUNK):
        file.write(chunk)
        bar.update(file.tell())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps the headers of redirects."""

    def __init__(self):
        self.headers = []

    def redirect_request(self, request, fp, code, msg, headers, newurl):
        self.headers.append(headers)
        return super().redirect_request(request, fp, code, msg, headers, newurl)


def reason(error):
    """Why there was no answer, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return f"the server has sent nothing for {STALL_SECONDS} seconds"
    if isinstance(cause, str):
        return cause
    return f"{type(cause).__name__}: {cause}"


def _expected(answers, size, sha256):
    """`{kind: value}` of what a whole file measures, of `_measure`'s kinds.

    Args:
        answers: The headers of the redirects to the file, and of the file.
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
    """The checksums that a server sends with a file; there may be none."""
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
    """The SHA-256 in an answer of the Hugging Face hub, if there is one.

    The hub's redirect to its storage has it as `X-Linked-Etag`. Elsewhere an
    `ETag` may be anything, 64 digits of something else included, so it counts
    only beside the header that makes the answer one of a hub.
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
            f"What came from {url} is not the file. "
            f"Expected: {_listed(expected)}. Received: {_listed(received)}. "
            f"It was removed. {cache.advice(path)}"
        )


def _measure(path, kind):
    if kind == "bytes":
        return path.stat().st_size
    with path.open("rb") as file:
        # Some builds of Python refuse MD5 otherwise, which is all that some
        # servers tell: it shows damage, not malice.
        digest = hashlib.file_digest(
            file, lambda: hashlib.new(kind, usedforsecurity=False)
        )
    # As headers have them.
    if kind == "md5":
        return base64.b64encode(digest.digest()).decode()
    return digest.hexdigest()


def _listed(measures):
    return ", ".join(f"{kind}={value}" for kind, value in measures.items())
