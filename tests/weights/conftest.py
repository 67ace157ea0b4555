"""Good weights files of all formats, to be damaged."""

import io

import keras
import pytest
import torch
from safetensors.numpy import load
from safetensors.numpy import save

import keras_mixer
from support import helpers


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Returns `{suffix: bytes}` of good files with the same weights."""
    keras.utils.set_random_seed(7)
    folder = tmp_path_factory.mktemp("good")
    model = helpers.family_model("mixer")
    helpers.randomise(model)
    for suffix in (".npz", ".safetensors"):
        keras_mixer.export_weights(model, folder / f"good{suffix}")
    model.save_weights(folder / "good.weights.h5")
    model.save(folder / "good.keras")
    files = {
        path.name.removeprefix("good"): path.read_bytes()
        for path in folder.iterdir()
    }
    arrays = load(files[".safetensors"])
    files["_plain.safetensors"] = save(arrays)
    state = {name: torch.tensor(array) for name, array in arrays.items()}
    for suffix, is_zip in ((".pth", True), ("_legacy.pth", False)):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=is_zip)
        files[suffix] = file.getvalue()
    return files
