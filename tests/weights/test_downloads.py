"""Tests downloads with real servers and real processes."""

import contextlib
import dataclasses
import hashlib
import http.server
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from keras_mixer.weights import downloads
from keras_mixer.weights import hub
from keras_mixer.weights import loading
from keras_mixer.weights.errors import DownloadError
from keras_mixer.weights.errors import WeightsError
from support.helpers import ROOT


def weights(number):
    file = io.BytesIO()
    np.savez(file, a=np.full(60_000, number, "float32"))
    return file.getvalue()


FILE = "imagenet1k/tiny.npz"
BODY, OTHER = weights(1), weights(2)
SHA256 = hashlib.sha256(BODY).hexdigest()
COMMIT = "0123456789" * 4


@dataclasses.dataclass
class Answer:
    """The answer of a server for a path."""

    body: bytes = BODY
    status: int = 200
    head_status: int | None = None  # of HEAD, if different
    headers: tuple = ()  # (name, value)
    has_length: bool = True
    has_ranges: bool = True
    sent: int | None = None  # bytes before the connection is closed
    pause: float = 0.0  # seconds, after each sixteenth of the body
    midway: callable = bool  # called between the halves of a body


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        answer, _ = self.announce()
        self.begin(answer, answer.head_status or answer.status, answer.body)

    def do_GET(self):
        answer, start = self.announce()
        body = answer.body[start:]
        # Clients are killed or close the connection.
        with contextlib.suppress(OSError):
            status = answer.status
            if start and status == 200:
                status = 206 if body else 416
            self.begin(answer, status, body)
            self.send_body(answer, body[: answer.sent])

    def announce(self):
        asked = self.headers["Range"]
        self.server.requests.append((self.command, self.path, asked))
        answer = self.server.answers.get(self.path, Answer(b"", 404))
        if asked and answer.has_ranges:
            return answer, int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        return answer, 0

    def begin(self, answer, status, body):
        self.send_response(status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.has_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()

    def send_body(self, answer, body):
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
import json, os, pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "keras_mixer"  # the package is then imported without Keras
from keras_mixer.weights import downloads
from keras_mixer.weights import hub
functions = {
    "download": downloads.download,
    "fetch": hub.fetch,
    "read_config": lambda repo, path: hub.read_config(repo, pathlib.Path(path)),
}
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
                env={**os.environ, "no_proxy": "*", **variables},
                cwd=ROOT,
            )

    def start(self, name, *arguments, **variables):
        line = json.dumps([name, arguments, variables])
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def result(self):
        """Returns the result and "", or the name and the text of the error."""
        return json.loads(self.process.stdout.readline())

    def stop(self):
        with self.process:  # closes its pipes
            self.process.kill()


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """A process that cannot reach the hub."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    folder = tmp_path_factory.mktemp("worker")
    worker = Worker(folder / "log", HF_ENDPOINT=f"http://127.0.0.1:{port}")
    yield worker
    worker.stop()


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
    path = downloads.folder() / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files():
    """Returns all files in the cache, including parts."""
    folder = downloads.folder()
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_dir()
    )


def named_files():
    return [file for file in files() if ".part-" not in file]


def refused(*arguments, **options):
    """Returns the error of a failed download; no file gets its name."""
    before = named_files()
    with pytest.raises(DownloadError) as caught:
        downloads.download(*arguments, **options)
    assert named_files() == before
    return str(caught.value)


def by_hand(file=FILE):
    return f"put the file at '{downloads.folder() / file}'"


PART = "imagenet1k/.part-tiny.npz"


# Downloads that succeed


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_file_is_downloaded_once_with_progress(site, home, capsys, umask):
    url = site.publish()
    before = os.umask(umask)
    try:
        path = downloads.download(FILE, url)
    finally:
        os.umask(before)
    assert path == home / "models" / "keras_mixer" / FILE
    assert path.read_bytes() == BODY
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert path.parent.stat().st_mode & 0o777 == 0o777 & ~umask
    assert files() == [FILE]
    out = capsys.readouterr().out
    assert f"Downloading data from {url}" in out
    assert f"{len(BODY)}/{len(BODY)}" in out
    assert downloads.download(FILE, url, len(BODY), SHA256) == path
    assert site.requests == [("GET", "/tiny.npz", None)]


def test_concurrent_threads_download_once(site):
    url = site.publish(pause=0.02)
    paths = []
    threads = [
        threading.Thread(
            target=lambda: paths.append(downloads.download(FILE, url))
        )
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in paths] == [BODY] * 5
    assert len(site.requests) == 1


HALF = len(BODY) // 2


@pytest.mark.parametrize("has_ranges", [True, False])
@pytest.mark.parametrize("has_length", [True, False])
def test_dropped_download_is_continued(site, has_ranges, has_length):
    options = {"has_ranges": has_ranges, "has_length": has_length}
    url = site.publish(sent=HALF, **options)
    message = refused(FILE, url, len(BODY))
    assert f"is incomplete: {HALF} of {len(BODY)} bytes" in message
    assert "The next try continues there" in message
    assert by_hand() in message
    assert files() == [PART]
    site.publish(**options)
    path = downloads.download(FILE, url, len(BODY), SHA256)
    assert path.read_bytes() == BODY
    assert files() == [FILE]
    assert site.requests[1] == ("GET", "/tiny.npz", f"bytes={HALF}-")


@pytest.mark.parametrize("more", [b"", b"more"])
def test_part_that_is_not_shorter_than_the_file_is_dropped(site, more):
    put(PART, BODY + more)
    url = site.publish()
    path = downloads.download(FILE, url)
    assert path.read_bytes() == BODY
    path.unlink()
    url = site.publish(status=416)
    assert "answered 416" in refused(FILE, url)
    site.publish()
    assert downloads.download(FILE, url).read_bytes() == BODY


# Downloads that fail


@pytest.mark.parametrize("status", [404, 500])
def test_http_error_is_reported(site, status):
    url = site.publish(status=status)
    message = refused(FILE, url)
    assert message.startswith(
        f"Cannot fetch {url}: the server answered {status}"
    )
    assert by_hand() in message
    assert "set KERAS_MIXER_WEIGHTS_URL to a mirror" in message


PAGE = b"<html>Sign in to the network</html>"
WRONG = [
    ({"body": PAGE}, {}, "does not have one of these formats"),
    ({"body": b"four"}, {}, "does not have one of these formats"),
    ({"body": BODY[:-9], "has_length": False}, {}, "the file is damaged"),
    ({"body": BODY[9:]}, {}, "does not have one of these formats"),
    ({"body": PAGE}, {"size": 9000}, "it has 35 bytes, not 9000"),
    ({"body": OTHER}, {"sha256": SHA256.upper()}, f", not {SHA256}"),
    ({"body": OTHER * 2}, {"size": len(BODY)}, f", not {len(BODY)}"),
    ({"body": OTHER * 2, "has_length": False}, {"size": len(BODY)}, ", not "),
]


@pytest.mark.parametrize(("answer", "known", "message"), WRONG)
def test_wrong_content_is_not_kept(site, answer, known, message):
    """Answers with status 200 that are not the file."""
    url = site.publish(**answer)
    received = refused("imagenet1k/tiny", url, **known)
    assert url in received
    assert message in received
    assert by_hand("imagenet1k/tiny") in received
    site.publish()
    path = downloads.download("imagenet1k/tiny", url, **known | {"size": None})
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("when", ["before", "midway"])
def test_stalled_server_is_reported(site, monkeypatch, when):
    monkeypatch.setattr(downloads, "STALL_SECONDS", 0.3)
    if when == "before":
        # The server accepts connections, but does not read requests.
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            message = refused(FILE, f"http://127.0.0.1:{port}")
    else:
        message = refused(FILE, site.publish(midway=site.stall))
    assert "the server did not send data for 0.3 seconds. Try again" in message
    assert by_hand() in message


@pytest.mark.parametrize(
    "url", ["example", "gopher://a/b", "http://a b/c", "http://127.0.0.1:1"]
)
def test_useless_address_is_reported(url):
    message = refused(FILE, url)
    assert message.startswith(f"Cannot fetch {url}: ")
    assert by_hand() in message


# The cache


@pytest.mark.parametrize("content", [b"", b"half", BODY + b"more"])
def test_cached_file_of_wrong_size_is_replaced_when_complete(site, content):
    path = put(FILE, content)
    seen = []
    url = site.publish(midway=lambda: seen.append(path.read_bytes()))
    assert "500" in refused(FILE, site.publish("/a", status=500), len(BODY))
    assert path.read_bytes() == content
    assert downloads.download(FILE, url, len(BODY)) == path
    assert path.read_bytes() == BODY
    assert seen == [content]


@pytest.mark.parametrize("place", ["file/keras", "file", "/proc/keras"])
def test_unwritable_cache_is_reported(site, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("in the way")
    if place.startswith("/proc") and not os.path.isdir("/proc"):
        pytest.skip("there is no /proc here")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / place))
    message = refused("unwritable.npz", site.publish())
    assert message.startswith(f"Cannot write weights to '{downloads.folder()}")
    assert "set KERAS_HOME" in message
    assert site.requests == []


def test_folder_with_the_name_of_the_file_stays(site):
    photo = put(f"{FILE}/photo.jpg", b"precious")
    message = refused(FILE, site.publish())
    assert message.startswith("Cannot write weights to ")
    assert "directory" in message
    assert photo.read_bytes() == b"precious"


def test_cache_is_in_the_folder_of_keras(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for keras_home, place in (
        ("~/cache", "me/cache"),
        ("elsewhere", "elsewhere"),
        ("", "me/.keras"),
    ):
        monkeypatch.setenv("KERAS_HOME", keras_home)
        expected = tmp_path / place / "models" / "keras_mixer"
        assert downloads.folder() == expected
    # Without HOME, and without a user of this number in the password database.
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    for keras_home in ("~/cache", ""):
        monkeypatch.setenv("KERAS_HOME", keras_home)
        with pytest.raises(DownloadError, match=r"no home folder.*Set KERAS_H"):
            downloads.download(FILE, "http://nowhere.invalid")
    monkeypatch.setenv("KERAS_HOME", "gs://bucket")
    with pytest.raises(ValueError, match="`KERAS_HOME` must be a path on this"):
        downloads.download(FILE, "http://nowhere.invalid")
    assert [*tmp_path.iterdir()] == []


NAMES = ["/etc/passwd", "../a", "a/../../b", "a/..", "", "a//b", "./a", "a/"]


@pytest.mark.parametrize("name", [*NAMES, "..\\a", "C:/a", "a\0b"])
def test_name_that_leads_out_of_the_cache_is_refused(site, name):
    with pytest.raises(ValueError, match="must be relative"):
        downloads.download(name, site.publish())
    with pytest.raises(ValueError, match="must be relative"):
        hub.fetch("mlp/tiny", (name,))
    assert site.requests == []


# Processes


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def part_sizes():
    folder = (downloads.folder() / FILE).parent
    return [path.stat().st_size for path in folder.glob(".part-*tiny.npz")]


def test_two_concurrent_processes_get_the_file(site, home, worker):
    both = threading.Barrier(2, timeout=60)
    url = site.publish(midway=both.wait, pause=0.01)
    worker.start("download", FILE, url, KERAS_HOME=str(home))
    path = downloads.download(FILE, url)
    assert worker.result() == [str(path), ""]
    assert path.read_bytes() == BODY
    assert files() == [FILE]
    assert len(site.requests) == 2


@pytest.mark.nightly  # huggingface_hub tries for 20 seconds
def test_unreachable_hub_is_reported(home, worker):
    arguments = ["mlp/tiny", ["a.safetensors"]]
    worker.start("fetch", *arguments, KERAS_HOME=str(home))
    error, message = worker.result()
    assert error == "DownloadError"
    assert "from the repository 'mlp/tiny'" in message
    assert "refused" in message
    assert "KERAS_MIXER_WEIGHTS_URL" in message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_download_is_continued(site, home, worker, number):
    url = site.publish(midway=site.stall)
    worker.start("download", FILE, url, KERAS_HOME=str(home))
    wait_for(lambda: any(part_sizes()))
    worker.process.send_signal(number)
    if number == signal.SIGINT:
        assert worker.result() == ["KeyboardInterrupt", ""]
    else:
        worker.process.wait()
    ((size,), (left,)) = part_sizes(), files()
    assert 0 < size < len(BODY)
    if number == signal.SIGKILL:
        # Another process could still write to it, but not after minutes.
        path = downloads.download(FILE, site.publish("/whole"))
        assert files() == sorted([left, FILE])
        path.unlink()
        earlier = time.time() - 100
        os.utime(downloads.folder() / left, (earlier, earlier))
    path = downloads.download(FILE, site.publish("/rest"))
    assert path.read_bytes() == BODY
    assert files() == [FILE]
    assert site.requests[-1] == ("GET", "/rest", f"bytes={size}-")


# The environment


@pytest.mark.parametrize("value", ["1", " YES"])
def test_offline_error_names_file_and_place(site, monkeypatch, value):
    monkeypatch.setenv("KERAS_MIXER_OFFLINE", value)
    url = site.publish()
    path = downloads.folder() / FILE
    message = refused(FILE, url, len(BODY))
    assert message.startswith(f"Cannot fetch '{FILE}': KERAS_MIXER_OFFLINE is ")
    assert f"there is no file '{path}'" in message
    assert f"Get the file from {url} and put it at '{path}'" in message
    put(FILE, b"half")
    message = refused(FILE, url, len(BODY))
    assert f"'{path}' has 4 bytes, not {len(BODY)}" in message
    put(FILE, BODY)
    assert downloads.download(FILE, url, len(BODY)) == path
    assert site.requests == []


@pytest.mark.parametrize("slash", ["", "/"])
def test_mirror_replaces_the_address(site, monkeypatch, slash):
    mirror = f"{site.url}/mirror"
    monkeypatch.setenv("KERAS_MIXER_WEIGHTS_URL", mirror + slash)
    site.publish(f"/mirror/{FILE}")
    path = downloads.download(FILE, "http://nowhere.invalid", len(BODY))
    assert path == downloads.folder() / FILE
    site.publish("/mirror/with%20a%20%23.npz")
    path = downloads.download("with a #.npz", "http://nowhere.invalid")
    assert path.read_bytes() == BODY
    message = refused("missing.npz", "http://nowhere.invalid")
    assert f"{mirror}/missing.npz: the server answered 404" in message


def test_mirror_can_be_a_folder(tmp_path, monkeypatch):
    (tmp_path / "tiny.npz").write_bytes(BODY)
    monkeypatch.setenv("KERAS_MIXER_WEIGHTS_URL", tmp_path.as_uri())
    path = downloads.download("tiny.npz", "http://nowhere.invalid", len(BODY))
    assert path.read_bytes() == BODY
    assert "No such file" in refused("other.npz", "http://nowhere.invalid")
    (tmp_path / "mlp" / "tiny").mkdir(parents=True)
    (tmp_path / "mlp" / "tiny" / "second").write_bytes(OTHER)
    path = hub.fetch("mlp/tiny", ("first", "second"))
    assert path.read_bytes() == OTHER
    with pytest.raises(DownloadError, match="The mirror has none of"):
        hub.fetch("mlp/tiny", ("first", "third"))


# The hub

REPO = "mlp-org/tiny_mixer.v1"
WEIGHTS = ("model.safetensors", "tiny.weights.h5")
TIMM = json.dumps({"mean": [0.1] * 3, "std": [0.5] * 3}).encode()


class Hub(Site):
    """A server with the part of the hub's interface for downloads."""

    def push(self, name, body, **options):
        etag = hashlib.sha256(body).hexdigest()
        headers = [("X-Repo-Commit", COMMIT), ("ETag", f'"{etag}"')]
        path = f"/{REPO}/resolve/main/{name}"
        self.publish(path, body=body, headers=headers, **options)

    def refuse(self, name, status, code):
        headers = [("X-Error-Code", code), ("X-Repo-Commit", COMMIT)]
        path = f"/{REPO}/resolve/main/{name}"
        self.publish(path, body=b"", status=status, headers=headers)


@pytest.fixture(scope="module")
def site_and_worker(tmp_path_factory):
    site = Hub()
    # huggingface_hub reads the address when it is imported.
    folder = tmp_path_factory.mktemp("hub")
    worker = Worker(folder / "log", HF_ENDPOINT=site.url, HF_HOME=str(folder))
    yield site, worker
    worker.stop()
    site.stop()


@pytest.fixture
def server(site_and_worker):
    server, _ = site_and_worker
    server.answers.clear()
    server.requests.clear()
    return server


@pytest.fixture
def call(site_and_worker, home):
    """Calls a function of `hub`; returns the same as `Worker.result`."""
    _, worker = site_and_worker

    def call(name, *arguments, **variables):
        variables = {"KERAS_HOME": str(home), **variables}
        worker.start(name, REPO, *arguments, **variables)
        return worker.result()

    return call


@pytest.fixture
def from_hub(call):
    def from_hub(names=WEIGHTS, **variables):
        return call("fetch", names, **variables)

    return from_hub


def content(result):
    path, message = result
    assert not message, result
    assert path.startswith(str(downloads.folder()))
    return pathlib.Path(path).read_bytes()


def test_preferred_file_of_a_repository_is_used(server, from_hub):
    server.push("model.safetensors", b"first")
    server.push("tiny.weights.h5", b"second")
    assert content(from_hub()) == b"first"
    assert content(from_hub(names=WEIGHTS[::-1])) == b"second"
    assert pathlib.Path(from_hub()[0]).name == "model.safetensors"
    # Files in the cache are used if the hub fails for the first name.
    for path in downloads.folder().rglob("model.safetensors"):
        path.unlink()
    server.refuse("model.safetensors", 403, "GatedRepo")
    assert content(from_hub()) == b"second"


def test_next_file_is_used_if_the_first_is_missing(server, from_hub):
    for name in WEIGHTS:
        server.refuse(name, 404, "EntryNotFound")
    error, message = from_hub()
    assert error == "DownloadError"
    assert f"'{REPO}' of the Hugging Face hub does not contain" in message
    assert "'model.safetensors' or 'tiny.weights.h5'. Use" in message
    assert by_hand(f"{REPO}/model.safetensors") in message
    server.push("tiny.weights.h5", b"second")
    assert content(from_hub()) == b"second"


REFUSALS = [
    (401, "RepoNotFound", "Repository Not Found"),
    (404, "RevisionNotFound", "Revision Not Found"),
]


@pytest.mark.parametrize(("status", "code", "reason"), REFUSALS)
def test_unreadable_repository_is_reported(
    server, from_hub, status, code, reason
):
    server.refuse("model.safetensors", status, code)
    error, message = from_hub()
    assert error == "DownloadError"
    assert f"from the repository '{REPO}'" in message
    assert reason in message
    assert "`hf auth login`" in message
    assert by_hand(f"{REPO}/model.safetensors") in message


def test_offline_files_come_from_the_cache(server, from_hub):
    offline = {"KERAS_MIXER_OFFLINE": "1"}
    error, message = from_hub(**offline)
    assert error == "DownloadError"
    assert "KERAS_MIXER_OFFLINE or HF_HUB_OFFLINE is set" in message
    for name in WEIGHTS:
        assert f"'{downloads.folder() / REPO / name}'" in message
    assert server.requests == []
    server.push("tiny.weights.h5", b"second")
    assert content(from_hub(names=WEIGHTS[1:])) == b"second"
    server.requests.clear()
    assert content(from_hub(**offline)) == b"second"
    put(f"{REPO}/tiny.weights.h5", b"by hand")
    assert content(from_hub(**offline)) == b"by hand"
    assert content(from_hub()) == b"by hand"
    assert server.requests == []


def test_failed_download_from_hub_is_reported(server, from_hub):
    server.push("model.safetensors", b"text", status=500, head_status=200)
    error, message = from_hub()
    assert error == "DownloadError"
    assert "500" in message, message
    assert not [*downloads.folder().rglob("model.safetensors")]


def test_only_404_means_that_there_is_no_configuration(server, call):
    server.push("model.safetensors", BODY)
    path, _ = call("fetch", ["model.safetensors"])
    server.refuse("config.json", 403, "GatedRepo")
    error, message = call("read_config", path)
    assert error == "DownloadError"
    assert "Cannot fetch 'config.json' from the repository" in message
    assert "403" in message
    error, _ = call("read_config", path, KERAS_MIXER_OFFLINE="1")
    assert error == "DownloadError"
    server.refuse("config.json", 404, "EntryNotFound")
    config, _ = call("read_config", path)
    assert "scaling=None" in config
    # The cache keeps that there is none.
    assert call("read_config", path, KERAS_MIXER_OFFLINE="1")[0] == config
    server.refuse("config.json", 403, "GatedRepo")
    assert call("read_config", path)[0] == config
    server.push("config.json", TIMM)
    assert "scaling=((0.1, 0.1, 0.1)" in call("read_config", path)[0]


def test_only_404_of_a_mirror_means_that_there_is_none(site, monkeypatch):
    monkeypatch.setenv("KERAS_MIXER_WEIGHTS_URL", site.url)
    path = put(f"{REPO}/model.safetensors", BODY)
    assert hub.read_config(REPO, path).scaling is None
    for options, message in (
        ({"status": 500}, "answered 500"),
        ({"body": PAGE}, "it is not JSON"),
    ):
        site.publish(f"/{REPO}/config.json", **options)
        with pytest.raises(DownloadError, match=message):
            hub.read_config(REPO, path)
    site.publish(f"/{REPO}/config.json", body=TIMM)
    assert hub.read_config(REPO, path).scaling[0] == (0.1, 0.1, 0.1)
    monkeypatch.delenv("KERAS_MIXER_WEIGHTS_URL")
    config = put(f"{REPO}/config.json", PAGE)
    with pytest.raises(WeightsError, match="it is not JSON"):
        hub.read_config(REPO, path)
    config.unlink()  # the user put only the weights there
    assert hub.read_config(REPO, path).scaling is None


def test_mirror_replaces_the_hub(site, monkeypatch):
    monkeypatch.setenv("KERAS_MIXER_WEIGHTS_URL", site.url)
    site.publish(f"/{REPO}/tiny.npz")
    path = hub.fetch(REPO, ("model.safetensors", "tiny.npz"))
    assert path == downloads.folder() / REPO / "tiny.npz"
    with pytest.raises(DownloadError) as caught:
        hub.fetch("mlp-org/other", WEIGHTS)
    message = str(caught.value)
    assert f"none of {site.url}/mlp-org/other/model.safetensors, " in message
    assert (
        f"at '{downloads.folder() / 'mlp-org/other' / WEIGHTS[0]}'" in message
    )
    site.publish("/mlp-org/other/model.safetensors", status=500)
    with pytest.raises(DownloadError, match="answered 500"):
        hub.fetch("mlp-org/other", WEIGHTS)
    # No weights are left without their configuration.
    site.publish(f"/{REPO}/config.json", status=500)
    path.unlink()
    with pytest.raises(DownloadError, match="answered 500"):
        loading.open_weights(loading.HubFile(REPO, ("tiny.npz",)))
    assert not path.exists()


@pytest.mark.parametrize(
    "repo",
    [
        *("tiny", "a/b/c", "/tiny", "mlp/", "mlp/..", "mlp/.hidden"),
        *("mlp/a--b", "mlp/a..b", "mlp/a.git", "mlp/ä", "mlp/a b", ""),
    ],
)
def test_invalid_repository_name_is_refused(repo):
    with pytest.raises(ValueError, match="named as 'organization/name'"):
        hub.fetch(repo, WEIGHTS)


def test_file_in_cache_does_not_need_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install keras_mixer\[hub\]"):
        hub.fetch(REPO, WEIGHTS)
    path = put(f"{REPO}/tiny.weights.h5", b"by hand")
    assert hub.fetch(REPO, WEIGHTS) == path
