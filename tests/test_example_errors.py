"""The scripts in `examples/`: what they say to bad calls."""

import json
import re
import zipfile

import pytest

from support.helpers import ROOT
from support.helpers import python

# Each row: the call, in a folder with the files of `results`, and words of
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


# Runs the calls one after another: importing Keras takes longer than a call.
CODE = """
import contextlib, io, json, os, runpy, sys
examples, folder, calls = sys.argv[1:]
os.chdir(folder)
sys.path.insert(0, examples)
results = []
for script, *arguments in map(str.split, json.loads(calls)):
    sys.argv = [os.path.join(examples, script), *arguments]
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()):
        with contextlib.redirect_stderr(errors):
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
                code = 0
            except SystemExit as error:
                code = error.code
    results.append((code, errors.getvalue()))
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The exit code and the errors of each call, in a folder of bad files."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "broken.png").write_text("not an image")
    with zipfile.ZipFile(folder / "zip.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    before = sorted(folder.rglob("*"))
    calls = [call for call, _ in BAD_CALLS.values()]
    printed = python(CODE, ROOT / "examples", folder, json.dumps(calls))
    assert sorted(folder.rglob("*")) == before
    return dict(zip(calls, json.loads(printed), strict=True))


@pytest.mark.parametrize(
    ("call", "message"), BAD_CALLS.values(), ids=BAD_CALLS.keys()
)
def test_bad_calls_say_what_is_wrong(call, message, results):
    code, errors = results[call]
    assert code == 2
    assert re.search(message, errors)
