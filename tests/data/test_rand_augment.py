"""RandAugment, compared with Pillow."""

import numpy as np
import pytest
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageFilter
from PIL import ImageOps

from keras_mixer.data import rand_augment

tf = pytest.importorskip("tensorflow", reason="it reads the images")


def affine(*matrix):
    def transform(image):
        return image.transform(
            image.size, Image.Transform.AFFINE, matrix, fillcolor=(128,) * 3
        )

    return transform


def solarize_add(image):
    return image.point(
        [min(v + 88, 255) if v < 128 else v for v in range(256)] * 3
    )


def contrast(image):
    bands = []
    for band in image.split():
        mean = np.asarray(band).mean()
        table = [mean + 1.54 * (value - mean) for value in range(256)]
        bands.append(band.point(np.clip(table, 0, 255).round().tolist()))
    return Image.merge("RGB", bands)


def cutout(image):
    image = image.copy()
    # Around row 48 of 160, column 134 of 224.
    side = 2 * int(0.8 * 40 / 224 * 160)
    left, top = 134 - side // 2, 48 - side // 2
    image.paste((128,) * 3, (left, top, left + side, top + side))
    return image


# At magnitude 8. Contrast differs from Pillow, which uses the mean of the gray
# image: keras-cv uses the mean of each channel.
PILLOW = {
    "auto_contrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
    "invert": ImageOps.invert,
    "rotate": lambda image: image.rotate(24, fillcolor=(128,) * 3),
    "posterize": lambda image: ImageOps.posterize(image, 3),
    "solarize": lambda image: ImageOps.solarize(image, 204),
    "color": lambda image: ImageEnhance.Color(image).enhance(1.54),
    "contrast": contrast,
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(1.54),
    "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(1.54),
    "shear_x": affine(1, 0.24, 0, 0, 1, 0),
    "shear_y": affine(1, 0, 0, 0.24, 1, 0),
    "translate_x": affine(1, 0, -0.8 * 100, 0, 1, 0),
    "translate_y": affine(1, 0, 0, 0, 1, -0.8 * 100 * 160 / 224),
    "cutout": cutout,
    "solarize_add": solarize_add,
}


@pytest.mark.parametrize("name", rand_augment.OPERATIONS)
def test_operations_equal_those_of_pillow(name, photos):
    path = sorted(photos.rglob("*.jpg"))[0]
    with Image.open(path) as photo:
        image = photo.resize((224, 160))
    # A smooth image, since the nearest pixel can differ by one pixel. Its range
    # is reduced, so that contrast can be increased.
    image = image.filter(ImageFilter.GaussianBlur(9))
    image = ImageOps.autocontrast(image)
    image = image.point([round(20 + 0.92 * v) for v in range(256)] * 3)
    augment = rand_augment.rand_augment(1, 8)
    choice = (rand_augment.OPERATIONS.index(name) + 0.5) / 16
    pixels = tf.constant(np.asarray(image), "float32")
    received = augment(pixels, tf.constant([[choice, 0.2, 0.3, 0.6]]))
    expected = np.asarray(PILLOW[name](image), "float32")
    differences = np.abs(received.numpy() - expected)
    assert (differences > 3).mean() < 0.03
    assert np.abs(np.asarray(image) - expected).mean() > 0.05
    if name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
        other = augment(pixels, tf.constant([[choice, 0.7, 0.3, 0.6]]))
        assert np.abs(other.numpy() - received.numpy()).mean() > 5


def test_all_operations_accept_gray_images():
    augment = rand_augment.rand_augment(2, 10)
    gray = tf.random.stateless_uniform((12, 10, 1), (0, 1), maxval=255)
    for i in range(16):
        draws = tf.constant([[(i + 0.5) / 16, 0.2, 0.3, 0.6]] * 2)
        assert augment(gray, draws).shape == (12, 10, 1)
    assert len(rand_augment.OPERATIONS) == 16
    with pytest.raises(ValueError, match="must not be negative"):
        rand_augment.rand_augment(2, -1)
