"""Sizes of crops, and comparison of crops while and after decoding."""

import numpy as np
import pytest
from PIL import Image

from keras_mixer.data import preparing

tf = pytest.importorskip("tensorflow", reason="it reads the images")


def test_inception_crops_have_the_published_sizes():
    shape, boxes = (90, 160, 3), []
    for i in range(600):
        boxes.append(preparing._inception_box(shape, (3, i)).numpy())
    top, left, height, width = np.array(boxes).T
    area, ratio = height * width / (90 * 160), width / height
    assert 0.045 < area.min() < 0.08
    assert 0.7 < area.max() <= 1
    assert 0.72 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.37
    assert (top >= 0).all()
    assert (top + height <= 90).all()
    assert (left + width <= 160).all()
    assert top.max() > 40
    assert left.max() > 80


def test_cropping_while_decoding_equals_cropping_after_decoding(photos):
    for path in sorted(photos.rglob("*.jpg"))[:4]:
        content = path.read_bytes()
        expected = preparing.inception_crop(
            preparing.decode(content, 3), (1, 2)
        )
        received = preparing.decode_inception_crop(content, 3, (1, 2))
        assert received.shape == expected.shape
        with Image.open(path) as image:
            assert received.shape[0] < image.height
        differences = np.abs(
            received.numpy().astype(int) - expected.numpy().astype(int)
        )
        # The colors of a JPEG have a lower resolution than its pixels. They are
        # interpolated with pixels outside the crop.
        assert differences[2:-2, 2:-2].max() <= 1


def test_padding_shifts_an_image_by_at_most_an_eighth():
    image = np.random.default_rng(0).integers(1, 256, (16, 24, 3), "uint8")
    padded = np.pad(image, ((2, 2), (3, 3), (0, 0)))
    places = {
        padded[top : top + 16, left : left + 24].tobytes(): (top, left)
        for top in range(5)
        for left in range(7)
    }
    seen = {
        places[preparing.shifted(tf.constant(image), (1, i)).numpy().tobytes()]
        for i in range(400)
    }
    assert len(seen) == 35
