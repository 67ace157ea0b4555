"""Real data sets of TensorFlow Datasets, and builders defined here."""

import hashlib
import re
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from keras_mixer import cli
from keras_mixer import data
from keras_mixer.data import indexed
from keras_mixer.data.photos import load_image
from keras_mixer.recipes import Augmentation
from support.helpers import matches
from support.images import MIXED
from support.images import arrays
from support.images import shared

tf = pytest.importorskip("tensorflow", reason="it reads the images")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    manual = folder / "downloads" / "manual"
    manual.mkdir(parents=True)
    for path in shared("cmaterdb").glob("*.npz"):
        shutil.copy(path, manual / path.name.removeprefix("bangla-"))
    for path in shared("mnist").glob("*.gz"):
        shutil.copy(path, manual)
    return folder


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read"])
def test_bangla_digits_are_loaded_from_tfds(kept, data_dir, monkeypatch):
    if not kept:
        monkeypatch.setattr(indexed, "MAX_BYTES_KEPT", 0)
    images = data.load_tfds("cmaterdb/bangla", (32, 32), data_dir=data_dir)
    assert images.train_images.decoded is kept
    assert images.name == "cmaterdb/bangla/1.0.0"
    assert images.class_names == tuple("0123456789")
    assert images.image_shape == (32, 32, 3)
    assert (images.train_count, images.test_count) == (5000, 1000)
    batches = arrays(images.test(300, crop_ratio=1.0), 9)
    assert [len(x) for x, _ in batches] == [300, 300, 300, 100]
    # The images of the original archive; TFDS may change their order.
    archive = np.load(shared("cmaterdb") / "bangla-testing-images.npz")
    expected = {
        (image.tobytes(), int(label))
        for image, label in zip(
            archive["images"], archive["labels"], strict=True
        )
    }
    received = [
        (image.tobytes(), int(label))
        for x, y in batches
        for image, label in zip(x, y.argmax(axis=1), strict=True)
    ]
    assert set(received) == expected
    late = images.train(MIXED, 32, start=155)
    digest = hashlib.sha256()
    for x, y in arrays(late, 3):
        digest.update(x.tobytes() + y.tobytes())
    # The batches do not depend on whether images are kept in memory.
    others = DIGESTS.setdefault("bangla", digest.hexdigest())
    assert others == digest.hexdigest()


DIGESTS = {}


@pytest.mark.nightly
def test_mnist_is_loaded_from_tfds_with_one_channel(data_dir):
    images = data.load_tfds("mnist", 28, data_dir=data_dir)
    assert images.name.startswith("mnist/3.")
    assert images.image_shape == (28, 28, 1)
    assert (images.train_count, images.test_count) == (60000, 10000)
    padded = Augmentation(crop="pad", flip=False, randaugment=(2, 5))
    ((x, y),) = arrays(images.train(padded, 96, start=1000), 1)
    assert x.shape == (96, 28, 28, 1)
    assert y.sum() == 96


def digits_builder(digits):
    """Returns the class that the data sets of the tests extend."""
    import tensorflow_datasets as tfds

    class Digits(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.3")
        SPLITS = ("train",)
        SHAPE = (None, None, 3)  # of the images
        KEYS = ("image", "label")
        SECRET = False

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=self.SHAPE),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=self.KEYS,
            )

        def _split_generators(self, dl_manager):
            return {
                split: self._generate_examples(split) for split in self.SPLITS
            }

        def _generate_examples(self, split):
            start = 50 * self.SPLITS.index(split)
            for i in range(start, start + 50):
                pixels = digits.images[i][..., None] * (255 / 16)
                image = np.repeat(pixels.astype("uint8"), 3, axis=-1)
                secret = self.SECRET and split == "test"
                label = -1 if secret else digits.target[i]
                yield i, {"image": image, "label": label}

    return Digits


@pytest.fixture(scope="session")
def builders():
    """Defines data sets of real digits, as a user would write them."""
    from sklearn.datasets import load_digits

    digits = load_digits()

    Digits = digits_builder(digits)  # noqa: N806

    class DigitsOfOnePart(Digits):
        pass

    class DigitsOfThreeParts(Digits):
        SPLITS = ("train", "validation", "test")

    class DigitsWithSecrets(DigitsOfThreeParts):
        SECRET = True

    class DigitsWithoutLabels(Digits):
        KEYS = None

    class TransparentPhotos(Digits):
        SHAPE = (8, 9, 4)

        def _generate_examples(self, split):
            for i in range(2):
                yield i, {"image": noise(i, self.SHAPE[-1]), "label": i}

    class GrayPhotos(TransparentPhotos):
        SHAPE = (8, 9, 1)

    return digits


def test_a_fifth_is_held_out_without_other_splits(builders, tmp_path):
    images = data.load_tfds("digits_of_one_part", 8, data_dir=tmp_path)
    assert (images.train_count, images.test_count) == (40, 10)
    assert not images.train_images.decoded  # the sizes are not in the features
    ((x, y),) = arrays(images.test(50, crop_ratio=1.0), 2)
    ((x_train, _),) = arrays(images.train(None, 40), 1)
    whole = {
        (pixels * (255 / 16)).astype("uint8").tobytes(): label
        for pixels, label in zip(
            builders.images[:50], builders.target, strict=False
        )
    }
    for image, label in zip(x[..., 0], y.argmax(axis=1), strict=True):
        assert whole[image.tobytes()] == label
    parts = {image[..., 0].tobytes() for image in np.concatenate([x, x_train])}
    assert parts == set(whole)
    other = data.load_tfds("digits_of_one_part", 8, data_dir=tmp_path, seed=1)
    assert (arrays(other.test(50, 1.0), 1)[0][0] != x).any()


def noise(i, channels):
    shape = (8, 9, channels)
    return np.random.default_rng(i).integers(0, 256, shape, "uint8")


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read"])
@pytest.mark.parametrize(
    ("name", "channels", "shape"),
    [
        ("gray_photos", 1, (8, 9, 1)),
        ("transparent_photos", 4, (8, 9, 3)),
    ],
)
def test_transparent_and_gray_images_equal_load_image(
    kept, name, channels, shape, builders, tmp_path, monkeypatch
):
    if not kept:
        monkeypatch.setattr(indexed, "MAX_BYTES_KEPT", 0)
    options = {"data_dir": tmp_path, "held_out": 0.5}
    images = data.load_tfds(name, (8, 9), **options)
    assert images.train_images.decoded is kept
    assert images.image_shape == shape
    ((x, y),) = arrays(images.test(2, 1.0), 1)
    photo = Image.fromarray(noise(y[0].argmax(), channels).squeeze())
    np.testing.assert_allclose(x, load_image(photo, shape, 1.0), atol=1)
    with pytest.raises(ValueError, match=f"at most 2 in '{name}'"):
        data.load_tfds(name, 8, data_dir=tmp_path)


def test_test_split_without_labels_is_not_used(builders, tmp_path):
    images = data.load_tfds("digits_with_secrets", 8, data_dir=tmp_path)
    assert (images.train_count, images.test_count) == (50, 50)
    ((_, y),) = arrays(images.test(50), 1)
    np.testing.assert_array_equal(
        np.sort(y.argmax(axis=1)), np.sort(builders.target[50:100])
    )


def test_validation_and_test_splits_are_used(builders, tmp_path):
    images = data.load_tfds("digits_of_three_parts", 8, data_dir=tmp_path)
    for batches, start in (
        (images.validation(60, 1.0), 50),
        (images.test(60, 1.0), 100),
    ):
        ((x, y),) = arrays(batches, 2)
        pixels = builders.images[start : start + 50] * (255 / 16)
        labels = builders.target[start : start + 50]
        assert {
            (image.tobytes(), label)
            for image, label in zip(x[..., 0], y.argmax(axis=1), strict=True)
        } == {
            (image.tobytes(), label)
            for image, label in zip(pixels.astype("uint8"), labels, strict=True)
        }
    assert images.validation_count == images.test_count == 50
    assert images.train_paths == images.validation_paths == ()
    assert images.test_paths == ()


def test_evaluate_uses_tfds_data_sets(builders, tmp_path, capsys):
    """The classes "0" to "9" must not match the ids of CIFAR-10."""
    command = ["evaluate", "--dataset", "digits_of_three_parts"]
    command += ["--data-dir", str(tmp_path)]
    with pytest.raises(SystemExit, match="classes that the model does not kn"):
        cli.main(command)
    cli.main([*command, "--few-shot", "3"])
    printed = capsys.readouterr().out
    assert "images: 50\n" in printed
    (shots,) = re.findall(r"3 images per class: ([0-9.]+)", printed)
    assert 20 < float(shots) < 100


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--freeze=block_9", "There is no block 'block_9'"),
        ("--distribute=data", "KERAS_BACKEND=jax"),
        ("--output=~/run", "'home/run' exists and is not the folder of a"),
    ],
)
def test_wrong_settings_are_refused_before_images_are_downloaded(
    option, message, builders, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "home")
    (tmp_path / "home" / "run" / "other").mkdir(parents=True)
    command = ["train", "--dataset", "digits_of_one_part", "--data-dir=tfds"]
    command += ["--image-size", "8", "--output", "run", option]
    with pytest.raises(SystemExit, match=message):
        cli.main(command)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "...such as ['mnist'...Received: name='mnits'"),
        ("mnist:9.9.9", "Expected a TFDS data set with an existing..."),
        ("cmaterdb/latin", "Expected a TFDS data set with an existing..."),
        ("digits_without_labels", "Expected a data set of images..."),
    ],
)
def test_unknown_data_sets_raise_errors(name, message, builders, tmp_path):
    with pytest.raises(ValueError, match=matches(message)) as raised:
        data.load_tfds(name, 8, data_dir=tmp_path)
    # The message of TFDS itself is several pages long.
    assert len(str(raised.value)) < 400


def test_folder_on_another_machine_is_refused():
    with pytest.raises(ValueError, match="`data_dir` must be a path on this"):
        data.load_tfds("mnist", 8, data_dir="gs://bucket/sets")


def test_missing_network_is_reported(tmp_path, monkeypatch):
    from tensorflow_datasets.core.download import downloader

    def refuse(*arguments, **options):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(downloader, "MAX_RETRIES", 0)  # 10 take minutes
    with pytest.raises(OSError, match="could not be downloaded") as raised:
        data.load_tfds("mnist", 8, data_dir=tmp_path)
    assert f"'mnist' is not in '{tmp_path}" in str(raised.value)
