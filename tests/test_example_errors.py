"""The scripts in `examples/`: what they say to bad calls."""

import os
import re
import zipfile

import pytest
from conftest import run_example
from conftest import save_digits

pytestmark = pytest.mark.once

# Each row: the call, in a folder with the files of `bad_files`, and words of
# the message.
BAD_CALLS = {
    "missing folder": ("train.py --data missing", "No such file .*missing"),
    "one class": ("train.py --data one", r"two\s+classes at least.*\['cat'\]"),
    "broken image": ("train.py --data broken --epochs 1", "image is broken"),
    "unknown model": ("train.py --model Mixer", "invalid choice: 'Mixer'"),
    "indivisible": ("train.py --image-size 9", "multiples of the patch size"),
    "no epochs": ("train.py --epochs 0", "0 is less than 1"),
    "two sources": ("train.py --data one --dataset mnist", "not allowed with"),
    "lone data-dir": (
        "train.py --data one --data-dir one",
        "--data-dir is for --dataset",
    ),
    "no TFDS set": ("train.py --dataset nonesuch", "nonesuch not found"),
    "missing photo": (
        "classify.py missing.png --model MixerS32",
        "No such file .*missing.png",
    ),
    "not an image": (
        "classify.py broken.png --model MixerS32",
        "Expected an image file",
    ),
    "missing model": (
        "classify.py a.png --weights no.keras",
        "File not found.*no.keras",
    ),
    "broken model": (
        "classify.py a.png --weights zip.keras",
        "no model that classifies",
    ),
    "missing weights": (
        "classify.py a.png --weights no.weights.h5",
        "no.weights.h5.*not a file",
    ),
    "missing features": (
        "features.py --weights no.keras",
        "no.keras.*not a file",
    ),
}


@pytest.fixture
def bad_files(tmp_path, digits):
    """A folder in which no call of `BAD_CALLS` can succeed."""
    folder = tmp_path / "bad"
    images = digits[0][0][:6]
    for classes in ("one/cat", "broken/cat", "broken/dog"):
        save_digits(folder / classes, images)
    (folder / "broken" / "dog" / "0.png").write_text("not an image")
    (folder / "broken.png").write_text("not an image")
    with zipfile.ZipFile(folder / "zip.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    return folder


@pytest.mark.parametrize(
    ("call", "message"), BAD_CALLS.values(), ids=BAD_CALLS.keys()
)
def test_bad_calls_say_what_is_wrong(call, message, bad_files):
    result = run_example(*call.split(), cwd=bad_files)
    assert result.returncode == 2
    assert re.search(message, result.stderr)
    assert "Traceback" not in result.stderr
    assert not [path for path in bad_files.glob("runs/**/*") if path.is_file()]


@pytest.mark.parametrize(
    ("module", "option"),
    [("tensorflow", "--data"), ("tensorflow_datasets", "--dataset")],
)
def test_missing_packages_are_named(module, option, bad_files, tmp_path):
    # In front of the real one, and as absent.
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / f"{module}.py").write_text("raise ModuleNotFoundError(__name__)")
    path = os.pathsep.join([str(hiding), os.environ.get("PYTHONPATH", ".")])
    result = run_example(
        "train.py", option, "broken", cwd=bad_files, PYTHONPATH=path
    )
    assert result.returncode == 2
    assert re.search(f"{module}.*pip install keras_mixer", result.stderr)
    assert "Traceback" not in result.stderr
