"""`examples/serve.py`: real requests to real processes on loopback."""

import contextlib
import importlib
import json
import pathlib
import re
import signal
import socket
import time

import httpx
import numpy as np
import pytest
from PIL import Image

from keras_mixer.cli import models as cli_models
from keras_mixer.cli import predictions
from support.helpers import ROOT
from support.helpers import python
from support.helpers import run_example
from support.serving import CLIENTS
from support.serving import Service
from support.serving import ask_together
from support.serving import content
from support.serving import noise
from support.serving import photos_of_all_kinds
from support.serving import probabilities
from support.serving import rotated
from support.serving import write_onnx

MAX_BYTES = 300_000
MAX_PIXELS = 1_000_000

# All models of these tests, in one process with TensorFlow.
EXPORT = """
import sys
import warnings
warnings.simplefilter("ignore")
import keras_mixer
from keras_mixer.labels import class_names
model = keras_mixer.MixerNano(weights="cifar10")
options = {
    "class_names": [name for _, name in class_names(10)],
    "image_options": {"crop_ratio": 1.0, "interpolation": "bilinear"},
    "check": False,
}
folder = sys.argv[1]
fused = keras_mixer.fuse(model)
keras_mixer.export(fused, folder + "/nano.onnx", **options)
keras_mixer.export(fused, folder + "/nano", input_dtype="uint8", **options)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    python(EXPORT, folder, backend="tensorflow")
    return folder


@pytest.fixture(scope="module")
def photos():
    """Files of all kinds, as `{name: bytes}`."""
    return photos_of_all_kinds()


@pytest.fixture(scope="module")
def expected(photos, tmp_path_factory):
    """What the command `predict` says, as `{file: {class: probability}}`."""
    folder = tmp_path_factory.mktemp("photos")
    for name, data in photos.items():
        (folder / name).write_bytes(data)
    loaded = cli_models.load("MixerNano")
    files = list(predictions.photos_in([str(folder)]))
    answers = {
        pathlib.Path(path).name: dict(
            zip(loaded.class_names, map(float, scores), strict=True)
        )
        for path, scores in predictions.results(loaded, files, batch_size=32)
    }
    assert answers.keys() == photos.keys()
    # No two photos have the same answer, and there are several best classes.
    values = np.array([list(answer.values()) for answer in answers.values()])
    differences = np.abs(values[:, None] - values[None]).max(-1)
    assert (differences + np.eye(len(values))).min() > 0.001
    assert len(set(values.argmax(-1))) > 3
    return answers


@pytest.fixture(scope="module")
def service(models):
    options = ("--max-bytes", str(MAX_BYTES), "--max-pixels", str(MAX_PIXELS))
    options += ("--max-wait-ms", "20")  # also on a busy machine
    with Service(models / "nano.onnx", *options) as running:
        yield running
        running.health()
        assert running.stop(signal.SIGINT) == 0


def check_all(received, expected):
    assert received.keys() == expected.keys()
    for name, answer in received.items():
        assert answer == pytest.approx(expected[name], abs=1e-4), name


def test_service_answers_like_the_command_predict(service, photos, expected):
    received = {
        name: probabilities(service.post(data, params={"top": 10}))
        for name, data in photos.items()
        if not name[0].isdecimal() or name == "16 bits.png"
    }
    assert len(received) == 5
    check_all(received, {name: expected[name] for name in received})


def test_photo_may_be_the_body_of_the_request(service, photos, expected):
    answer = service.client.post("/classify", content=photos["rotated.jpg"])
    received = probabilities(answer)
    assert len(received) == 5
    everything = expected["rotated.jpg"]
    best = sorted(everything, key=everything.get, reverse=True)[:5]
    assert list(received) == best


def test_concurrent_clients_get_their_own_answers_from_batches(
    service, photos, expected
):
    before = service.health()
    names = list(photos)[-CLIENTS:]
    received = ask_together(service, {name: photos[name] for name in names})
    check_all(received, {name: expected[name] for name in names})
    after = service.health()
    assert after["photos"] - before["photos"] == CLIENTS
    assert after["batches"] - before["batches"] < CLIENTS


def bomb(kind="png", side=1001):
    return content(Image.new("L", (side, 1000)), kind)


def huge_bomb():
    """A WebP file of 16383 x 16383 pixels would need 1 GB of memory."""
    # A lossless file with one color: its header says the size.
    data = bytearray(content(Image.new("RGB", (1, 1)), "webp", lossless=True))
    start = data.index(b"VP8L") + 9
    data[start : start + 4] = (16382 | 16382 << 14).to_bytes(4, "little")
    return bytes(data)


HOSTILE = {
    "bomb": (bomb, 413, "more than 1000000 pixels"),
    "twice the limit": (lambda: bomb(side=2001), 413, "1000000 pixels"),
    "huge bomb": (huge_bomb, 413, "more than 1000000 pixels"),
    "bomb in a GIF": (lambda: bomb("gif"), 413, "more than 1000000 pixels"),
    "truncated": (lambda: rotated()[:900], 400, "truncated"),
    "half a header": (lambda: rotated()[:20], 415, "Expected an image"),
    "text": (lambda: b"not an image", 415, "one of BMP, GIF, JPEG, PNG, WEBP"),
    "empty": (lambda: b"", 415, "Expected an image"),
    "TIFF": (lambda: content(noise(1), "tiff"), 415, "Expected an image"),
    "EPS": (lambda: content(noise(1), "eps"), 415, "Expected an image"),
    "too large": (lambda: bytes(MAX_BYTES), 413, "more than 300000 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_photos_are_refused(service, name):
    make, status, message = HOSTILE[name]
    answer = service.post(make())
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]
    service.health()


BAD_REQUESTS = [
    ("GET", "/classify", {}, 405, "Method Not Allowed"),
    ("POST", "/health", {}, 405, "Method Not Allowed"),
    ("GET", "/photos", {}, 404, "Not Found"),
    ("POST", "/classify?top=0", {}, 400, "`top` must be a positive integer"),
    ("POST", "/classify?top=a", {}, 400, "`top` must be a positive integer"),
    (
        "POST",
        "/classify",
        {"files": {"photo": (None, "a text")}},
        400,
        "The form has no file",
    ),
    (
        "POST",
        "/classify",
        {"headers": {"content-type": "multipart/form-data"}, "content": b"a"},
        400,
        "Missing boundary",
    ),
]


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "message"), BAD_REQUESTS
)
def test_bad_requests_get_errors_as_json(
    service, method, path, options, status, message
):
    answer = service.client.request(method, path, **options)
    assert answer.status_code == status
    assert message in answer.json()["error"]


@pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="reads /proc"
)
@pytest.mark.parametrize("kind", ["length", "chunks", "form in chunks"])
def test_100_megabytes_are_not_held(service, kind, photos):
    service.post(photos["0.png"])
    before = service.peak_memory()
    sent = 0

    def body():
        nonlocal sent
        if kind.startswith("form"):
            yield b'--x\r\nContent-Disposition: form-data; name="photo"; '
            yield b'filename="a.jpg"\r\n\r\n'
        while sent < 100_000_000:
            sent += 100_000
            yield bytes(100_000)

    headers = {
        "length": {"content-length": "100000000"},
        "form in chunks": {"content-type": "multipart/form-data; boundary=x"},
    }
    answer = service.client.post(
        "/classify", content=body(), headers=headers.get(kind)
    )
    assert answer.status_code == 413
    assert answer.json() == {
        "error": "The request has more than 300000 bytes, the limit."
    }
    assert service.peak_memory() - before < 20_000_000
    service.health()


def test_a_request_that_never_ends_is_dropped(service):
    sent = 0

    def body():
        nonlocal sent
        yield bytes(MAX_BYTES + 1)
        for _ in range(400):
            sent += 1
            time.sleep(0.05)
            yield bytes(10)

    # The service closes the connection while the client sends.
    with contextlib.suppress(httpx.TransportError):
        answer = service.client.post("/classify", content=body())
        assert answer.status_code == 413
    assert sent < 400
    service.health()


def test_page_has_a_form_and_asks_no_other_host(service):
    answer = service.client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert 'action="classify" method="post"' in answer.text
    assert not re.search(r"[\w:]//|url\(|src=|@import", answer.text)
    assert f"file.size > {MAX_BYTES}" in answer.text


def test_port_in_use_is_an_error(service, models):
    port = str(service.address[1])
    result = run_example("serve.py", models / "nano.onnx", "--port", port)
    assert result.returncode == 2
    assert "Address already in use" in result.stderr
    assert "Traceback" not in result.stderr


def write_folder(path):
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"junk")


NOT_SERVED = {
    "missing": (lambda path: None, "does not exist"),
    "junk": (lambda path: path.write_bytes(b"junk"), "not an exported class"),
    "folder": (write_folder, "is not an exported classifier"),
    "two outputs": (
        lambda path: write_onnx(path, 2),
        "one input and one output",
    ),
    "no probabilities": (
        write_onnx,
        r"a probability for each of its classes. Received: .* in \[128, 128\]",
    ),
    "other classes": (
        lambda path: write_onnx(path, names=["cat", "dog"]),
        r"Received: shape \(1, 3\) for 2 classes",
    ),
}


@pytest.mark.parametrize("name", NOT_SERVED)
def test_other_models_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    exported = importlib.import_module("exported")
    write, message = NOT_SERVED[name]
    path = tmp_path / "model"
    write(path)
    with pytest.raises((OSError, ValueError), match=message):
        exported.load_model(str(path))


def test_full_service_refuses_and_shutdown_waits_for_answers(models, photos):
    """One client sends slowly, and holds the only place."""
    data = photos["0.png"]
    with (
        Service(models / "nano.onnx", "--queue", "1") as service,
        socket.create_connection(service.address, timeout=60) as slow,
    ):
        head = (
            f"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}"
        )
        slow.sendall(f"{head}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert slow.recv(1000).startswith(b"HTTP/1.1 100")  # it has the place
        slow.sendall(data[:1000])
        refused = service.post(data)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "Too many requests" in refused.json()["error"]
        service.health()
        service.process.send_signal(signal.SIGTERM)
        slow.sendall(data[1000:])
        answer = b"".join(iter(lambda: slow.recv(10_000), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["classes"]) == 5
        assert service.process.wait(timeout=60) == 0


def test_saved_model_is_served(models, photos, expected):
    with Service(models / "nano", backend="tensorflow") as service:
        names = list(photos)[:12]
        received = ask_together(service, {name: photos[name] for name in names})
        check_all(received, {name: expected[name] for name in names})
        assert service.stop() == 0
