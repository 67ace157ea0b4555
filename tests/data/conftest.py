"""Folders of real and generated images."""

import numpy as np
import pytest
from PIL import Image
from PIL import ImageOps

from support.images import unpack


@pytest.fixture(scope="session")
def jpegs(tmp_path_factory):
    """30 random images of each of three classes."""
    folder = tmp_path_factory.mktemp("jpegs")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 32, 32, 3), "uint8")
    for i, image in enumerate(pixels):
        path = folder / ("cat", "dog", "eel")[i % 3] / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return unpack("grocery-photos.tar.gz", folder, 3) / "grocery"


@pytest.fixture
def numbered(tmp_path):
    """23 images. Each has a single color, which identifies it."""
    for i in range(23):
        folder = tmp_path / "numbered" / ("even", "odd")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), (10 * i, i, 255 - i)).save(folder / f"{i}.png")
    return tmp_path / "numbered"


@pytest.fixture
def colors():
    """An image of 40 x 30 pixels without uniform areas."""
    gray = Image.effect_mandelbrot((40, 30), (-2, -0.8, 1, 1.2), 90)
    bands = [gray, gray.rotate(180), ImageOps.invert(gray)]
    return Image.merge("RGB", bands)
