"""Photos and exported files for `examples/serve.py`, and its process."""

import concurrent.futures
import functools
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import httpx
import numpy as np
import onnx
from PIL import Image

from support.helpers import ROOT

CLIENTS = 50


def noise(seed, width=60, height=40):
    """A colored photo with large and small shapes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), "uint8")
    size = (width, height)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def content(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rotated():
    """A camera's photo: the tag says how it is turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return content(noise(91, 90, 50), "jpeg", exif=exif, quality=95)


def photos_of_all_kinds():
    """Files as `{name: bytes}`; the last are `CLIENTS` PNG files."""
    several = {f"{seed}.png": content(noise(seed)) for seed in range(CLIENTS)}
    transparent = noise(92, 30, 70).convert("RGBA")
    transparent.putalpha(noise(93, 30, 70).convert("L"))
    return {
        "rotated.jpg": rotated(),
        "transparent.webp": content(transparent, "webp", lossless=True),
        "grey.gif": content(noise(94).convert("L"), "gif"),
        "16 bits.png": content(
            Image.fromarray(
                np.arange(1200, dtype="uint16").reshape(30, 40) * 50
            )
        ),
        "small.bmp": content(noise(95, 9, 7), "bmp"),
        **several,
    }


class Service:
    """A running service. Stops at the end of a `with` block."""

    def __init__(self, *arguments, backend="jax"):
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "examples" / "serve.py", *arguments]
            + ["--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KERAS_BACKEND": backend},
        )

    def __enter__(self):
        line = self.process.stdout.readline()  # empty if it has failed
        self.url = line.rpartition(" ")[2].strip()
        self.client = httpx.Client(base_url=self.url, timeout=60)
        return self

    def __exit__(self, *error):
        self.client.close()
        if self.process.poll() is None:
            self.stop()
        self.process.stdout.close()

    @property
    def address(self):
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def post(self, data, **options):
        """Posts the form of the page."""
        return self.client.post("/classify", files={"photo": data}, **options)

    def health(self):
        answer = self.client.get("/health")
        assert answer.status_code == 200
        return answer.json()

    def peak_memory(self):
        """Returns the most memory that the process has used, in bytes."""
        status = pathlib.Path("/proc", str(self.process.pid), "status")
        (line,) = (
            line
            for line in status.read_text().splitlines()
            if line.startswith("VmHWM")
        )
        return 1024 * int(line.split()[1])


def probabilities(answer):
    assert answer.status_code == 200, answer.text
    classes = answer.json()["classes"]
    values = [each["probability"] for each in classes]
    assert values == sorted(values, reverse=True)
    return {each["name"]: each["probability"] for each in classes}


def ask_together(service, photos):
    """Each client asks for its own photo, at the same moment."""
    barrier = threading.Barrier(len(photos))

    def ask(photo):
        with httpx.Client(base_url=service.url, timeout=60) as client:
            barrier.wait()
            answer = client.post("/classify?top=10", files={"photo": photo})
        return probabilities(answer)

    with concurrent.futures.ThreadPoolExecutor(len(photos)) as pool:
        return dict(zip(photos, pool.map(ask, photos.values()), strict=True))


def write_onnx(path, outputs=1, names=None):
    """Writes a model that returns the mean of each channel, per output."""
    info = functools.partial(
        onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT
    )
    results = [f"mean_{i}" for i in range(outputs)]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node(
                "ReduceMean", ["image"], [result], axes=[1, 2], keepdims=0
            )
            for result in results
        ],
        "means",
        [info("image", shape=["batch", 8, 12, 3])],
        [info(result, shape=["batch", 3]) for result in results],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8
    )
    if names is not None:
        onnx.helper.set_model_props(model, {"class_names": json.dumps(names)})
    onnx.save(model, path)
