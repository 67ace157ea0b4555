"""The commands of README, one after another, on a folder of photos."""

import re
import shlex
import shutil

import keras
import pytest

from keras_mixer import cli
from support.helpers import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")


def test_commands_of_readme_run_in_their_order(photos, tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"^keras_mixer (.+)$", text, re.MULTILINE)
    assert [line.split()[0] for line in commands] == [
        "finetune",
        "finetune",
        "evaluate",
        "predict",
        "look",
        "export",
    ]
    shutil.copytree(photos, tmp_path / "photos")
    photo = next((photos / "test" / "digit 4").iterdir())
    shutil.copy(photo, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for line in commands:
        # Smaller images, of which the second are twice as large too.
        line = line.replace("-size 64", "-size 16").replace(
            "-size 128", "-size 32"
        )
        arguments = shlex.split(line)
        if arguments[0] == "finetune":
            arguments += ["--epochs", "1", "--quiet"]
        cli.main(arguments)
    model = keras.saving.load_model(tmp_path / "runs/photos/model.keras")
    assert model.input_shape == (None, 32, 32, 3)
    assert (tmp_path / "runs/photos/evaluation/confusion.csv").exists()
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "digit 4" in page
    assert "data:image/png" in page
    assert (tmp_path / "photos.onnx").stat().st_size > 1_000_000
