"""Keras's backends that only predict: OpenVINO and NumPy."""

import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import keras_mixer
from support.helpers import GOLDEN
from support.helpers import ROOT

# OpenVINO computes in bfloat16 on processors that can.
TOLERANCE = {"numpy": 1e-5, "openvino": 5e-2}

SCRIPT = """
import sys
import numpy as np
sys.path.insert(0, "tests")
from models.test_inference_backends import outputs
np.savez(sys.argv[1], **outputs())
"""


def outputs():
    """What the backend computes, `{name: array}`."""
    rng = np.random.default_rng(0)
    results = {}
    for name in ("digits_mixer", "digits_resmlp"):
        model = keras.saving.load_model(GOLDEN / f"{name}.keras")
        digits = rng.uniform(0, 255, (3, *model.input_shape[1:]))
        fused = keras_mixer.fuse(model)
        larger = keras_mixer.resize(model, (16, 24, 1))
        results[name] = model.predict(digits, verbose=0)
        results[f"{name}, fused"] = fused.predict(digits, verbose=0)
        repeated = digits.repeat(2, axis=1).repeat(3, axis=2)
        results[f"{name}, resized"] = larger.predict(repeated, verbose=0)
    model = keras_mixer.MixerNano(weights="cifar10")
    images = rng.uniform(0, 255, (3, *model.input_shape[1:]))
    results["MixerNano"] = model.predict(images, verbose=0)
    grids = keras_mixer.features(model, ["block_3"])
    results["features"] = grids.predict(images, verbose=0)["block_3"]
    return results


def run(backend, *arguments):
    env = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env,
        check=False,
    )


@pytest.fixture(scope="module")
def expected():
    return outputs()


@pytest.mark.parametrize("backend", ["numpy", "openvino"])
def test_models_predict_the_same(backend, expected, tmp_path):
    file = tmp_path / "outputs.npz"
    result = run(backend, "-c", SCRIPT, file)
    assert result.returncode == 0, result.stderr[-2000:]
    received = np.load(file)
    assert set(received) == set(expected)
    for name, array in expected.items():
        error = np.abs(received[name] - array).max() / np.abs(array).max()
        assert error < TOLERANCE[backend], name


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes of CIFAR-10, with random photos."""
    rng = np.random.default_rng(0)
    for part, name in itertools.product(("train", "test"), ("cat", "ship")):
        folder = tmp_path / "photos" / part / name
        folder.mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (40, 50, 3), "uint8")
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("backend", ["numpy", "openvino"])
def test_commands_predict_and_evaluate(backend, photos):
    command = ("-m", "keras_mixer")
    photo = photos / "test" / "cat" / "0.png"
    result = run(backend, *command, "predict", photo)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count(str(photo)) == 3
    result = run(backend, *command, "evaluate", "--data", photos)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "images: 6\n" in result.stdout


def test_training_is_refused(photos, tmp_path):
    folder = tmp_path / "run"
    arguments = ["train", "--data", photos, "--output", folder]
    result = run("numpy", "-m", "keras_mixer", *arguments)
    assert result.returncode == 1
    assert "must be one of ['tensorflow', 'jax', 'torch']" in result.stderr
    assert not folder.exists()


def test_export_with_openvino_is_refused(tmp_path):
    file = tmp_path / "nano.onnx"
    result = run("openvino", "-m", "keras_mixer", "export", "MixerNano", file)
    assert result.returncode == 1
    assert "cannot be exported with the OpenVINO backend" in result.stderr
    assert not file.exists()
