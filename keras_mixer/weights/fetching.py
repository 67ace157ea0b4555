"""Published files of weights to files on this disk.

`keras.utils.get_file` downloads and shows its progress, but leaves much open:
it trusts whatever stands under the name it looks for, takes half a file for a
whole one where the server does not say how long it is, falls back to a folder
in /tmp that anybody can write to, waits for ever on a server that has gone
silent, and raises bare `Exception`s. So it is given a name of this call's own,
and what it has left there is checked and only then put into the cache.
"""

import base64
import contextlib
import email.message
import hashlib
import os
import re
import socket
import threading
import urllib.error
import urllib.request

import keras

from keras_mixer.weights import cache
from keras_mixer.weights.errors import DownloadError

# A server that sends nothing for so long has gone; a slow one sends something.
STALL_SECONDS = 30

# How servers say that they do not answer HEAD; 403 is that of storage where the
# address is signed for GET alone.
REFUSES_HEAD = (403, 405, 501)

_MD5 = re.compile(r"[A-Za-z0-9+/]{22}==")
_SHA256 = re.compile(r'(?:W/)?"?([0-9a-f]{64})"?')

# One download at a time in a process: the timeout of sockets is global, and a
# thread that waited finds the file there.
_LOCK = threading.Lock()


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
    """Downloads `url` to `partial`; returns what is to be found there."""
    try:
        with _socket_timeout():
            expected = _expected(url, size, sha256)
            keras.utils.get_file(
                partial.name,
                url,
                # An absolute `cache_subdir` leaves /tmp/.keras no say.
                cache_dir=str(partial.parent),
                cache_subdir=str(partial.parent),
                force_download=True,
            )
            return expected
    # It raises bare `Exception`s; http.client what is no `OSError`; and urllib
    # a `ValueError` for what is no address.
    except Exception as error:
        cause = error
        if type(error) is Exception and error.__context__ is not None:
            cause = error.__context__
        if isinstance(cause, urllib.error.HTTPError):
            cause.close()
        raise DownloadError(
            f"Cannot fetch {url}: {reason(cause)}. {cache.advice(path)}"
        ) from cause


@contextlib.contextmanager
def _socket_timeout():
    """Gives the sockets that are made within a timeout.

    `get_file` takes none and hands none on, so the default is all there is to
    set. Sockets that other threads make meanwhile get it too, unless they have
    one of their own.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


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


def _expected(url, size, sha256):
    """`{kind: value}` of what a whole file measures, of `_measure`'s kinds."""
    known = {} if size is None else {"bytes": size}
    if sha256 is None:
        return {**_announced(url), **known}
    return {**known, "sha256": sha256.lower()}


def _announced(url):
    """What the server says of the file, in the kinds of `_measure`.

    It may say nothing at all. `get_file` then still compares what it receives
    with the Content-Length that comes along, if one does.
    """
    redirects, headers = _ask(url)
    announced = {}
    if headers["Content-Length"] is not None:
        announced["bytes"] = int(headers["Content-Length"])
    checksums = ",".join(headers.get_all("x-goog-hash", []))
    for part in checksums.split(","):
        kind, _, value = part.strip().partition("=")
        if kind == "md5":
            announced["md5"] = value
    content_md5 = (headers["Content-MD5"] or "").strip()
    if _MD5.fullmatch(content_md5):
        announced["md5"] = content_md5
    for answer in (*redirects, headers):
        checksum = _hub_checksum(answer)
        if checksum:
            announced["sha256"] = checksum
    return announced


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


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects as they are, and keeps their headers."""

    def __init__(self):
        self.headers = []

    def redirect_request(self, request, fp, code, msg, headers, newurl):
        self.headers.append(headers)
        redirected = super().redirect_request(
            request, fp, code, msg, headers, newurl
        )
        # Before Python 3.13 it would become a GET.
        redirected.method = request.get_method()
        return redirected


def _ask(url):
    """The headers of the redirects to the file, and those of the file."""
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    request = urllib.request.Request(url, method="HEAD")
    try:
        with opener.open(request, timeout=STALL_SECONDS) as answer:
            return redirects.headers, answer.headers
    except urllib.error.HTTPError as error:
        if error.code not in REFUSES_HEAD:
            raise
        error.close()
        return redirects.headers, email.message.Message()


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
