"""Fixtures.

The backend comes from `KERAS_BACKEND`: one process, one backend.
"""

import support  # noqa: F401  # isort: skip  (it imports PyTorch first)

import gc

import keras
import numpy as np
import pytest

import keras_mixer
from support.helpers import BATCH
from support.helpers import CLASSES
from support.helpers import GOLDEN
from support.helpers import IMAGE
from support.helpers import SIZES
from support.helpers import save_digits
from support.helpers import split_digits

# Keras collects garbage for every layer that it quantizes, and each time would
# go through all that was imported: most of the time of those tests.
gc.freeze()


@pytest.fixture(autouse=True)
def fixed_seed():
    keras.utils.set_random_seed(7)


@pytest.fixture
def tiny():
    """Makes a tiny Mixer, with what its options change."""

    def make(**options):
        sizes = {key: options.pop(key, SIZES[key]) for key in SIZES}
        defaults = {"input_shape": IMAGE, "classes": CLASSES}
        if "input_tensor" in options:
            del defaults["input_shape"]
        return keras_mixer.Mixer(**sizes, **{**defaults, **options})

    return make


@pytest.fixture
def images():
    return np.random.default_rng(1).uniform(0, 255, (BATCH, *IMAGE))


@pytest.fixture(scope="session")
def digits():
    return split_digits()


@pytest.fixture
def trained():
    """The file of a Mixer that has learned the digits; see `goldens.py`."""
    return GOLDEN / "digits_mixer.keras"


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Three digits, in `train` and `test`, as images of 8 x 8."""
    folder = tmp_path_factory.mktemp("photos")
    for part, (x, y) in zip(("train", "test"), split_digits(), strict=True):
        for digit in (3, 4, 6):
            save_digits(folder / part / f"digit {digit}", x[y == digit][:70])
    return folder
