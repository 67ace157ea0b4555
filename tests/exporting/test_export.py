"""Exported files compute what the model computes, in their own runtimes."""

import json
import pathlib
import sys

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import cli
from keras_mixer.exporting import exporter
from keras_mixer.exporting import formats
from keras_mixer.exporting.running import load
from support.helpers import CLASSES
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import ROOT
from support.helpers import family_model
from support.helpers import matches
from support.helpers import python
from support.helpers import randomise

BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="TensorFlow writes these formats"
)
on_torch = pytest.mark.skipif(
    BACKEND != "torch", reason="PyTorch writes this format"
)
# Of the converters.
pytestmark = pytest.mark.filterwarnings("ignore")

SUFFIXES = {
    "saved_model": "",
    "onnx": ".onnx",
    "openvino": ".xml",
    "litert": ".tflite",
    "torch": ".pt2",
}
# For each backend that writes files, one of its formats.
FORMATS = {"tensorflow": "onnx", "torch": "torch"}
NAMES = ["a cat", "b <c>", "ü", "d, e", 'f "g"']
OPTIONS = {"crop_ratio": 0.9, "interpolation": "bicubic"}
# What is stored in a file besides the model.
STORED = {"class_names": NAMES, "image_options": OPTIONS}


@pytest.fixture
def photos():
    return np.random.default_rng(3).uniform(0, 255, (20, *IMAGE))


def model_of(family, **options):
    model = family_model(family, **options)
    randomise(model)
    return model


def call(model, images):
    images = keras.ops.convert_to_tensor(images, "float32")
    return keras.ops.convert_to_numpy(model(images, training=False))


def check(model, path, format, photos, tolerance, name="predictions"):
    """Compares a file with its model on images that `export` has not seen."""
    for batch in (photos[:1], photos[-3:]):
        (received,) = load(format, path)(batch.astype("float32")).items()
        assert received[0] == name
        expected = call(model, batch)
        assert received[1].shape == expected.shape
        np.testing.assert_allclose(
            received[1], expected, atol=tolerance * np.abs(expected).max()
        )


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
    model = model_of(family)
    path = tmp_path / f"model{SUFFIXES[format]}"
    keras_mixer.export(model, path, dtype=dtype)
    check(model, path, format, photos, tolerance)


@pytest.mark.backends
@on_tensorflow
@pytest.mark.parametrize("format", ["onnx", "openvino", "litert"])
def test_activations_are_quantised_with_photos(format, photos, tmp_path):
    model = model_of("mixer")
    path = tmp_path / f"model{SUFFIXES[format]}"
    keras_mixer.export(model, path, dtype="int8", calibration=photos)
    check(model, path, format, photos, 0.15)


@pytest.mark.backends
@pytest.mark.skipif(BACKEND not in FORMATS, reason="writes no format itself")
def test_model_that_returns_zeros(photos, tmp_path):
    """The head is zero before training. OpenVINO removes its bias."""
    model = family_model("mixer", classifier_activation=None)
    formats = ["torch"] if BACKEND == "torch" else ["onnx", "openvino"]
    for format in formats:
        path = tmp_path / f"model{SUFFIXES[format]}"
        keras_mixer.export(model, path)
        check(model, path, format, photos, 1)


@pytest.mark.backends
@on_torch
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("int8", 0.1)]
)
def test_torch_writes_the_format(family, dtype, tolerance, photos, tmp_path):
    model = model_of(family)
    keras_mixer.export(model, tmp_path / "model.pt2", dtype=dtype)
    check(model, tmp_path / "model.pt2", "torch", photos, tolerance)


@pytest.mark.backends
@pytest.mark.skipif(BACKEND == "tensorflow", reason="writes it here")
def test_another_process_writes_the_format(photos, tmp_path, caplog):
    """The target has the name of a file that is written for the process."""
    model, path = model_of("mixer"), tmp_path / "model.keras"
    with caplog.at_level("INFO", "keras_mixer"):
        keras_mixer.export(model, path, "saved_model")
    assert "with the backend tensorflow: starting a process" in caplog.text
    check(model, path, "saved_model", photos, 1e-5)
    assert list(tmp_path.iterdir()) == [path]


def nested():
    backbone = model_of("resmlp", include_top=False, pooling="avg")
    return keras.Sequential(
        [
            keras.Input(IMAGE),
            keras.layers.RandomFlip("horizontal"),
            backbone,
            keras.layers.Dense(4, activation="softmax", name="mine"),
        ]
    )


def with_lora():
    model = model_of("mixer")
    dense = model.get_layer("block_0").channel_mixing.dense_1
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    return model


MODELS = {
    "nested": (nested, "mine"),
    "fused": (lambda: keras_mixer.fuse(model_of("mixer")), "predictions"),
    "resized": (
        lambda: keras_mixer.resize(model_of("mixer"), (16, 24, 3)),
        "predictions",
    ),
    "lora": (with_lora, "predictions"),
    "features": (lambda: model_of("mixer", include_top=False), "norm"),
    "exact gelu": (lambda: model_of("mixer", activation="gelu"), "predictions"),
}


@pytest.mark.backends
@pytest.mark.skipif(BACKEND not in FORMATS, reason="writes no format itself")
@pytest.mark.parametrize("name", MODELS)
def test_models_of_all_kinds_are_exported(name, tmp_path):
    make, output = MODELS[name]
    model, format = make(), FORMATS[BACKEND]
    path = tmp_path / f"model{SUFFIXES[format]}"
    keras_mixer.export(model, path)
    shape = model.inputs[0].shape[1:]
    photos = np.random.default_rng(4).uniform(0, 255, (5, *shape))
    check(model, path, format, photos, 1e-4, output)


@pytest.mark.backends
@pytest.mark.skipif(BACKEND not in FORMATS, reason="writes no format itself")
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_models_that_are_quantised_already(mode, photos, tmp_path):
    model = model_of("mixer")
    model.quantize(mode)
    format = FORMATS[BACKEND]
    path = tmp_path / f"model{SUFFIXES[format]}"
    keras_mixer.export(model, path)
    check(model, path, format, photos, 0.02)


def test_litert_has_no_int8_of_keras(tmp_path):
    model = model_of("mixer")
    model.quantize("int8")
    with pytest.raises(ValueError, match="has no operation for the int8"):
        keras_mixer.export(model, tmp_path / "model.tflite")


@pytest.mark.backends
@on_tensorflow
def test_several_heads_are_named_outputs(photos, tmp_path):
    model = keras_mixer.new_head(model_of("mixer"), {"color": 2, "shape": 3})
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
    model = model_of("resmlp")
    for format in ("saved_model", "onnx", "openvino", "litert"):
        path = tmp_path / f"model{SUFFIXES[format]}"
        keras_mixer.export(model, path, input_dtype="uint8")
        received = load(format, path)(photos.astype("uint8"))["predictions"]
        expected = call(model, photos.astype("uint8"))
        np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.backends
@on_tensorflow
def test_names_of_classes_and_image_options_are_in_the_file(tmp_path):
    import onnx
    import openvino
    from tensorflow.lite.tools import flatbuffer_utils

    model = model_of("mixer")
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

    keras_mixer.export(model_of("mixer"), tmp_path / "model.pt2", **STORED)
    files = {f"{name}.json": "" for name in STORED}
    torch.export.load(tmp_path / "model.pt2", extra_files=files)
    texts = {name.removesuffix(".json"): text for name, text in files.items()}
    assert parsed(texts) == STORED


@pytest.mark.backends
@pytest.mark.skipif(BACKEND not in FORMATS, reason="writes no format itself")
def test_files_contain_no_path_of_this_machine(tmp_path):
    model = model_of("mixer")
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


@pytest.mark.backends
@pytest.mark.skipif(BACKEND not in FORMATS, reason="writes no format itself")
def test_file_that_differs_from_the_model_is_not_left(tmp_path, monkeypatch):
    path = tmp_path / f"model{SUFFIXES[FORMATS[BACKEND]]}"
    monkeypatch.setitem(exporter.BOUNDS, "int8", 1e-9)
    message = (
        "The exported file of 'mixer' does not compute what the model "
        "computes: the output 'predictions' differs by ..., and at most 1e-09 "
        f"is allowed. Received: format='{FORMATS[BACKEND]}', dtype='int8'"
    )
    with pytest.raises(ValueError, match=matches(message)):
        keras_mixer.export(model_of("mixer"), path, dtype="int8")
    assert list(tmp_path.iterdir()) == []
    keras_mixer.export(model_of("mixer"), path, dtype="int8", check=False)
    assert path.exists()


@pytest.mark.backends
@pytest.mark.skipif(BACKEND not in FORMATS, reason="writes no format itself")
def test_existing_file_is_replaced_only_if_it_is_allowed(tmp_path):
    path = tmp_path / f"model{SUFFIXES[FORMATS[BACKEND]]}"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="or `overwrite=True`"):
        keras_mixer.export(model_of("mixer"), path)
    assert path.read_text("utf-8") == "precious"
    keras_mixer.export(model_of("mixer"), path, overwrite=True)
    assert path.stat().st_size > 1000


@pytest.mark.backends
@on_tensorflow
def test_second_file_of_openvino_is_not_replaced_either(tmp_path):
    (tmp_path / "model.bin").write_text("precious")
    with pytest.raises(FileExistsError, match=r"model\.bin' exists"):
        keras_mixer.export(model_of("mixer"), tmp_path / "model.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


@pytest.mark.backends
@on_tensorflow
def test_saved_model_replaces_a_saved_model(photos, tmp_path):
    """The ending of the path does not decide what is written."""
    model, path = model_of("mixer"), tmp_path / "model.xml"
    for _ in range(2):
        keras_mixer.export(model, path, "saved_model", overwrite=True)
    check(model, path, "saved_model", photos, 1e-5)
    assert list(tmp_path.iterdir()) == [path]


def folder_of_photos(path):
    path.mkdir()
    (path / "1.jpg").write_text("precious")


def saved_model_with_notes(path):
    path.mkdir()
    (path / "saved_model.pb").write_text("old")
    (path / "notes.txt").write_text("precious")


def link_to_a_file(path):
    path.with_name("real").write_text("precious")
    path.symlink_to(path.with_name("real"))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("photos", folder_of_photos),
        (".", lambda path: (path / "1.jpg").write_text("precious")),
        ("served", saved_model_with_notes),
        ("notes", lambda path: path.write_text("precious")),
        ("model.pt2", folder_of_photos),
        ("model.pt2", link_to_a_file),
    ],
)
def test_what_no_export_wrote_is_not_replaced(
    name, make, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="so it is not replaced"):
        keras_mixer.export(model_of("mixer"), name, overwrite=True)
    assert contents(tmp_path) == before


def contents(folder):
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.backends
@pytest.mark.skipif(BACKEND not in FORMATS, reason="writes no format itself")
def test_batch_of_the_model_is_the_batch_of_the_file(photos, tmp_path):
    fixed = keras.Input(batch_shape=(2, *IMAGE), name="image")
    model = model_of("resmlp", input_tensor=fixed)
    for format, suffix in SUFFIXES.items():
        if (format == "torch") != (BACKEND == "torch"):
            continue
        path = tmp_path / f"model{suffix}"
        int8 = {"dtype": "int8", "calibration": photos}
        options = int8 if format in ("onnx", "litert") else {}
        keras_mixer.export(model, path, **options)
        run = load(format, path)
        received = run(photos[:2].astype("float32"))["predictions"]
        assert received.shape == (2, CLASSES)
        with pytest.raises(Exception, match=r"(?i)shape|dimension|batch|size"):
            run(photos[:3].astype("float32"))


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("a.onnx", {"dtype": "float16"}),
        ("a.tflite", {}),
        ("a.xml", {"dtype": "int8", "calibration": np.zeros((2, *IMAGE))}),
    ],
)
def test_file_of_more_than_two_gigabytes_is_refused_at_once(
    path, options, tmp_path, monkeypatch
):
    monkeypatch.setattr(formats, "MAX_BYTES", 2000)  # the model has 5 kB
    with pytest.raises(ValueError, match="cannot be larger than 2 GB"):
        keras_mixer.export(model_of("mixer"), tmp_path / path, **options)
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, sys
import keras_mixer
from keras_mixer.exporting import converting

model = keras_mixer.MixerNano(weights="cifar10")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    keras_mixer.export(model, sys.argv[1])
except Exception as error:
    print(type(error).__name__)
"""


def test_full_disk_leaves_nothing(tmp_path):
    assert "Error" in python(FULL, tmp_path / "model.pt2", backend="torch")
    assert list(tmp_path.iterdir()) == []


INT8 = {"dtype": "int8"}
WRONG_SIZE = {**INT8, "calibration": np.zeros((4, 8, 8, 3))}
WRONG_PIXELS = {
    **INT8,
    "input_dtype": "uint8",
    "calibration": np.full((4, *IMAGE), 256.0),
}
NO_IMAGE = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
ERRORS = [
    ("a.bin", {}, "The suffix of `path` must be one of ["),
    ("a.onnx", {"format": "tflite"}, "`format` must be one of"),
    ("a.onnx", {"format": "litert"}, "A file of the format 'litert' must end"),
    ("a", {"dtype": "float16"}, "`dtype` must be one of ['float32', 'int8']"),
    ("a.pt2", {"dtype": "int4"}, "`dtype` must be one of"),
    ("a.pt2", {"input_dtype": "int8"}, "`input_dtype` must be 'float32' or"),
    ("a.xml", INT8, "The format 'openvino' needs images to quantize a model"),
    ("a.onnx", WRONG_SIZE, "`calibration` must be an array of at least 1 im"),
    ("a.onnx", WRONG_PIXELS, "`calibration` must have pixels in [0, 255]"),
    ("a.onnx", {"calibration": np.zeros((4, *IMAGE))}, "`calibration` is not"),
    ("a.pt2", WRONG_SIZE, "`calibration` is not used by the format 'torch'"),
    ("a.pt2", {"image_options": {"crop": 1}}, "`image_options` must be a dict"),
    ("a.pt2", {"image_options": {"crop_ratio": 2}}, "`crop_ratio` must be in"),
    (
        "a.pt2",
        {"image_options": {"interpolation": "a"}},
        "`interpolation` must",
    ),
    ("a.pt2", {"class_names": ["a", "b"]}, "`class_names` must have one name"),
    ("a.pt2", {"class_names": "abcde"}, "`class_names` must be a list of"),
    ("a.pt2", {"model": "a"}, "`model` must be a Keras model"),
    ("a.pt2", {"model": NO_IMAGE}, "`model` must have one image of a fixed"),
    ("no/a.pt2", {}, "The folder '"),
    ("gs://bucket/served", {}, "`path` must be a path on this machine"),
    ("s3://bucket/a.pt2", {}, "`path` must be a path on this machine"),
]


@pytest.mark.parametrize(("name", "options", "message"), ERRORS)
def test_export_raises_and_writes_nothing(
    name, options, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    options = {"model": model_of("mixer"), **options}
    with pytest.raises((TypeError, ValueError, OSError)) as caught:
        keras_mixer.export(path=name, **options)
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.backends
@on_torch
def test_command_exports_a_model(tmp_path, capsys):
    import torch

    path = tmp_path / "nano.pt2"
    cli.main(["export", "MixerNano", str(path), "--fuse"])
    assert capsys.readouterr().out == f"See '{path}'.\n"
    model = keras_mixer.MixerNano(weights="cifar10")
    photos = np.random.default_rng(5).uniform(0, 255, (5, 32, 32, 3))
    check(model, path, "torch", photos, 1e-4)
    files = {"image_options.json": ""}
    torch.export.load(path, extra_files=files)
    assert json.loads(files["image_options.json"])["crop_ratio"] == 1
    with pytest.raises(SystemExit, match=r"exists\. Use another path"):
        cli.main(["export", "MixerNano", str(path)])


@pytest.mark.backends
@on_tensorflow
def test_command_quantises_with_photos(tmp_path):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        Image.effect_noise((40 + i, 30), 90).save(folder / f"{i}.png")
    path = tmp_path / "nano.onnx"
    cli.main(
        [
            *("export", "MixerNano", str(path), "--dtype", "int8"),
            *("--calibrate", str(folder)),
        ]
    )
    assert path.stat().st_size < 1_100_000  # 2.6 MB in float32
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SystemExit, match="must be a folder of photos"):
        cli.main(
            [
                *("export", "MixerNano", str(tmp_path / "b.onnx")),
                *("--dtype", "int8", "--calibrate", str(empty)),
            ]
        )
