"""Tests downloads with real servers and real processes."""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from keras_mixer.weights import cache
from keras_mixer.weights import errors
from keras_mixer.weights import fetching
from keras_mixer.weights.hub import fetch as fetch_from_hub
from support.helpers import ROOT

FILE = "imagenet1k/tiny.npz"
BODY = bytes(range(256)) * 1024
OTHER = BODY[::-1]
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = base64.b64encode(hashlib.md5(BODY).digest()).decode()
COMMIT = "0123456789" * 4


@dataclasses.dataclass
class Answer:
    """The answer of a server for a path."""

    body: bytes = BODY
    status: int = 200
    head_status: int | None = None  # of HEAD, if different
    headers: tuple = ()  # (name, value)
    has_length: bool = True
    sent: int | None = None  # bytes before the connection is closed
    pause: float = 0.0  # seconds, after each sixteenth of the body
    midway: callable = bool  # called between the halves of a body


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        answer = self.announce()
        self.begin(answer, answer.head_status or answer.status)

    def do_GET(self):
        answer = self.announce()
        # Clients are killed or close the connection.
        with contextlib.suppress(OSError):
            self.begin(answer, answer.status)
            self.send_body(answer)

    def announce(self):
        self.server.requests.append((self.command, self.path))
        return self.server.answers.get(self.path, Answer(b"", 404))

    def begin(self, answer, status):
        self.send_response(status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.has_length:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()

    def send_body(self, answer):
        body = answer.body[: answer.sent]
        step = max(1, len(body) // 16)
        for i in range(0, len(body), step):
            if i == 8 * step:
                answer.midway()
            self.wfile.write(body[i : i + step])
            time.sleep(answer.pause)

    def log_message(self, *_):
        pass


class Site(http.server.ThreadingHTTPServer):
    """A local server with `answers` by path; it records its `requests`."""

    daemon_threads = False  # closing waits for the threads

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers = {}
        self.requests = []
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, args=[0.02])
        self.thread.start()

    def publish(self, path="/tiny.npz", **options):
        self.answers[path] = Answer(**options)
        return self.url + path

    def stall(self):
        self.closing.wait(60)

    def stop(self):
        self.closing.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class Worker:
    """A process that calls the functions under test."""

    CODE = """
import json, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from keras_mixer.weights import fetching
from keras_mixer.weights import hub
functions = {"fetch": fetching.fetch, "fetch_from_hub": hub.fetch}
results, sys.stdout = sys.stdout, sys.stderr
environment = dict(os.environ)
for line in sys.stdin:
    name, arguments, variables = json.loads(line)
    os.environ.clear()
    os.environ.update({**environment, **variables})
    try:
        result = [str(functions[name](*arguments)), ""]
    except BaseException as error:
        result = [type(error).__name__, str(error)]
    print(json.dumps(result), file=results, flush=True)
"""

    def __init__(self, log, **variables):
        with open(log, "wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", self.CODE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "KERAS_BACKEND": "jax", **variables},
                cwd=ROOT,
            )

    def start(self, name, *arguments, **variables):
        line = json.dumps([name, arguments, variables])
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def result(self):
        """Returns the path and "", or the name and the text of the error."""
        return json.loads(self.process.stdout.readline())

    def call(self, name, *arguments, **variables):
        self.start(name, *arguments, **variables)
        return self.result()

    def stop(self):
        with self.process:  # closes its pipes
            self.process.kill()


@pytest.fixture(scope="module")
def make_worker(tmp_path_factory):
    with contextlib.ExitStack() as stack:

        def make(**variables):
            log = tmp_path_factory.mktemp("worker") / "stderr"
            worker = Worker(log, **variables)
            stack.callback(worker.stop)
            return worker

        yield make


@pytest.fixture(scope="module", autouse=True)
def unreachable_hub(make_worker, tmp_path_factory):
    """Starts a slow call early; the last test reads its result."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    worker = make_worker(HF_ENDPOINT=f"http://127.0.0.1:{port}")
    home = tmp_path_factory.mktemp("unreachable")
    arguments = ["mlp/tiny", ["a.safetensors"]]
    worker.start("fetch_from_hub", *arguments, KERAS_HOME=str(home))
    return worker


@pytest.fixture
def site():
    site = Site()
    yield site
    site.stop()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "*")
    for name in ("OFFLINE", "WEIGHTS_URL"):
        monkeypatch.delenv(f"KERAS_MIXER_{name}", raising=False)
    return tmp_path / "keras"


def put(file, content):
    path = cache.folder() / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files():
    """Returns all files in the cache, including partial files."""
    folder = cache.folder()
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_dir()
    )


def refused(*arguments, **options):
    """Returns the error of a failed fetch; checks that no file is left."""
    before = files()
    with pytest.raises(errors.DownloadError) as caught:
        fetching.fetch(*arguments, **options)
    assert files() == before
    return str(caught.value)


def by_hand(file=FILE):
    return f"put the file at '{cache.folder() / file}'"


# Downloads that succeed


def test_file_is_downloaded_once_with_progress(site, home, capsys):
    url = site.publish()
    path = fetching.fetch(FILE, url)
    assert path == home / "models" / "keras_mixer" / FILE
    assert path.read_bytes() == BODY
    assert files() == [FILE]
    out = capsys.readouterr().out
    assert f"Downloading data from {url}" in out
    assert f"{len(BODY)}/{len(BODY)}" in out
    assert fetching.fetch(FILE, url) == path
    assert fetching.fetch(FILE, url, len(BODY), SHA256) == path
    assert site.requests == [("GET", "/tiny.npz")]


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_downloaded_files_respect_the_umask(site, umask):
    before = os.umask(umask)
    try:
        path = fetching.fetch(FILE, site.publish())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert path.parent.stat().st_mode & 0o777 == 0o777 & ~umask


def linked(checksum):
    return (("X-Linked-Etag", f'"{checksum}"'), ("ETag", '"abc"'))


def of_a_hub(checksum):
    return (("ETag", f'"{checksum}"'), ("X-Repo-Commit", COMMIT))


# For each kind of checksum, functions that return the headers of a server.
MD5_HEADERS = [
    lambda md5: [("x-goog-hash", f"md5={md5}")],
    lambda md5: [("x-goog-hash", f"crc32c=AAAAAA==,md5={md5}")],
    lambda md5: [("X-Goog-Hash", "crc32c=AA=="), ("X-Goog-Hash", f"md5={md5}")],
    lambda md5: [("Content-MD5", md5)],
]
SHA256_HEADERS = [linked, of_a_hub, lambda sha: [("X-Linked-Etag", f"W/{sha}")]]
CHECKSUMS = [
    *(("md5", MD5, headers) for headers in MD5_HEADERS),
    *(("sha256", SHA256, headers) for headers in SHA256_HEADERS),
]


@pytest.mark.parametrize(("kind", "checksum", "headers"), CHECKSUMS)
def test_checksum_from_server_is_verified(site, kind, checksum, headers):
    path = fetching.fetch(FILE, site.publish(headers=headers(checksum)))
    assert path.read_bytes() == BODY
    url = site.publish(headers=headers(checksum), body=OTHER)
    message = refused("another.npz", url)
    assert url in message
    assert f"{kind}={checksum}. Received" in message
    digest = hashlib.new(kind, OTHER)
    received = base64.b64encode(digest.digest()).decode()
    if kind == "sha256":
        received = digest.hexdigest()
    assert f"{kind}={received}. It was removed. Try again" in message
    assert by_hand("another.npz") in message


UNTOLD = [
    [("ETag", f'"{"0" * 64}"')],  # not from a hub
    [("ETag", '"d41d8cd9"'), ("X-Repo-Commit", COMMIT)],  # of git, not SHA-256
    [("Content-MD5", hashlib.md5(OTHER).hexdigest())],  # not in base64
    [("x-goog-hash", "crc32c=AAAAAA==")],  # composite object, no MD5
]


@pytest.mark.parametrize("headers", UNTOLD)
def test_headers_without_a_checksum_are_ignored(site, headers):
    url = site.publish(headers=headers)
    assert fetching.fetch(FILE, url).read_bytes() == BODY


@pytest.mark.parametrize("body", [BODY, OTHER])
def test_checksum_of_a_redirect_is_verified(site, body):
    site.publish("/storage", body=body)
    headers = [*linked(SHA256), ("Location", "/storage"), ("Content-MD5", "x")]
    url = site.publish("/file", status=302, headers=headers, body=b"moved")
    if body is OTHER:
        assert f"sha256={SHA256}" in refused(FILE, url)
    else:
        assert fetching.fetch(FILE, url).read_bytes() == BODY
    assert site.requests == [("GET", "/file"), ("GET", "/storage")]


def test_download_without_content_length(site):
    url = site.publish(has_length=False)
    assert fetching.fetch(FILE, url, len(BODY)).read_bytes() == BODY


def test_slow_server_does_not_time_out(site, monkeypatch):
    monkeypatch.setattr(fetching, "STALL_SECONDS", 1.5)
    url = site.publish(pause=0.125)
    start = time.monotonic()
    assert fetching.fetch(FILE, url).read_bytes() == BODY
    assert time.monotonic() - start > fetching.STALL_SECONDS


def test_concurrent_threads_download_once(site):
    url = site.publish(pause=0.02)
    paths = []
    threads = [
        threading.Thread(target=lambda: paths.append(fetching.fetch(FILE, url)))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in paths] == [BODY] * 5
    assert site.requests == [("GET", "/tiny.npz")]


# Downloads that fail


@pytest.mark.parametrize("status", [404, 410, 500])
def test_http_error_is_reported(site, status):
    url = site.publish(status=status)
    message = refused(FILE, url)
    assert message.startswith(
        f"Cannot fetch {url}: the server answered {status}"
    )
    assert by_hand() in message
    assert "set KERAS_MIXER_WEIGHTS_URL to a mirror" in message


@pytest.mark.parametrize("known", [{}, {"sha256": SHA256}])
def test_dropped_connection_is_reported(site, known):
    url = site.publish(sent=len(BODY) // 2)
    message = refused(FILE, url, **known)
    assert f"Expected: bytes={len(BODY)}" in message
    assert f"Received: bytes={len(BODY) // 2}" in message
    assert by_hand() in message


def test_truncated_download_is_detected_by_its_size(site):
    url = site.publish(sent=100, has_length=False)
    message = refused(FILE, url, len(BODY))
    assert f"Expected: bytes={len(BODY)}. Received: bytes=100." in message


def test_file_with_wrong_size_is_refused(site):
    message = refused(FILE, site.publish(body=b"<html>"), 1000)
    assert "Expected: bytes=1000. Received: bytes=6." in message


def test_file_with_wrong_checksum_is_refused(site):
    url = site.publish(body=OTHER)
    message = refused(FILE, url, sha256=SHA256.upper())
    length = f"bytes={len(BODY)}, "
    assert f"Expected: {length}sha256={SHA256}. Received: {length}" in message
    path = fetching.fetch(FILE, site.publish(), sha256=SHA256.upper())
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("when", ["before", "midway"])
def test_stalled_server_is_reported(site, monkeypatch, when):
    monkeypatch.setattr(fetching, "STALL_SECONDS", 0.3)
    if when == "before":
        # The server accepts connections, but does not read requests.
        with socket.create_server(("127.0.0.1", 0)) as server:
            message = refused(
                FILE, f"http://127.0.0.1:{server.getsockname()[1]}"
            )
    else:
        message = refused(FILE, site.publish(midway=site.stall))
    assert "the server did not send data for 0.3 seconds. Try again" in message
    assert by_hand() in message


def test_refused_connection_is_reported(site):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/tiny.npz"
    message = refused(FILE, url)
    assert url in message
    assert "ConnectionRefusedError" in message
    assert by_hand() in message


@pytest.mark.parametrize("url", ["example", "gopher://a/b", "http://a b/c"])
def test_invalid_address_is_reported(url):
    assert refused(FILE, url).startswith(f"Cannot fetch {url}: ")


# The cache


@pytest.mark.parametrize("content", [b"", b"half", BODY + b"more"])
def test_cached_file_of_wrong_size_is_replaced_when_complete(site, content):
    path = put(FILE, content)
    seen = []
    url = site.publish(midway=lambda: seen.append(path.read_bytes()))
    assert fetching.fetch(FILE, url, len(BODY)) == path
    assert path.read_bytes() == BODY
    assert seen == [content]


def test_failed_download_keeps_cached_file_of_wrong_size(site):
    path = put(FILE, b"half")
    assert "the server answered 500" in refused(
        FILE, site.publish(status=500), len(BODY)
    )
    assert "bytes=3" in refused(FILE, site.publish(body=b"new"), len(BODY))
    assert path.read_bytes() == b"half"


UNWRITABLE = ["file/keras", "file", "/proc/keras"]


@pytest.mark.parametrize("place", UNWRITABLE)
def test_unwritable_cache_is_reported(site, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("in the way")
    if place.startswith("/proc") and not os.path.isdir("/proc"):
        pytest.skip("there is no /proc here")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / place))
    message = refused("unwritable.npz", site.publish())
    folder = cache.folder()
    assert message.startswith(f"Cannot write weights to '{folder}': ")
    assert "set KERAS_HOME" in message
    assert site.requests == []
    assert not list(pathlib.Path("/tmp/.keras").rglob("*unwritable.npz*"))


def test_folder_with_the_name_of_the_file_is_reported(site):
    (cache.folder() / FILE).mkdir(parents=True)
    message = refused(FILE, site.publish())
    assert message.startswith("Cannot write weights to ")
    assert "directory" in message


def test_cache_is_in_the_folder_of_keras(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = tmp_path / ".keras" / "models" / "keras_mixer"
    assert cache.folder() == expected
    monkeypatch.setenv("KERAS_HOME", "~/elsewhere")
    expected = tmp_path / "elsewhere" / "models" / "keras_mixer"
    assert cache.folder() == expected
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", "elsewhere")
    assert cache.folder() == expected


NAMES = ["/etc/passwd", "../a", "a/../../b", "a/..", "", "a//b", "./a", "a/"]


@pytest.mark.parametrize("name", [*NAMES, "..\\a", "C:/a", "a\0b"])
def test_name_that_leads_out_of_the_cache_is_refused(site, name):
    with pytest.raises(ValueError, match="must be relative"):
        fetching.fetch(name, site.publish())
    with pytest.raises(ValueError, match="must be relative"):
        fetch_from_hub("mlp/tiny", (name,))
    assert site.requests == []


# Processes


@pytest.fixture(scope="module")
def workers(make_worker):
    return [make_worker(), make_worker()]


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def partial_sizes():
    folder = (cache.folder() / FILE).parent
    return [path.stat().st_size for path in folder.glob(".tiny.npz.*.part")]


def test_killed_process_leaves_no_final_file(site, home, make_worker):
    worker = make_worker()
    url = site.publish(midway=site.stall)
    worker.start("fetch", FILE, url, KERAS_HOME=str(home))
    wait_for(lambda: any(partial_sizes()))
    worker.process.send_signal(signal.SIGKILL)
    worker.process.wait()
    ((size,), (left,)) = partial_sizes(), files()
    assert 0 < size < len(BODY)

    path = fetching.fetch(FILE, site.publish("/whole"))
    assert path.read_bytes() == BODY
    # Another process could still write to it, but not after a day.
    assert files() == sorted([left, FILE])
    yesterday = time.time() - 25 * 60 * 60
    os.utime(cache.folder() / left, (yesterday, yesterday))
    fetching.fetch("imagenet1k/next.npz", site.publish("/next"))
    assert files() == ["imagenet1k/next.npz", FILE]


def test_interrupted_download_leaves_no_file(site, home, workers):
    worker = workers[0]
    worker.start(
        "fetch", FILE, site.publish(midway=site.stall), KERAS_HOME=str(home)
    )
    wait_for(lambda: any(partial_sizes()))
    worker.process.send_signal(signal.SIGINT)
    assert worker.result() == ["KeyboardInterrupt", ""]
    assert files() == []


def test_two_concurrent_processes_get_the_file(site, home, workers):
    both = threading.Barrier(2, timeout=60)
    url = site.publish(midway=both.wait, pause=0.01)
    for worker in workers:
        worker.start("fetch", FILE, url, KERAS_HOME=str(home))
    path = cache.folder() / FILE
    assert [worker.result() for worker in workers] == [[str(path), ""]] * 2
    assert path.read_bytes() == BODY
    assert files() == [FILE]
    assert site.requests.count(("GET", "/tiny.npz")) == 2


# The environment


@pytest.mark.parametrize("value", ["1", "true", "YES", " on "])
def test_offline_error_names_file_and_place(site, monkeypatch, value):
    monkeypatch.setenv("KERAS_MIXER_OFFLINE", value)
    url = site.publish()
    path = cache.folder() / FILE
    message = refused(FILE, url, len(BODY))
    assert message.startswith(f"Cannot fetch '{FILE}': KERAS_MIXER_OFFLINE is ")
    assert f"there is no file '{path}'" in message
    assert f"Get the file from {url} and put it at '{path}'" in message
    put(FILE, b"half")
    message = refused(FILE, url, len(BODY))
    assert f"'{path}' has 4 bytes, not {len(BODY)}" in message
    put(FILE, BODY)
    assert fetching.fetch(FILE, url, len(BODY)) == path
    assert site.requests == []


@pytest.mark.parametrize("value", ["0", "", "false", "no", "off"])
def test_other_values_do_not_turn_downloads_off(site, monkeypatch, value):
    monkeypatch.setenv("KERAS_MIXER_OFFLINE", value)
    assert fetching.fetch(FILE, site.publish()).read_bytes() == BODY


@pytest.mark.parametrize("slash", ["", "/"])
def test_mirror_replaces_the_address(site, monkeypatch, slash):
    mirror = f"{site.url}/mirror"
    monkeypatch.setenv("KERAS_MIXER_WEIGHTS_URL", mirror + slash)
    site.publish(f"/mirror/{FILE}")
    path = fetching.fetch(FILE, "http://nowhere.invalid/tiny.npz", len(BODY))
    assert path == cache.folder() / FILE
    assert path.read_bytes() == BODY
    site.publish("/mirror/with%20a%20%23.npz")
    path = fetching.fetch("with a #.npz", "http://nowhere.invalid")
    assert path.read_bytes() == BODY
    message = refused("missing.npz", "http://nowhere.invalid")
    assert f"{mirror}/missing.npz: the server answered 404" in message


def test_mirror_can_be_a_folder(tmp_path, monkeypatch):
    (tmp_path / "tiny.npz").write_bytes(BODY)
    monkeypatch.setenv("KERAS_MIXER_WEIGHTS_URL", tmp_path.as_uri())
    path = fetching.fetch("tiny.npz", "http://nowhere.invalid", len(BODY))
    assert path.read_bytes() == BODY
    assert "No such file" in refused("other.npz", "http://nowhere.invalid")
    (tmp_path / "mlp" / "tiny").mkdir(parents=True)
    (tmp_path / "mlp" / "tiny" / "second").write_bytes(OTHER)
    path = fetch_from_hub("mlp/tiny", ("first", "second"))
    assert path.read_bytes() == OTHER
    with pytest.raises(errors.DownloadError, match="The mirror has none of"):
        fetch_from_hub("mlp/tiny", ("first", "third"))


# The hub

REPO = "mlp-org/tiny_mixer.v1"
WEIGHTS = ("model.safetensors", "tiny.weights.h5")


class Hub(Site):
    """A server with the part of the hub's interface for downloads."""

    def push(self, name, body):
        headers = [("X-Repo-Commit", COMMIT), *etag(body)]
        path = f"/{REPO}/resolve/main/{name}"
        self.publish(path, body=body, headers=headers)

    def refuse(self, name, status, code):
        headers = [("X-Error-Code", code), ("X-Repo-Commit", COMMIT)]
        path = f"/{REPO}/resolve/main/{name}"
        self.publish(path, body=b"", status=status, headers=headers)


def etag(body):
    return [("ETag", f'"{hashlib.sha256(body).hexdigest()}"')]


@pytest.fixture(scope="module")
def hub_and_worker(make_worker, tmp_path_factory):
    hub = Hub()
    # huggingface_hub reads the address when it is imported.
    worker = make_worker(
        HF_ENDPOINT=hub.url,
        HF_HOME=str(tmp_path_factory.mktemp("hub")),
        no_proxy="*",
    )
    yield hub, worker
    hub.stop()


@pytest.fixture
def hub(hub_and_worker):
    hub, _ = hub_and_worker
    hub.answers.clear()
    hub.requests.clear()
    return hub


@pytest.fixture
def from_hub(hub_and_worker, home):
    """Calls `fetch_from_hub`; returns the same as `Worker.result`."""
    _, worker = hub_and_worker

    def call(names=WEIGHTS, **variables):
        variables = {"KERAS_HOME": str(home), **variables}
        return worker.call("fetch_from_hub", REPO, names, **variables)

    return call


def content(result):
    path, message = result
    assert not message, result
    assert path.startswith(str(cache.folder()))
    return pathlib.Path(path).read_bytes()


def test_preferred_file_of_a_repository_is_used(hub, from_hub):
    hub.push("model.safetensors", b"first")
    hub.push("tiny.weights.h5", b"second")
    assert content(from_hub()) == b"first"
    assert content(from_hub(names=WEIGHTS[::-1])) == b"second"
    assert pathlib.Path(from_hub()[0]).name == "model.safetensors"


def test_files_from_hub_respect_the_umask(hub, from_hub):
    hub.push("model.safetensors", b"first")
    path = pathlib.Path(from_hub()[0])
    umask = os.umask(0)  # inherited by the worker process
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert path.parent.stat().st_mode & 0o777 == 0o777 & ~umask


def test_next_file_is_used_if_the_first_is_missing(hub, from_hub):
    hub.refuse("model.safetensors", 404, "EntryNotFound")
    hub.push("tiny.weights.h5", b"second")
    assert content(from_hub()) == b"second"


def test_repository_without_the_files_is_reported(hub, from_hub):
    for name in WEIGHTS:
        hub.refuse(name, 404, "EntryNotFound")
    error, message = from_hub()
    assert error == "DownloadError"
    assert f"'{REPO}' of the Hugging Face hub does not contain" in message
    assert "'model.safetensors' or 'tiny.weights.h5'. Give" in message
    assert by_hand(f"{REPO}/model.safetensors") in message


REFUSALS = [
    (401, "RepoNotFound", "Repository Not Found"),
    (403, "GatedRepo", "Cannot access gated repo"),
    (404, "RevisionNotFound", "Revision Not Found"),
    (418, "Teapot", "418"),
]


@pytest.mark.parametrize(("status", "code", "reason"), REFUSALS)
def test_unreadable_repository_is_reported(hub, from_hub, status, code, reason):
    hub.refuse("model.safetensors", status, code)
    error, message = from_hub()
    assert error == "DownloadError"
    assert f"from the repository '{REPO}'" in message
    assert reason in message
    assert "`hf auth login`" in message
    assert by_hand(f"{REPO}/model.safetensors") in message


def test_offline_files_come_from_the_cache(hub, from_hub):
    offline = {"KERAS_MIXER_OFFLINE": "1"}
    error, message = from_hub(**offline)
    assert error == "DownloadError"
    assert "KERAS_MIXER_OFFLINE or HF_HUB_OFFLINE is set" in message
    for name in WEIGHTS:
        assert f"'{cache.folder() / REPO / name}'" in message
    assert hub.requests == []
    hub.push("tiny.weights.h5", b"second")
    assert content(from_hub(names=WEIGHTS[1:])) == b"second"
    hub.requests.clear()
    assert content(from_hub(**offline)) == b"second"
    put(f"{REPO}/tiny.weights.h5", b"by hand")
    assert content(from_hub(**offline)) == b"by hand"
    assert content(from_hub()) == b"by hand"
    assert hub.requests == []


def test_cached_file_is_used_if_the_hub_fails(hub, from_hub):
    hub.push("tiny.weights.h5", b"second")
    assert content(from_hub(names=WEIGHTS[1:])) == b"second"
    hub.refuse("model.safetensors", 403, "GatedRepo")
    assert content(from_hub()) == b"second"


def test_failed_download_from_hub_is_reported(hub, from_hub):
    hub.push("model.safetensors", BODY)
    answer = hub.answers[f"/{REPO}/resolve/main/model.safetensors"]
    answer.status, answer.head_status = 500, 200
    error, message = from_hub()
    assert error == "DownloadError"
    assert "500" in message
    with pytest.raises(StopIteration):
        next(cache.folder().rglob("model.safetensors"))


@pytest.mark.parametrize("place", ["file/keras", "/proc/keras"])
def test_unwritable_hub_cache_is_reported(hub, from_hub, tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    if place.startswith("/proc") and not os.path.isdir("/proc"):
        pytest.skip("there is no /proc here")
    hub.push("model.safetensors", BODY)
    keras_home = tmp_path / place
    error, message = from_hub(KERAS_HOME=str(keras_home))
    assert error == "DownloadError"
    folder = keras_home / "models" / "keras_mixer" / "hub"
    assert message.startswith(f"Cannot write weights to '{folder}': ")
    assert "set KERAS_HOME" in message


def test_mirror_replaces_the_hub(site, monkeypatch):
    monkeypatch.setenv("KERAS_MIXER_WEIGHTS_URL", site.url)
    site.publish(f"/{REPO}/tiny.weights.h5", body=b"second")
    path = fetch_from_hub(REPO, WEIGHTS)
    assert path == cache.folder() / REPO / "tiny.weights.h5"
    assert path.read_bytes() == b"second"

    with pytest.raises(errors.DownloadError) as caught:
        fetch_from_hub("mlp-org/other", WEIGHTS)
    message = str(caught.value)
    assert f"none of {site.url}/mlp-org/other/model.safetensors, " in message
    assert by_hand("mlp-org/other/model.safetensors") in message
    site.publish("/mlp-org/other/model.safetensors", status=500)
    with pytest.raises(errors.DownloadError, match="answered 500"):
        fetch_from_hub("mlp-org/other", WEIGHTS)


@pytest.mark.parametrize(
    "repo",
    [
        "tiny",
        "a/b/c",
        "/tiny",
        "mlp/",
        "mlp/..",
        "mlp/.hidden",
        "mlp/a--b",
        "mlp/a..b",
        "mlp/a.git",
        "mlp/ä",
        "mlp/a b",
        "",
    ],
)
def test_invalid_repository_name_is_refused(repo):
    with pytest.raises(ValueError, match="given as 'organisation/name'"):
        fetch_from_hub(repo, WEIGHTS)


def test_file_in_cache_does_not_need_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install keras_mixer\[hub\]"):
        fetch_from_hub(REPO, WEIGHTS)
    path = put(f"{REPO}/tiny.weights.h5", b"by hand")
    assert fetch_from_hub(REPO, WEIGHTS) == path


def test_unreachable_hub_is_reported(unreachable_hub):
    error, message = unreachable_hub.result()
    assert error == "DownloadError"
    assert "from the repository 'mlp/tiny'" in message
    assert "refused" in message
    assert "KERAS_MIXER_WEIGHTS_URL" in message
