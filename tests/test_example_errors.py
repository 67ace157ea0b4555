"""The scripts in `examples/`: what they say to bad calls."""

import re
import zipfile

import pytest

from support.helpers import run_example

# Each row: the call, in a folder with the files of `bad_files`, and words of
# the message.
BAD_CALLS = {
    "no epochs": ("train.py --epochs 0", "0 is less than 1"),
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
    "broken exported model": (
        "serve.py broken.png",
        "'broken.png' is not an exported classifier",
    ),
    "missing features": (
        "features.py --weights no.keras",
        "no.keras.*not a file",
    ),
}


@pytest.fixture
def bad_files(tmp_path):
    """A folder in which no call of `BAD_CALLS` can succeed."""
    folder = tmp_path / "bad"
    folder.mkdir()
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
