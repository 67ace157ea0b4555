"""Images for the tests of `keras_mixer.data`."""

import dataclasses
import pathlib
import tarfile

import keras
import numpy as np
import pytest

from keras_mixer.recipes import Augmentation
from support.helpers import ROOT

SHARED = ROOT.parent / "shared" / "data"


def shared(name):
    if not (SHARED / name).exists():
        pytest.skip(f"the real data '{SHARED / name}' is not here")
    return SHARED / name


def unpack(name, folder, per_class):
    """The first images of each class of an archive."""
    counts = {}
    with tarfile.open(shared(name)) as archive:
        for member in archive:
            place = pathlib.PurePath(member.name)
            counts[place.parent] = counts.get(place.parent, 0) + 1
            is_image = member.isfile() and place.suffix == ".jpg"
            if is_image and counts[place.parent] <= per_class:
                archive.extract(member, folder, filter="data")
    return folder


def model_of(size, channels=3):
    """A model that takes images of a size, as `load_image` wants one."""
    inputs = keras.Input((*size, channels))
    return keras.Model(inputs, inputs)


def arrays(batches, count):
    return [
        (images.numpy(), labels.numpy())
        for images, labels in batches.take(count)
    ]


def assert_same(received, expected):
    assert len(received) == len(expected)
    for (x, y), (x_expected, y_expected) in zip(
        received, expected, strict=True
    ):
        np.testing.assert_array_equal(x, x_expected)
        np.testing.assert_array_equal(y, y_expected)


# RandAugment takes seconds to trace: few tests have it.
MIXED = Augmentation(mixup=0.8, cutmix=1.0, erasing=0.5)
EVERYTHING = dataclasses.replace(MIXED, randaugment=(2, 9))
