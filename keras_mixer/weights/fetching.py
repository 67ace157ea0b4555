"""Published files of weights to files on this disk.

`keras.utils.get_file` downloads and shows its progress, but leaves much open:
it trusts whatever stands under the name it looks for, takes half a file for a
whole one where the server does not say how long it is, falls back to a folder
in /tmp that anybody can write to, waits for ever on a server that has gone
silent, and raises bare `Exception`s. So it is given a name of this call's own,
`.<name>.<random>.part` beside the final one, and what it has left there is
checked and only then renamed. The rename is atomic: whoever sees the final name
sees a whole file, however many processes fetch it and wherever one is killed.

Two variables of the environment are read at every call:

- `KERAS_MIXER_WEIGHTS_URL`, a mirror: a file comes from `<mirror>/<file>`.
- `KERAS_MIXER_OFFLINE=1`: nothing is fetched; errors say what to put where.
"""

import base64
import contextlib
import email.message
import hashlib
import os
import pathlib
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import keras

from keras_mixer.weights.errors import DownloadError

# A server that sends nothing for so long has gone; a slow one sends something.
STALL_SECONDS = 30
# A download writes all the time: one that has not for a day was killed.
ABANDONED_SECONDS = 24 * 60 * 60
PARTIAL = ".part"

# How servers say that they do not answer HEAD; 403 is that of storage where the
# address is signed for GET alone.
REFUSES_HEAD = (403, 405, 501)
NOT_THERE = (404, 410)

_MD5 = re.compile(r"[A-Za-z0-9+/]{22}==")
_SHA256 = re.compile(r'(?:W/)?"?([0-9a-f]{64})"?')
_REPOSITORY = re.compile(r"\w([\w.-]*\w)?/\w([\w.-]*\w)?", re.ASCII)

# One download at a time in a process: the timeout of sockets is global, and a
# thread that waited finds the file there.
_LOCK = threading.Lock()


def cache_folder():
    """Where fetched files are: `models/keras_mixer` in the folder of Keras.

    That is `KERAS_HOME`, or `~/.keras`, as `keras.utils.get_file` has it; but
    never its last resort, /tmp/.keras, where others may have put files.
    """
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    home = os.path.abspath(os.path.expanduser(home))
    return pathlib.Path(home, "models", "keras_mixer")


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
    path = _path(file)
    url = _mirrored(file) or url
    if _is_cached(path, size):
        return path
    if _is_offline():
        raise DownloadError(
            f"Cannot fetch '{file}': KERAS_MIXER_OFFLINE is set, and "
            f"{_state(path, size)}. Get the file from {url} and put it at "
            f"'{path}', or unset KERAS_MIXER_OFFLINE."
        )
    with _LOCK:
        if not _is_cached(path, size):
            _download(path, url, size, sha256)
    return path


def fetch_from_hub(repo, names):
    """Returns the path of a file of a repository of the Hugging Face hub.

    A file that somebody has put at `<cache>/<repo>/<name>` goes first, then a
    mirror, then the hub.

    Args:
        repo: String, `"organisation/name"`.
        names: Tuple of names of files, the preferred one first.

    Returns:
        `pathlib.Path` of the first of `names` that is there.

    Raises:
        DownloadError: If none of `names` is there, or the repository is not, or
            may not be read, or cannot be reached.
        ImportError: If it takes huggingface_hub, which is not installed.
        ValueError: If `repo` is no name of a repository, or a name leads out of
            the cache.
    """
    _check_repository(repo)
    files = [f"{repo}/{name}" for name in names]
    for file in files:
        if _is_cached(_path(file)):
            return _path(file)
    if _mirrored(repo) and not _is_offline():
        return _fetch_first(files)
    return _fetch_from_hub(repo, names, files)


def _path(file):
    parts = file.split("/")
    if {"", ".", ".."} & set(parts) or re.search(r"[\\:\0]", file):
        raise ValueError(
            "The name of a file of weights must be relative, with '/' between "
            "its parts and none of them empty, '.' or '..'. "
            f"Received: {file!r}"
        )
    return cache_folder().joinpath(*parts)


def _check_repository(repo):
    if (
        not _REPOSITORY.fullmatch(repo)
        or "--" in repo
        or ".." in repo
        or repo.endswith(".git")
    ):
        raise ValueError(
            "A repository of the Hugging Face hub must be given as "
            f"'organisation/name'. Received: {repo!r}"
        )


def _mirrored(file):
    """Where the mirror has `file`, or `None` without a mirror."""
    mirror = os.environ.get("KERAS_MIXER_WEIGHTS_URL", "").rstrip("/")
    return f"{mirror}/{urllib.parse.quote(file)}" if mirror else None


def _is_offline():
    value = os.environ.get("KERAS_MIXER_OFFLINE", "").strip().lower()
    return value in ("1", "true", "yes", "on")


def _is_cached(path, size=None):
    # `os.path` calls what it may not look at no file; the download then says
    # what is wrong with the folder.
    return os.path.isfile(path) and size in (None, os.path.getsize(path))


def _state(path, size):
    if os.path.isfile(path):
        return f"'{path}' has {os.path.getsize(path)} bytes, not {size}"
    return f"there is no file '{path}'"


def _download(path, url, size, sha256):
    partial = _reserve(path)
    try:
        expected = _receive(partial, url, path, size, sha256)
        _check(partial, expected, url, path)
        _publish(partial, path)
    finally:
        # Also after Ctrl-C; once renamed it is no longer there.
        partial.unlink(missing_ok=True)


def _reserve(path):
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


def _unwritable(folder, error):
    return DownloadError(
        f"Cannot keep weights in '{folder}': {error}. Make that folder "
        "writable (`chmod`), or set KERAS_HOME to one that is."
    )


def _remove_abandoned(folder):
    for partial in folder.glob(f".*{PARTIAL}"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
                partial.unlink()


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
            f"Cannot fetch {url}: {_reason(cause)}. {_advice(path)}"
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


def _reason(error):
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"the server has sent nothing for {STALL_SECONDS} seconds"
    if isinstance(reason, str):
        return reason
    return f"{type(reason).__name__}: {reason}"


def _advice(*paths):
    return (
        f"Try again, or put the file at {_either(paths)} by hand, or set "
        "KERAS_MIXER_WEIGHTS_URL to a mirror that has it."
    )


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
            f"It was removed. {_advice(path)}"
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


def _publish(partial, path):
    try:
        os.replace(partial, path)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _fetch_first(files):
    """The first of `files` that the mirror has."""
    for file in files:
        try:
            return fetch(file, _mirrored(file))
        except DownloadError as error:
            if not _is_missing(error.__cause__):
                raise
    raise DownloadError(
        f"The mirror has none of {', '.join(map(_mirrored, files))}. "
        f"{_advice(*map(_path, files))}"
    )


def _is_missing(error):
    if isinstance(error, urllib.error.HTTPError):
        return error.code in NOT_THERE
    # A mirror may be a folder, as `file://`.
    return isinstance(getattr(error, "reason", None), FileNotFoundError)


def _fetch_from_hub(repo, names, files):
    hub = _huggingface_hub()
    offline = _is_offline() or hub.constants.HF_HUB_OFFLINE
    try:
        path = _first_of_hub(hub, repo, names, offline)
    # It raises errors of its own, of its HTTP client and of files.
    except Exception as error:
        # It has looked into its cache for the name that failed, but not for
        # those after it.
        path = _first_of_hub(hub, repo, names, offline=True)
        if path is None:
            _reserve(_hub_folder() / "file").unlink()
            raise DownloadError(
                f"Cannot fetch {_either(names)} from the repository '{repo}' "
                f"of the Hugging Face hub: {_hub_reason(hub, error)}\n"
                "Check that the repository exists and that you may read it "
                f"(`hf auth login`). {_advice(*map(_path, files))}"
            ) from error
    if path is None:
        raise DownloadError(_none_there(repo, names, files, offline))
    return path


def _hub_folder():
    return cache_folder() / "hub"


def _hub_reason(hub, error):
    # Out of reach: why is in the cause only.
    if isinstance(error, hub.errors.LocalEntryNotFoundError):
        return _reason(error.__cause__ or error)
    return _reason(error)


def _huggingface_hub():
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(
            "Fetching from the Hugging Face hub needs huggingface_hub. Install "
            "it with `pip install keras_mixer[hub]`."
        ) from error
    return huggingface_hub


def _first_of_hub(hub, repo, names, offline):
    """The first of `names` in the repository, or offline in the hub's cache.

    Returns `None` if none is there.
    """
    for name in names:
        try:
            path = hub.hf_hub_download(
                repo,
                name,
                cache_dir=_hub_folder(),
                local_files_only=offline,
            )
            return pathlib.Path(path)
        except hub.errors.EntryNotFoundError as error:
            # Online, one that is missing here was out of reach there.
            is_local = isinstance(error, hub.errors.LocalEntryNotFoundError)
            if is_local and not offline:
                raise
    return None


def _none_there(repo, names, files, offline):
    places = _either(map(_path, files))
    if offline:
        return (
            f"Cannot fetch {_either(names)} of the repository '{repo}': "
            "KERAS_MIXER_OFFLINE or HF_HUB_OFFLINE is set, and none of them is "
            f"in '{_hub_folder()}'. Put the file at {places}, or unset "
            "the variable."
        )
    return (
        f"The repository '{repo}' of the Hugging Face hub has none of "
        f"{_either(names)}. Give the name of another one, or put the "
        f"file at {places}."
    )


def _either(names):
    return " or ".join(f"'{name}'" for name in names)
