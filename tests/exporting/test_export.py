"""Exported files compute what the model computes, in their own runtimes."""

import json
import pathlib
import sys

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.exporting.running import load
from support.exports import BACKEND
from support.exports import FORMATS
from support.exports import SUFFIXES
from support.exports import assert_same
from support.exports import on_tensorflow
from support.exports import on_torch
from support.exports import where_one_is_written
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import ROOT
from support.helpers import family_model
from support.helpers import outputs
from support.helpers import random_model
from support.helpers import randomise

# Of the converters.
pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = ["a cat", "b <c>", "ü", "d, e", 'f "g"']
OPTIONS = {"crop_ratio": 0.9, "interpolation": "bicubic"}
# What is stored in a file besides the model.
STORED = {"class_names": NAMES, "image_options": OPTIONS}


@pytest.fixture
def photos():
    return np.random.default_rng(3).uniform(0, 255, (20, *IMAGE))


@pytest.mark.backends
@on_tensorflow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("format", "dtype", "tolerance"),
    [
        ("saved_model", "float32", 1e-5),
        ("saved_model", "int8", 0.1),
        ("onnx", "float32", 1e-5),
        ("onnx", "float16", 1e-2),
        ("onnx", "int8", 0.1),
        ("openvino", "float32", 1e-5),
        ("openvino", "float16", 1e-2),
        ("litert", "float32", 1e-5),
        ("litert", "float16", 1e-2),
        ("litert", "int8", 0.1),
    ],
)
def test_tensorflow_writes_the_format(
    family, format, dtype, tolerance, photos, tmp_path
):
    model = random_model(family)
    path = tmp_path / f"model{SUFFIXES[format]}"
    keras_mixer.export(model, path, dtype=dtype)
    assert_same(model, path, format, photos, tolerance)


@pytest.mark.backends
@on_tensorflow
@pytest.mark.parametrize("format", ["onnx", "openvino", "litert"])
def test_activations_are_quantized_with_photos(format, photos, tmp_path):
    model = random_model("mixer")
    path = tmp_path / f"model{SUFFIXES[format]}"
    keras_mixer.export(model, path, dtype="int8", calibration=photos)
    assert_same(model, path, format, photos, 0.15)


@pytest.mark.backends
@on_tensorflow
def test_fused_resmlp_computes_in_integers_only(photos, tmp_path):
    """ResMLP has no statistics. Those of Mixer's norms are partly in float."""
    floats = {}
    for family in FAMILIES:
        path = tmp_path / f"{family}.tflite"
        model = keras_mixer.fuse(random_model(family))
        keras_mixer.export(model, path, dtype="int8", calibration=photos)
        floats[family] = float_operators(path)
    assert floats["resmlp"] == ["DEQUANTIZE"]  # of the output
    assert len(floats["mixer"]) > 5


def float_operators(path):
    """The names of the operators of a LiteRT file whose output is in float."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    (graph,) = model.subgraphs
    codes = vars(schema.BuiltinOperator)
    names = {codes[name]: name for name in codes if name.isupper()}
    return [
        names[model.operatorCodes[each.opcodeIndex].builtinCode]
        for each in graph.operators
        if graph.tensors[each.outputs[0]].type == schema.TensorType.FLOAT32
    ]


@pytest.mark.backends
@where_one_is_written
def test_model_that_returns_zeros(photos, tmp_path):
    """The head is zero before training. OpenVINO removes its bias."""
    model = family_model("mixer", classifier_activation=None)
    formats = ["torch"] if BACKEND == "torch" else ["onnx", "openvino"]
    for format in formats:
        path = tmp_path / f"model{SUFFIXES[format]}"
        keras_mixer.export(model, path)
        assert_same(model, path, format, photos, 1)


@pytest.mark.backends
@on_torch
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("int8", 0.1)]
)
def test_torch_writes_the_format(family, dtype, tolerance, photos, tmp_path):
    model = random_model(family)
    keras_mixer.export(model, tmp_path / "model.pt2", dtype=dtype)
    assert_same(model, tmp_path / "model.pt2", "torch", photos, tolerance)


@pytest.mark.backends
@pytest.mark.skipif(BACKEND == "tensorflow", reason="writes it here")
def test_another_process_writes_the_format(photos, tmp_path, caplog):
    """The target has the name of a file that is written for the process."""
    model, path = random_model("mixer"), tmp_path / "model.keras"
    with caplog.at_level("INFO", "keras_mixer"):
        keras_mixer.export(model, path, "saved_model")
    assert "with the backend tensorflow: starting a process" in caplog.text
    assert_same(model, path, "saved_model", photos, 1e-5)
    assert list(tmp_path.iterdir()) == [path]


def nested():
    backbone = random_model("resmlp", include_top=False, pooling="avg")
    return keras.Sequential(
        [
            keras.Input(IMAGE),
            keras.layers.RandomFlip("horizontal"),
            backbone,
            keras.layers.Dense(4, activation="softmax", name="mine"),
        ]
    )


def with_lora():
    model = random_model("mixer")
    dense = model.get_layer("block_0").channel_mixing.dense_1
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    return model


MODELS = {
    "nested": (nested, "mine"),
    "fused": (lambda: keras_mixer.fuse(random_model("mixer")), "predictions"),
    "resized": (
        lambda: keras_mixer.resize(random_model("mixer"), (16, 24, 3)),
        "predictions",
    ),
    "lora": (with_lora, "predictions"),
    "features": (lambda: random_model("mixer", include_top=False), "norm"),
    "exact gelu": (
        lambda: random_model("mixer", activation="gelu"),
        "predictions",
    ),
}


@pytest.mark.backends
@where_one_is_written
@pytest.mark.parametrize("name", MODELS)
def test_models_of_all_kinds_are_exported(name, tmp_path):
    make, output = MODELS[name]
    model, format = make(), FORMATS[BACKEND]
    path = tmp_path / f"model{SUFFIXES[format]}"
    keras_mixer.export(model, path)
    shape = model.inputs[0].shape[1:]
    photos = np.random.default_rng(4).uniform(0, 255, (5, *shape))
    assert_same(model, path, format, photos, 1e-4, output)


@pytest.mark.backends
@where_one_is_written
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_models_that_are_quantized_already(mode, photos, tmp_path):
    model = random_model("mixer")
    model.quantize(mode)
    format = FORMATS[BACKEND]
    path = tmp_path / f"model{SUFFIXES[format]}"
    keras_mixer.export(model, path)
    assert_same(model, path, format, photos, 0.02)


def test_litert_has_no_int8_of_keras(tmp_path):
    model = random_model("mixer")
    model.quantize("int8")
    with pytest.raises(ValueError, match="has no operation for the int8"):
        keras_mixer.export(model, tmp_path / "model.tflite")


@pytest.mark.backends
@on_tensorflow
def test_several_heads_are_named_outputs(photos, tmp_path):
    model = keras_mixer.new_head(
        random_model("mixer"), {"color": 2, "shape": 3}
    )
    randomise(model)
    keras_mixer.export(model, tmp_path / "model.onnx")
    received = load("onnx", tmp_path / "model.onnx")(photos.astype("float32"))
    expected = model(photos.astype("float32"), training=False)
    assert sorted(received) == ["color", "shape"]
    for name, value in received.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5)


@pytest.mark.backends
@on_tensorflow
def test_pixels_may_be_bytes(photos, tmp_path):
    model = random_model("resmlp")
    for format in ("saved_model", "onnx", "openvino", "litert"):
        path = tmp_path / f"model{SUFFIXES[format]}"
        keras_mixer.export(model, path, input_dtype="uint8")
        received = load(format, path)(photos.astype("uint8"))["predictions"]
        expected = outputs(model, photos.astype("uint8"))
        np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.backends
@on_tensorflow
def test_names_of_classes_and_image_options_are_in_the_file(tmp_path):
    import onnx
    import openvino
    from tensorflow.lite.tools import flatbuffer_utils

    model = random_model("mixer")
    paths = {
        format: tmp_path / f"model{suffix}"
        for format, suffix in SUFFIXES.items()
        if format != "torch"
    }
    for path in paths.values():
        keras_mixer.export(model, path, **STORED)
    extra = paths["saved_model"] / "assets.extra"
    texts = {path.stem: path.read_text("utf-8") for path in extra.iterdir()}
    assert parsed(texts) == STORED
    texts = {
        entry.key: entry.value
        for entry in onnx.load(paths["onnx"]).metadata_props
    }
    assert parsed(texts) == STORED
    loaded = openvino.Core().read_model(paths["openvino"])
    texts = {name: loaded.get_rt_info(name).astype(str) for name in STORED}
    assert parsed(texts) == STORED
    loaded = flatbuffer_utils.read_model(str(paths["litert"]))
    texts = {
        each.name.decode("utf-8"): bytes(loaded.buffers[each.buffer].data)
        for each in loaded.metadata
        if each.name.decode("utf-8") in STORED
    }
    assert parsed(texts) == STORED


def parsed(texts):
    return {name: json.loads(text) for name, text in texts.items()}


@pytest.mark.backends
@on_torch
def test_names_and_image_options_are_in_the_file_of_torch(tmp_path):
    import torch

    keras_mixer.export(random_model("mixer"), tmp_path / "model.pt2", **STORED)
    files = {f"{name}.json": "" for name in STORED}
    torch.export.load(tmp_path / "model.pt2", extra_files=files)
    texts = {name.removesuffix(".json"): text for name, text in files.items()}
    assert parsed(texts) == STORED


@pytest.mark.backends
@where_one_is_written
def test_files_contain_no_path_of_this_machine(tmp_path):
    model = random_model("mixer")
    for format, suffix in SUFFIXES.items():
        if (format == "torch") == (BACKEND == "torch"):
            keras_mixer.export(model, tmp_path / f"model{suffix}")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    places = [str(ROOT), sys.prefix, str(tmp_path), str(pathlib.Path.home())]
    for path in files:
        content = path.read_bytes()
        assert [
            place for place in places if place.encode("utf-8") in content
        ] == [], path
