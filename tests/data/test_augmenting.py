"""Flips, MixUp, CutMix and erasing, compared with NumPy."""

import numpy as np
import pytest
from PIL import Image

from keras_mixer import data
from keras_mixer.recipes import Augmentation
from support.images import arrays

tf = pytest.importorskip("tensorflow", reason="it reads the images")


def test_half_of_the_images_are_mirrored(numbered, tmp_path):
    for path in numbered.rglob("*.png"):
        with Image.open(path) as image:
            pixels = np.array(image)
        pixels[:, 5:] = 255
        Image.fromarray(pixels).save(path)
    images = data.load_folder(numbered, (7, 9))
    flipped = Augmentation(crop="resize")
    batches = arrays(images.train(flipped, 10), 40)
    x = np.concatenate([x for x, _ in batches])
    mirrored = (x[:, 0, 0] == 255).all(axis=1)
    assert 0.42 < mirrored.mean() < 0.58
    assert ((x[:, 0, 8] == 255).all(axis=1) != mirrored).all()
    batches = arrays(images.train(None, 10), 3)
    assert all((x[:, 0, 8] == 255).all() for x, _ in batches)


@pytest.fixture
def plain(numbered):
    """Batches of unmixed images, as floats, and the data they come from."""
    images = data.load_folder(numbered, (24, 20))
    batches = arrays(images.train(Augmentation(flip=False), 6, seed=2), 60)
    return images, [(x.astype("float64"), y) for x, y in batches]


def test_mix_up_mixes_with_the_previous_image(plain):
    images, unmixed = plain
    mixing = Augmentation(flip=False, mixup=0.5)
    weights = []
    for (x, y), (x_plain, y_plain) in zip(
        arrays(images.train(mixing, 6, seed=2), 60), unmixed, strict=True
    ):
        (differ,) = np.nonzero((y_plain != np.roll(y_plain, 1, 0)).any(axis=1))
        weight = y[differ[0]].max()
        weights.append(weight)
        for mixed, plain_values, tolerance in (
            (x, x_plain, 0.51),
            (y, y_plain, 1e-6),
        ):
            expected = weight * plain_values
            expected += (1 - weight) * np.roll(plain_values, 1, axis=0)
            np.testing.assert_allclose(mixed, expected, atol=tolerance)
    # The larger one of w and 1 - w, with w from Beta(1/2, 1/2):
    # P(weight < 3/4) = 1/3.
    assert min(weights) >= 0.5
    assert 0.2 < np.mean(np.array(weights) < 0.75) < 0.47
    assert len(set(weights)) == 60


def test_cut_mix_pastes_a_box_of_the_previous_image(plain):
    images, unmixed = plain
    mixing = Augmentation(flip=False, cutmix=1.0)
    shares = []
    for (x, y), (x_plain, y_plain) in zip(
        arrays(images.train(mixing, 6, seed=2), 60), unmixed, strict=True
    ):
        before = np.roll(x_plain, 1, axis=0)
        pasted = (x == before).all(axis=(0, 3))
        kept = (x == x_plain).all(axis=(0, 3))
        np.testing.assert_array_equal(pasted, ~kept)
        rows, columns = np.nonzero(pasted)
        share = pasted.mean()
        if share:
            box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            assert box == pasted.sum()
        expected = share * np.roll(y_plain, 1, axis=0) + (1 - share) * y_plain
        np.testing.assert_allclose(y, expected, atol=1e-6)
        shares.append(share)
    # Without clipping of the box, the mean would be 0.5.
    assert 0.2 < np.mean(shares) < 0.5
    assert max(shares) > 0.7


def test_mix_up_and_cut_mix_are_each_used_for_half_of_the_batches(plain):
    images, unmixed = plain
    both = Augmentation(flip=False, mixup=0.8, cutmix=1.0)
    cut = []
    for (x, _), (x_plain, _) in zip(
        arrays(images.train(both, 6, seed=2), 60), unmixed, strict=True
    ):
        before = np.roll(x_plain, 1, axis=0)
        cut.append(((x == before) | (x == x_plain)).all())
    assert 0.3 < np.mean(cut) < 0.7


def test_erasing_fills_a_box_of_some_images_with_noise(plain):
    images, unmixed = plain
    erasing = Augmentation(flip=False, erasing=0.3)
    shares = []
    for (x, y), (x_plain, y_plain) in zip(
        arrays(images.train(erasing, 6, seed=2), 60), unmixed, strict=True
    ):
        np.testing.assert_array_equal(y, y_plain)
        for image, plain_image in zip(x, x_plain, strict=True):
            erased = (image != plain_image).any(axis=2)
            rows, columns = np.nonzero(erased)
            shares.append(0)
            if len(rows):
                box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
                assert erased.sum() > 0.9 * box
                shares[-1] = box / (24 * 20)
                if box > 50:
                    assert image[erased].std() > 30
    shares = np.array(shares)
    assert 0.22 < (shares > 0).mean() < 0.38
    assert shares[shares > 0].min() < 0.06
    assert 0.25 < shares.max() <= 0.34
