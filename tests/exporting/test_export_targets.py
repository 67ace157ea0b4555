"""What `export` replaces, refuses and leaves; the command."""

import json
import sys

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import cli
from keras_mixer.exporting import exporter
from keras_mixer.exporting import formats
from keras_mixer.exporting.running import load
from keras_mixer.optional import MissingLibraryError
from support.exports import BACKEND
from support.exports import FORMATS
from support.exports import SUFFIXES
from support.exports import assert_same
from support.exports import on_tensorflow
from support.exports import on_torch
from support.exports import where_one_is_written
from support.helpers import CLASSES
from support.helpers import IMAGE
from support.helpers import matches
from support.helpers import python
from support.helpers import random_model

# Of the converters.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def photos():
    return np.random.default_rng(3).uniform(0, 255, (20, *IMAGE))


@pytest.mark.backends
@where_one_is_written
def test_file_that_differs_from_the_model_is_not_left(tmp_path, monkeypatch):
    path = tmp_path / f"model{SUFFIXES[FORMATS[BACKEND]]}"
    monkeypatch.setitem(exporter.BOUNDS, "int8", 1e-9)
    message = (
        "The exported file of 'mixer' does not compute what the model "
        "computes: the output 'predictions' differs by ..., and at most 1e-09 "
        f"is allowed. Received: format='{FORMATS[BACKEND]}', dtype='int8'"
    )
    with pytest.raises(ValueError, match=matches(message)):
        keras_mixer.export(random_model("mixer"), path, dtype="int8")
    assert list(tmp_path.iterdir()) == []
    keras_mixer.export(random_model("mixer"), path, dtype="int8", check=False)
    assert path.exists()


@pytest.mark.backends
@where_one_is_written
def test_existing_file_is_replaced_only_if_it_is_allowed(tmp_path):
    path = tmp_path / f"model{SUFFIXES[FORMATS[BACKEND]]}"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="or `overwrite=True`"):
        keras_mixer.export(random_model("mixer"), path)
    assert path.read_text("utf-8") == "precious"
    keras_mixer.export(random_model("mixer"), path, overwrite=True)
    assert path.stat().st_size > 1000


def test_missing_backend_is_reported(tmp_path, monkeypatch):
    model = random_model("mixer")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingLibraryError, match=r"mixer\[tensorflow\]"):
        keras_mixer.export(model, tmp_path / "model")


@pytest.mark.backends
@on_tensorflow
def test_second_file_of_openvino_is_not_replaced_either(tmp_path):
    (tmp_path / "model.bin").write_text("precious")
    with pytest.raises(FileExistsError, match=r"model\.bin' exists"):
        keras_mixer.export(random_model("mixer"), tmp_path / "model.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]
    (tmp_path / "model.bin").unlink()
    for _ in range(2):
        keras_mixer.export(
            random_model("mixer"), tmp_path / "model.xml", overwrite=True
        )


@pytest.mark.backends
@on_tensorflow
def test_saved_model_replaces_a_saved_model(photos, tmp_path):
    """The ending of the path does not decide what is written."""
    model, path = random_model("mixer"), tmp_path / "model.xml"
    for _ in range(2):
        keras_mixer.export(model, path, "saved_model", overwrite=True)
    assert_same(model, path, "saved_model", photos, 1e-5)
    assert list(tmp_path.iterdir()) == [path]


def folder_of_photos(path):
    path.mkdir()
    (path / "1.jpg").write_text("precious")


def saved_model_with_notes(path):
    path.mkdir()
    (path / "saved_model.pb").write_text("old")
    (path / "notes.txt").write_text("precious")


def saved_model_with_an_asset(path):
    (path / "assets").mkdir(parents=True)
    (path / "saved_model.pb").write_text("old")
    (path / "assets" / "words.txt").write_text("precious")


def weights_of_another_program(path):
    path.write_text("notes")
    path.with_suffix(".bin").write_text("precious")


def link_to_a_file(path):
    path.with_name("real").write_text("precious")
    path.symlink_to(path.with_name("real"))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("photos", folder_of_photos),
        (".", lambda path: (path / "1.jpg").write_text("precious")),
        ("served", saved_model_with_notes),
        ("served", saved_model_with_an_asset),
        ("pytorch_model.xml", weights_of_another_program),
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
        keras_mixer.export(random_model("mixer"), name, overwrite=True)
    assert contents(tmp_path) == before


def contents(folder):
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.backends
@where_one_is_written
def test_batch_of_the_model_is_the_batch_of_the_file(photos, tmp_path):
    fixed = keras.Input(batch_shape=(2, *IMAGE), name="image")
    model = random_model("resmlp", input_tensor=fixed)
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
        keras_mixer.export(random_model("mixer"), tmp_path / path, **options)
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
    options = {"model": random_model("mixer"), **options}
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
    assert_same(model, path, "torch", photos, 1e-4)
    files = {"image_options.json": ""}
    torch.export.load(path, extra_files=files)
    assert json.loads(files["image_options.json"])["crop_ratio"] == 1
    with pytest.raises(SystemExit, match=r"(?s)exists.*--overwrite"):
        cli.main(["export", "MixerNano", str(path)])
    with pytest.raises(SystemExit, match="`--calibrate` is for `--dtype int8`"):
        cli.main(["export", "nothing", "a.onnx", "--calibrate", "photos"])


@pytest.mark.backends
@on_tensorflow
def test_command_quantizes_with_photos(tmp_path):
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
