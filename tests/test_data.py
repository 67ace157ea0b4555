"""The pipelines, against Pillow, NumPy and each other, on real images.

Batches must be a function of the seed and the step; that is tested bit for bit,
also between processes with other backends and numbers of threads.
"""

import dataclasses
import hashlib
import itertools
import pathlib
import re
import shutil
import tarfile

import keras
import numpy as np
import pytest
from conftest import ROOT
from conftest import matches
from conftest import python
from conftest import save_digits
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageFilter
from PIL import ImageOps

from keras_mixer import cli
from keras_mixer import data
from keras_mixer.data import cropping
from keras_mixer.data import decoding
from keras_mixer.data import indexed
from keras_mixer.data import rand_augment
from keras_mixer.data.photos import load_image
from keras_mixer.recipes import Augmentation

pytestmark = pytest.mark.once

tf = pytest.importorskip("tensorflow", reason="it reads the images")

SHARED = ROOT.parent / "shared" / "data"
EVERYTHING = Augmentation(
    randaugment=(2, 9), mixup=0.8, cutmix=1.0, erasing=0.5
)


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


@pytest.fixture(scope="session")
def cifar(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar")
    return unpack("cifar10-jpeg.tar.gz", folder, 7)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return unpack("grocery-photos.tar.gz", folder, 3) / "grocery"


@pytest.fixture
def numbered(tmp_path):
    """23 images that are told apart by their one color."""
    for i in range(23):
        folder = tmp_path / "numbered" / ("even", "odd")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), (10 * i, i, 255 - i)).save(folder / f"{i}.png")
    return tmp_path / "numbered"


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


# --- The order, and beginning in the middle


def test_every_epoch_has_each_image_once_in_another_order(numbered):
    images = data.load_folder(numbered, 8, held_out=0.1)
    assert (images.train_count, images.test_count) == (21, 2)
    assert images.steps_per_epoch(4) == 5
    batches = arrays(images.train(None, 4, seed=3), 15)
    numbers = [image[0, 0, 1] for x, _ in batches for image in x]
    epochs = [numbers[start : start + 20] for start in (0, 20, 40)]
    for epoch in epochs:
        assert len(set(epoch)) == 20
    assert len({tuple(epoch) for epoch in epochs}) == 3
    # Over the epochs, all of them.
    assert len(set(numbers)) == 21
    for x, y in batches:
        np.testing.assert_array_equal(y.argmax(1), x[:, 0, 0, 1] % 2)
    other = arrays(images.train(None, 4, seed=4), 1)
    assert (other[0][0] != batches[0][0]).any()


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read"])
def test_a_training_begins_anywhere(cifar, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr(indexed, "MAX_BYTES_KEPT", 0)
    images = data.load_folder(cifar, (24, 20))
    assert images.train_images.decoded is kept
    assert images.steps_per_epoch(16) == 4
    batches = arrays(images.train(EVERYTHING, 16, seed=5), 7)
    assert batches[0][0].shape == (16, 24, 20, 3)
    assert batches[0][0].dtype == "uint8"
    assert batches[0][1].shape == (16, 10)
    assert batches[0][1].dtype == "float32"
    for start in (1, 4, 6):  # in the first epoch, and in the second
        again = images.train(EVERYTHING, 16, seed=5, start=start)
        assert_same(arrays(again, 7 - start), batches[start:])
    few = images.train(EVERYTHING, 16, seed=5, start=2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    assert_same(arrays(few.with_options(options), 2), batches[2:4])
    other = arrays(images.train(EVERYTHING, 16, seed=6), 1)
    assert (other[0][0] != batches[0][0]).any()


def test_beginning_late_decodes_nothing_that_lies_before(cifar, monkeypatch):
    monkeypatch.setattr(indexed, "MAX_BYTES_KEPT", 0)
    images = data.load_folder(cifar, 32)
    read = []

    def counting(index):
        def count(place):
            read.append(int(place))
            return place

        counted = tf.numpy_function(count, [index], index.dtype)
        return images.train_images.read(tf.ensure_shape(counted, ()))

    counted = dataclasses.replace(
        images, train_images=images.train_images._replace(read=counting)
    )
    # The last step but one of the fifth epoch.
    batches = counted.train(None, 10, start=33)
    (x, _), _ = arrays(batches, 2)
    # What is read ahead belongs to it.
    assert 20 <= len(read) < 200
    expected = arrays(images.train(None, 10).skip(33), 1)[0][0]
    np.testing.assert_array_equal(x, expected)


def test_the_hosts_have_the_batch_of_one_together(cifar):
    images = data.load_folder(cifar, 16)
    augmentation = Augmentation(mixup=0.8, cutmix=1.0, erasing=0.5)
    whole = arrays(images.train(augmentation, 12, seed=1, start=3), 4)
    parts = [
        arrays(
            images.train(augmentation, 12, seed=1, start=3, hosts=3, host=host),
            4,
        )
        for host in range(3)
    ]
    together = [
        tuple(np.concatenate(values) for values in zip(*step, strict=True))
        for step in zip(*parts, strict=True)
    ]
    assert_same(together, whole)


BATCHES = """
import hashlib
import sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[2]))
tf.config.threading.set_inter_op_parallelism_threads(int(sys.argv[2]))
from keras_mixer import data
from keras_mixer.recipes import Augmentation
images = data.load_folder(sys.argv[1], 48)
everything = Augmentation(
    randaugment=(2, 9), mixup=0.8, cutmix=1.0, erasing=0.5)
digest = hashlib.sha256()
for x, y in images.train(everything, 10, seed=5, start=2).take(3):
    digest.update(x.numpy().tobytes() + y.numpy().tobytes())
for x, y in images.test(8):
    digest.update(x.numpy().tobytes() + y.numpy().tobytes())
print(digest.hexdigest())
"""


def test_backends_and_threads_change_nothing(photos):
    """In processes of their own, with keras-cv under each backend of Keras."""
    images = data.load_folder(photos, 48)
    digest = hashlib.sha256()
    for x, y in itertools.chain(
        images.train(EVERYTHING, 10, seed=5, start=2).take(3), images.test(8)
    ):
        digest.update(x.numpy().tobytes() + y.numpy().tobytes())
    for backend, threads in (("jax", 1), ("torch", 5)):
        printed = python(BATCHES, photos, threads, backend=backend)
        assert printed.strip() == digest.hexdigest(), (backend, threads)


# --- Folders


def test_a_folder_is_split_by_class_and_always_alike(tmp_path, digits):
    (x, y), _ = digits
    for label, count in ((3, 10), (5, 25), (8, 1)):
        save_digits(tmp_path / str(label), x[y == label][:count])
    images = data.load_folder(tmp_path, (6, 10), seed=2)
    assert images.class_names == ("3", "5", "8")
    assert images.image_shape == (6, 10, 3)  # grey images get colors
    assert images.skipped == ()
    assert images.name == str(tmp_path)
    labels = np.concatenate([y.numpy() for _, y in images.test(4)]).argmax(1)
    np.testing.assert_array_equal(labels, [0] * 2 + [1] * 5)
    assert images.train_count == 8 + 20 + 1
    again = data.load_folder(tmp_path, (6, 10), seed=2)
    assert_same(arrays(again.test(4), 9), arrays(images.test(4), 9))
    other = data.load_folder(tmp_path, (6, 10), seed=3)
    assert any(
        (a != b).any()
        for (a, _), (b, _) in zip(
            arrays(other.test(7), 9), arrays(images.test(7), 9), strict=True
        )
    )


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_folder_with_two_parts_is_read_as_such(part, tmp_path, digits):
    (x, y), _ = digits
    for label in (3, 5):
        save_digits(tmp_path / "train" / str(label), x[y == label][:4])
    save_digits(tmp_path / part / "5", x[y == 5][4:7])
    # Neither a class nor an image.
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "5" / "notes.txt").write_text("hello")
    images = data.load_folder(tmp_path, 8)
    assert (images.train_count, images.test_count) == (8, 3)
    (batch,) = arrays(images.test(5, crop_ratio=1.0), 2)
    np.testing.assert_array_equal(batch[1], [[0, 1]] * 3)
    # 8 x 8 as they are, of one color.
    expected = np.repeat(x[y == 5][4:7].astype("uint8"), 3, axis=-1)
    np.testing.assert_array_equal(
        sorted(batch[0].reshape(3, -1).tolist()),
        sorted(expected.reshape(3, -1).tolist()),
    )


def test_images_that_cannot_be_read_are_skipped_and_named(cifar, tmp_path):
    for name in ("cat", "dog"):
        shutil.copytree(cifar / "train" / name, tmp_path / name)
    good = sorted((tmp_path / "cat").iterdir())[0].read_bytes()
    broken = {
        "cat/empty.jpg": b"",
        "cat/half.jpg": good[: len(good) // 2],
        "dog/last_bytes_missing.JPG": good[:-2],
        "dog/text.png": b"hello",
        "dog/head.gif": b"GIF89a",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    images = data.load_folder(tmp_path, 32)
    assert {path for path, _ in images.skipped} == {
        str(tmp_path / name) for name in broken
    }
    assert all(
        reason and "\n" not in reason and "{{" not in reason
        for _, reason in images.skipped
    )
    assert images.train_count + images.test_count == 14
    for name, content in broken.items():
        (tmp_path / "cow").mkdir(exist_ok=True)
        (tmp_path / "cow" / pathlib.Path(name).name).write_bytes(content)
    with pytest.raises(ValueError, match=r"none for \['cow'\]") as raised:
        data.load_folder(tmp_path, 32)
    # The error names the files of the class and why they cannot be read.
    message = str(raised.value)
    assert message.count(str(tmp_path / "cow")) == 3
    assert re.search("cow/half.jpg': Truncated", message)
    assert message.endswith("; and 2 more files")
    assert str(tmp_path / "cat") not in message


@pytest.fixture
def colors():
    """An image of 40 x 30 whose colors change everywhere."""
    grey = Image.effect_mandelbrot((40, 30), (-2, -0.8, 1, 1.2), 90)
    bands = [grey, grey.rotate(180), ImageOps.invert(grey)]
    return Image.merge("RGB", bands)


def test_images_in_subfolders_belong_to_the_class(tmp_path, colors):
    names = ["cat/2.png", "cat/a/1.jpg", "cat/a/b/3.png", "dog/b/c/1.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        colors.save(tmp_path / name)
    colors.save(tmp_path / "cat" / "0.png")
    colors.save(tmp_path / "dog" / "0.png")
    images = data.load_folder(tmp_path, 8, held_out=0.5)
    assert images.class_names == ("cat", "dog")
    assert (images.train_count, images.test_count) == (3, 3)
    assert images.skipped == ()
    expected = [*names, "cat/0.png", "dog/0.png"]
    assert sorted(images.train_paths + images.test_paths) == sorted(
        str(tmp_path / name) for name in expected
    )


def test_links_are_followed_without_reading_a_folder_twice(tmp_path, colors):
    for name in ("photos/cat/1.png", "photos/dog/1.png", "else/owl/1.png",
                 "else/more/2.png", "photos/dog/2.png", "else/owl/3.png",
                 "photos/cat/4.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        colors.save(tmp_path / name)
    photos = tmp_path / "photos"
    links = {
        "owl": tmp_path / "else" / "owl",
        "cat/more": tmp_path / "else" / "more",
        "cat/again": tmp_path / "else" / "more",
        "dog/loop": photos / "dog",
        "dog/up": photos,
        "dog/3.png": tmp_path / "else" / "owl" / "3.png",
        "dog/lost.png": tmp_path / "nowhere.png",
    }
    for name, target in links.items():
        (photos / name).symlink_to(target)
    images = data.load_folder(photos, 8, held_out=0.4)
    assert images.class_names == ("cat", "dog", "owl")
    used = images.train_paths + images.test_paths
    assert sorted(path.removeprefix(f"{photos}/") for path in used) == [
        "cat/1.png", "cat/4.png", "cat/again/2.png", "dog/1.png", "dog/2.png",
        "dog/3.png", "owl/1.png", "owl/3.png",
    ]  # fmt: skip
    reasons = dict(images.skipped)
    assert reasons.pop(f"{photos}/dog/lost.png") == "it links to nothing"
    assert sorted(reasons) == [
        f"{photos}/cat/more", f"{photos}/dog/loop", f"{photos}/dog/up",
    ]  # fmt: skip


def test_every_file_that_is_not_used_is_named(tmp_path, colors):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png",
                 "beside.png", "cat/.hidden.png", ".cache/1.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        colors.save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("cat")
    (tmp_path / "cat" / "notes.txt").write_text("cat")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"system")
    (tmp_path / "dog" / ".DS_Store").write_bytes(b"system")
    large = Image.new("1", (20_000, 10_001))
    large.save(tmp_path / "dog" / "large.tiff", compression="group4")
    images = data.load_folder(tmp_path, 8, held_out=0.5)
    reasons = {
        "beside.png": "it is not in the folder of a class",
        "labels.csv": "it is not in the folder of a class",
        ".cache": "it is hidden: its name begins with a dot",
        "cat/.hidden.png": "it is hidden: its name begins with a dot",
        "cat/notes.txt": "cannot identify image file: Pillow knows no such "
        "format",
    }
    skipped = dict(images.skipped)
    assert "exceeds limit of" in skipped.pop(f"{tmp_path}/dog/large.tiff")
    assert skipped == {
        f"{tmp_path}/{name}": reason for name, reason in reasons.items()
    }
    assert (images.train_count, images.test_count) == (2, 2)


def test_files_beside_the_parts_are_named(tmp_path, colors):
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png",
                 "other/a/1.png", "1.png", "test/2.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        colors.save(tmp_path / name)
    images = data.load_folder(tmp_path, 8)
    assert (images.train_count, images.test_count) == (2, 1)
    assert images.skipped == (
        (f"{tmp_path}/1.png", "it is not in the folder of a class"),
        (
            f"{tmp_path}/other",
            "it is not named like a train, val or test folder",
        ),
        (f"{tmp_path}/test/2.png", "it is not in the folder of a class"),
    )


def save_formats(folder, colors):
    """Files that TensorFlow does not decode as Pillow does, or not at all."""
    clear = colors.copy()
    clear.putalpha(colors.getchannel("G"))
    levels = np.asarray(colors.convert("L")).astype("uint16") * 251
    saved = {
        "webp.webp": (colors, {"lossless": True}),
        "clear.webp": (clear, {"lossless": True}),
        "tiff.tiff": (colors, {}),
        "cmyk.tif": (colors.convert("CMYK"), {}),
        "bits.tif": (Image.fromarray(levels), {}),
        "bits.pgm": (Image.fromarray(levels), {"format": "ppm"}),
        "palette.bmp": (colors.quantize(9), {}),
        "clear.gif": (colors.quantize(9), {"transparency": 3}),
        "wrong.png": (colors, {"format": "webp", "lossless": True}),
        "wrong.txt": (clear, {"format": "png"}),
        "none": (colors, {"format": "jpeg"}),
        "jpeg2000.jp2": (colors, {}),
    }
    for name, (image, options) in saved.items():
        image.save(folder / name, **options)
    return sorted(saved)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read"])
def test_every_format_is_read_as_by_load_image(
    kept, channels, tmp_path, colors, monkeypatch
):
    if not kept:
        monkeypatch.setattr(indexed, "MAX_BYTES_KEPT", 0)
    for name in ("train/a", "train/b", "test/b"):
        (tmp_path / name).mkdir(parents=True)
    colors.save(tmp_path / "train" / "a" / "1.png")
    colors.save(tmp_path / "train" / "b" / "1.png")
    names = save_formats(tmp_path / "test" / "b", colors)
    images = data.load_folder(tmp_path, (30, 40), channels=channels)
    assert images.image_shape == (30, 40, channels)
    assert images.skipped == ()
    paths = [str(tmp_path / "test" / "b" / name) for name in names]
    assert list(images.test_paths) == paths
    ((x, _),) = arrays(images.test(20, 1.0), 2)
    model = model_of((30, 40), channels)
    for path, received in zip(paths, x, strict=True):
        expected = load_image(path, model, 1.0)[0]
        np.testing.assert_allclose(received, expected, atol=1, err_msg=path)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read"])
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_photos_are_turned_upright_as_by_load_image(
    kind, kept, tmp_path, colors, monkeypatch
):
    if not kept:
        monkeypatch.setattr(indexed, "MAX_BYTES_KEPT", 0)
    for name in ("train/a", "train/b", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            path = tmp_path / name / str(orientation)
            colors.save(path, kind, exif=exif)
    images = data.load_folder(tmp_path, (24, 36))
    ((x, _),) = arrays(images.test(9), 2)
    for path, received in zip(images.test_paths, x, strict=True):
        expected = load_image(path, model_of((24, 36)))[0]
        np.testing.assert_allclose(received, expected, atol=1)
    assert len({image.tobytes() for image in x}) == 8
    # Crops to train on are upright too: a batch has them all.
    resized = Augmentation(crop="resize", flip=False)
    ((x, _),) = arrays(images.train(resized, 16), 1)
    expected = [
        load_image(path, model_of((24, 36)), 1.0)[0]
        for path in images.train_paths
    ]
    for image in x:
        differences = np.abs(image - np.array(expected)).max(axis=(1, 2, 3))
        assert differences.min() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_paths_are_in_the_order_of_the_batches(channels, numbered):
    images = data.load_folder(numbered, 8, channels=channels, held_out=0.4)
    assert images.image_shape == (8, 8, channels)
    assert images.validation_paths == images.test_paths
    assert len(images.test_paths) == images.test_count == 9
    assert len(images.train_paths) == images.train_count == 14
    assert not set(images.train_paths) & set(images.test_paths)
    batches = arrays(images.test(4), 5)
    x = np.concatenate([x for x, _ in batches])
    model = model_of((8, 8), channels)
    for path, received in zip(images.test_paths, x, strict=True):
        np.testing.assert_allclose(received, load_image(path, model)[0], atol=1)


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "validation", None),
        ("train", "valid", None),
        ("Train", "VAL", None),
        ("training", None, "testing"),
        ("training_set", None, "test_set"),
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "dev", "Evaluation"),
    ],
)
def test_usual_names_of_the_parts_are_known(train, validation, test, tmp_path):
    counts = {train: 4, validation: 3, test: 2}
    for part, count in counts.items():
        for label in ("a", "b"):
            for i in range(count):
                if part is not None:
                    path = tmp_path / part / label / f"{i}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.new("RGB", (9, 7), (count, i, 5)).save(path)
    images = data.load_folder(tmp_path, 8)
    assert images.class_names == ("a", "b")
    assert images.train_count == 8
    # A single part that is held out is used for both.
    assert images.validation_count == 2 * counts[validation or test]
    assert images.test_count == 2 * counts[test or validation]
    for batches, count, paths in (
        (images.validation(9), counts[validation or test],
         images.validation_paths),
        (images.test(9), counts[test or validation], images.test_paths),
    ):  # fmt: skip
        ((x, y),) = arrays(batches, 2)
        assert (x[..., 0] == count).all()
        np.testing.assert_array_equal(
            y.argmax(axis=1), [0] * count + [1] * count
        )
        assert len(paths) == 2 * count


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("RGBA", "png"), ("P", "gif"), ("RGB", "bmp"), ("P", "png"),
     ("L", "jpg"), ("CMYK", "jpeg")],
)  # fmt: skip
def test_all_kinds_of_images_get_the_colors_that_pillow_sees(
    mode, suffix, tmp_path
):
    mandelbrot = Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 90)
    colors = Image.merge(
        "RGB",
        [mandelbrot, mandelbrot.rotate(180), ImageOps.invert(mandelbrot)],
    )
    if mode == "RGBA":
        colors.putalpha(mandelbrot)
    for name in ("a", "b"):
        (tmp_path / "x" / name).mkdir(parents=True)
        for i in range(2):
            colors.convert(mode).save(tmp_path / "x" / name / f"{i}.{suffix}")
    images = data.load_folder(tmp_path / "x", (30, 40), held_out=0.5)
    model = model_of((30, 40))
    ((x, _),) = arrays(images.test(2, 1.0), 1)
    expected = load_image(tmp_path / "x" / "a" / f"0.{suffix}", model, 1.0)
    assert np.abs(x[0] - expected[0]).max() <= (2 if mode == "CMYK" else 1)


# --- Evaluation


@pytest.mark.parametrize("size", [(32, 48), (224, 224)])
@pytest.mark.parametrize(
    ("crop_ratio", "interpolation"),
    [(0.875, "area"), (0.875, "bilinear"), (0.9, "bicubic"), (1.0, "lanczos"),
     (0.6, "nearest")],
)  # fmt: skip
def test_evaluation_is_that_of_load_image(
    size, crop_ratio, interpolation, photos
):
    images = data.load_folder(photos, size)
    model = model_of(size)
    batches = arrays(images.test(29, crop_ratio, interpolation), 9)
    assert [len(x) for x, _ in batches] == [29, 1]
    labels = np.concatenate([y for _, y in batches]).argmax(1)
    np.testing.assert_array_equal(labels, np.repeat(np.arange(10), 3))
    paths = sorted((photos / "test").rglob("*.jpg"))
    for place in (0, 7):
        expected = load_image(paths[place], model, crop_ratio, interpolation)
        differences = np.abs(batches[0][0][place] - expected[0])
        # By area, Pillow takes the other one of pixels that are equally near.
        by_area = interpolation == "area"
        assert differences.mean() < (0.4 if by_area else 0.2)
        assert (differences > 2).mean() < (0.05 if by_area else 0.002)


# --- Crops


def test_inception_crops_are_as_large_as_published():
    shape, boxes = (90, 160, 3), []
    for i in range(600):
        boxes.append(cropping._inception_box(shape, (3, i)).numpy())
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


def test_a_crop_is_the_same_whether_all_was_decoded_or_not(photos):
    for path in sorted(photos.rglob("*.jpg"))[:4]:
        content = path.read_bytes()
        expected = cropping.inception_crop(decoding.decode(content, 3), (1, 2))
        received = cropping.decode_inception_crop(content, 3, (1, 2))
        assert received.shape == expected.shape
        with Image.open(path) as image:
            assert received.shape[0] < image.height
        differences = np.abs(
            received.numpy().astype(int) - expected.numpy().astype(int)
        )
        # The colors of a JPEG are coarser than its pixels, and are smoothed
        # over what lies beside the crop.
        assert differences[2:-2, 2:-2].max() <= 1


def test_padding_moves_an_image_by_an_eighth_at_most():
    image = np.random.default_rng(0).integers(1, 256, (16, 24, 3), "uint8")
    padded = np.pad(image, ((2, 2), (3, 3), (0, 0)))
    places = {
        padded[top : top + 16, left : left + 24].tobytes(): (top, left)
        for top in range(5)
        for left in range(7)
    }
    seen = {
        places[cropping.shifted(tf.constant(image), (1, i)).numpy().tobytes()]
        for i in range(400)
    }
    assert len(seen) == 35


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


# --- RandAugment, against Pillow


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


# At magnitude 8. Contrast is what Pillow has otherwise: it takes the mean of
# grey, and keras-cv that of each channel.
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
def test_operations_are_those_of_pillow(name, photos):
    path = sorted(photos.rglob("*.jpg"))[0]
    with Image.open(path) as photo:
        image = photo.resize((224, 160))
    # Smooth, as nearest pixels may be one apart, and with room for contrast.
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


def test_all_operations_are_drawn_alike_and_grey_images_are_taken():
    augment = rand_augment.rand_augment(2, 10)
    grey = tf.random.stateless_uniform((12, 10, 1), (0, 1), maxval=255)
    for i in range(16):
        draws = tf.constant([[(i + 0.5) / 16, 0.2, 0.3, 0.6]] * 2)
        assert augment(grey, draws).shape == (12, 10, 1)
    assert len(rand_augment.OPERATIONS) == 16
    with pytest.raises(ValueError, match="must not be negative"):
        rand_augment.rand_augment(2, -1)


# --- MixUp, CutMix and erasing, against NumPy


@pytest.fixture
def plain(numbered):
    """Batches of unmixed images, as floats, and the data they come from."""
    images = data.load_folder(numbered, (24, 20))
    batches = arrays(images.train(Augmentation(flip=False), 6, seed=2), 60)
    return images, [(x.astype("float64"), y) for x, y in batches]


def test_mix_up_mixes_with_the_image_before(plain):
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
    # Beta(1/2, 1/2) folded at a half: P(weight < 3/4) = 1/3.
    assert min(weights) >= 0.5
    assert 0.2 < np.mean(np.array(weights) < 0.75) < 0.47
    assert len(set(weights)) == 60


def test_cut_mix_pastes_a_box_of_the_image_before(plain):
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
    # Half of it would be the mean if nothing were cut off.
    assert 0.2 < np.mean(shares) < 0.5
    assert max(shares) > 0.7


def test_mix_up_and_cut_mix_take_half_of_the_batches_each(plain):
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


# --- TFDS


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
def test_bangla_digits_come_from_tfds(kept, data_dir, monkeypatch):
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
    # The original archive, in whatever order TFDS has put it.
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
    late = images.train(EVERYTHING, 32, start=155)
    digest = hashlib.sha256()
    for x, y in arrays(late, 3):
        digest.update(x.tobytes() + y.tobytes())
    # Read or kept: the order, and what is done, are the same.
    others = DIGESTS.setdefault("bangla", digest.hexdigest())
    assert others == digest.hexdigest()


DIGESTS = {}


def test_mnist_comes_from_tfds_with_one_channel(data_dir):
    images = data.load_tfds("mnist", 28, data_dir=data_dir)
    assert images.name.startswith("mnist/3.")
    assert images.image_shape == (28, 28, 1)
    assert (images.train_count, images.test_count) == (60000, 10000)
    padded = Augmentation(crop="pad", flip=False, randaugment=(2, 5))
    ((x, y),) = arrays(images.train(padded, 96, start=1000), 1)
    assert x.shape == (96, 28, 28, 1)
    assert y.sum() == 96


def test_data_sets_of_tfds_are_evaluated_on(data_dir, capsys):
    """Greyscale ones too; and digits are no photos, though both count to 9."""
    command = ["evaluate", "--dataset", "mnist", "--data-dir", str(data_dir)]
    with pytest.raises(SystemExit, match="classes that the model does not kn"):
        cli.main(command)
    command[2] = "cmaterdb/bangla"
    cli.main([*command, "--few-shot", "5"])
    lines = capsys.readouterr().out.splitlines()
    assert "images: 1000" in lines
    (shots,) = (line for line in lines if "5 images per class" in line)
    assert 20 < float(shots.split()[-2]) < 100


def define_builders():
    """Data sets as users write them, of real digits, with one name each."""
    import tensorflow_datasets as tfds
    from sklearn.datasets import load_digits

    digits = load_digits()

    class Digits(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.3")
        SECRET = True
        SPLITS = ("train",)

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(None, None, 3)),
                        "label": tfds.features.ClassLabel(num_classes=10),
                    }
                ),
                supervised_keys=("image", "label"),
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
                yield (
                    i,
                    {
                        "image": image,
                        "label": -1 if secret else digits.target[i],
                    },
                )

    class DigitsOfOnePart(Digits):
        pass

    class DigitsWithSecrets(Digits):
        SPLITS = ("train", "validation", "test")

    class DigitsOfThreeParts(Digits):
        SPLITS = ("train", "validation", "test")
        SECRET = False

    class DigitsWithoutLabels(Digits):
        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {"image": tfds.features.Image(shape=(None, None, 3))}
                ),
            )

    return digits


@pytest.fixture(scope="session")
def builders():
    return define_builders()


def test_a_fifth_is_held_out_where_there_is_but_one_part(builders, tmp_path):
    images = data.load_tfds("digits_of_one_part", 8, data_dir=tmp_path)
    assert (images.train_count, images.test_count) == (40, 10)
    assert not images.train_images.decoded  # sizes that nobody has promised
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


def test_where_test_labels_are_secret_it_is_validated(builders, tmp_path):
    images = data.load_tfds("digits_with_secrets", 8, data_dir=tmp_path)
    assert (images.train_count, images.test_count) == (50, 50)
    ((_, y),) = arrays(images.test(50), 1)
    np.testing.assert_array_equal(
        np.sort(y.argmax(axis=1)), np.sort(builders.target[50:100])
    )


def test_validation_and_test_splits_are_used_as_such(builders, tmp_path):
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


# --- Errors


def refuse_folder(make, tmp_path, message, error=ValueError, **options):
    folder = tmp_path / "photos"
    make(folder)
    options = {"image_size": 8, **options}
    with pytest.raises(error, match=message):
        data.load_folder(folder, **options)


def folder_with(*names):
    """Makes one of an image for each name, or of folders where it ends so."""

    def make(folder):
        for name in names:
            path = folder / name
            if name.endswith("/"):
                path.mkdir(parents=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 5)).save(path)

    return make


@pytest.mark.parametrize(
    ("names", "message", "error"),
    [
        ([], "which is not a folder", NotADirectoryError),
        (["a.png", "b.png"], r"Received: the folders \[\]", ValueError),
        (["a/1.png", "a/2.png"], r"Received: the folders \['a'\]", ValueError),
        (["a/1.png", "b/", "c/"], r"none for \['b', 'c'\]", ValueError),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"],
         r"Received: \['c'\] in .*test' alone", ValueError),
        (["train/a/1.png", "train/b/1.png", "test/"],
         "There must be images to test on", ValueError),
        (["a/1.png", "b/1.png"], "There must be images to test on", ValueError),
        (["train/a/1.png", "train/b/1.png", "val/", "test/a/1.png"],
         "There must be images to validate on", ValueError),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "Valid/b/1.png"],
         r"one folder of validation images.*\['Valid', 'val'\]", ValueError),
        (["seg_train/a/1.png", "seg_train/b/1.png", "seg_test/a/1.png"],
         r"train/training \(train\), val/valid/.*'seg_test' holds folders but "
         "no images", ValueError),
        (["photos/a/1.png", "photos/b/1.png"],
         r"inside train/training .*Received: the folders \['photos'\]",
         ValueError),
    ],
)  # fmt: skip
def test_folders_that_are_refused(names, message, error, tmp_path):
    refuse_folder(folder_with(*names), tmp_path, message, error)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_size": 0}, ValueError, "`image_size` must be a positive int"),
        ({"image_size": (8, 8, 3)}, ValueError, "or height and width"),
        ({"image_size": 8.0}, TypeError, "`image_size` must be a positive int"),
        ({"channels": 4}, ValueError, r"`channels` must be 3 \(RGB\) or 1"),
        ({"channels": "L"}, TypeError, "`channels` must be a positive int"),
        ({"held_out": 1}, ValueError, r"`held_out` must be in \(0, 1\)"),
        ({"held_out": "all"}, TypeError, "`held_out` must be a number"),
        ({"seed": -1}, ValueError, "`seed` must be a non-negative integer"),
        ({"seed": 0.5}, TypeError, "`seed` must be a non-negative integer"),
    ],
)
def test_arguments_of_folders_that_are_refused(
    options, error, message, numbered
):
    with pytest.raises(error, match=message):
        data.load_folder(numbered, **{"image_size": 8, **options})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 20}, ValueError, "Received: batch_size=20 for 19"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be a positive"),
        ({"hosts": 4}, ValueError, "batch_size=6 for 4 hosts"),
        ({"hosts": 3, "host": 3}, ValueError, "host=3 of hosts=3"),
        ({"start": -1}, ValueError, "`start` must be a non-negative"),
        ({"seed": None}, TypeError, "`seed` must be a non-negative"),
        ({"augmentation": Augmentation(crop="some")}, ValueError,
         "`crop` must be one of .*Received: crop='some'"),
    ],
)  # fmt: skip
def test_trainings_that_are_refused(options, error, message, numbered):
    images = data.load_folder(numbered, 8)
    with pytest.raises(error, match=message):
        images.train(**{"augmentation": None, "batch_size": 6, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_ratio": 0}, r"`crop_ratio` must be in \(0, 1\]"),
        ({"interpolation": "cubic"}, "Received: interpolation='cubic'"),
    ],
)
def test_evaluations_that_are_refused(options, message, numbered):
    images = data.load_folder(numbered, 8)
    with pytest.raises(ValueError, match=message):
        images.test(4, **options)
    with pytest.raises(ValueError, match=message):
        images.validation(4, **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "...such as ['mnist'...Received: name='mnits'"),
        ("mnist:9.9.9", "Expected a data set of TFDS with an existing..."),
        ("cmaterdb/latin", "Expected a data set of TFDS with an existing..."),
        ("digits_without_labels", "Expected a data set of images..."),
    ],
)
def test_data_sets_that_do_not_exist(name, message, builders, tmp_path):
    with pytest.raises(ValueError, match=matches(message)) as raised:
        data.load_tfds(name, 8, data_dir=tmp_path)
    # TFDS itself goes on for pages.
    assert len(str(raised.value)) < 400


def test_without_network_it_says_what_is_missing(tmp_path):
    code = """
import socket
import sys
def refuse(*arguments, **options):
    raise OSError("Network is unreachable")
socket.socket.connect = socket.getaddrinfo = refuse
from tensorflow_datasets.core.download import downloader
downloader.MAX_RETRIES = 0  # of ten, which take minutes
from keras_mixer import data
try:
    data.load_tfds("mnist", 8, data_dir=sys.argv[1])
except OSError as error:
    print(type(error).__name__, error)
"""
    printed = python(code, tmp_path, backend="jax")
    assert f"'mnist' is not in '{tmp_path}" in printed
    assert "could not be downloaded" in printed


@pytest.mark.parametrize("missing", ["tensorflow", "keras_cv"])
def test_what_is_not_installed_is_named(missing, numbered):
    code = f"""
import sys
sys.modules["{missing}"] = None
from keras_mixer import data
from keras_mixer.recipes import Augmentation
try:
    images = data.load_folder(sys.argv[1], 8)
    images.train(Augmentation(randaugment=(2, 9)), 4)
except ImportError as error:
    print(error)
"""
    printed = python(code, numbered, backend="torch")
    assert "pip install keras_mixer[train]" in printed
