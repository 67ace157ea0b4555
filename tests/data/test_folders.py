"""Folders of images, compared with Pillow and `load_image`."""

import pathlib
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from keras_mixer import data
from keras_mixer.data import indexed
from keras_mixer.data.photos import load_image
from keras_mixer.recipes import Augmentation
from support.helpers import save_digits
from support.images import arrays
from support.images import assert_same
from support.images import model_of

tf = pytest.importorskip("tensorflow", reason="it reads the images")


def test_folder_split_is_per_class_and_reproducible(tmp_path, digits):
    (x, y), _ = digits
    for label, count in ((3, 10), (5, 25), (8, 1)):
        save_digits(tmp_path / str(label), x[y == label][:count])
    images = data.load_folder(tmp_path, (6, 10), seed=2)
    assert images.class_names == ("3", "5", "8")
    assert images.image_shape == (6, 10, 3)  # gray images are converted to RGB
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


@pytest.mark.parametrize("parts", [["val"], ["test"], ["val", "test"]])
def test_folder_with_parts_is_not_split(parts, tmp_path):
    counts = {"train": 4, "val": 3, "test": 2}
    for part in ("train", *parts):
        for label in ("a", "b"):
            (tmp_path / part / label).mkdir(parents=True)
            for i in range(counts[part]):
                image = Image.new("L", (9, 7), 10 * counts[part])
                image.save(tmp_path / part / label / f"{i}.png")
    images = data.load_folder(tmp_path, 8)
    assert images.class_names == ("a", "b")
    assert images.train_count == 8
    # If there is only one held-out part, it is used for both.
    for batches, paths, part in (
        (images.validation(9), images.validation_paths, parts[0]),
        (images.test(9), images.test_paths, parts[-1]),
    ):
        ((x, y),) = arrays(batches, 2)
        count = counts[part]
        np.testing.assert_array_equal(x, np.full_like(x, 10 * count))
        np.testing.assert_array_equal(y.argmax(1), [0] * count + [1] * count)
        assert len(paths) == len(x) == 2 * count


def test_unreadable_images_are_skipped_and_reported(jpegs, tmp_path):
    for name in ("cat", "dog"):
        shutil.copytree(jpegs / name, tmp_path / name)
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
    large = Image.new("1", (20_000, 10_001))
    large.save(tmp_path / "dog" / "large.tiff", compression="group4")
    (tmp_path / "beside.png").touch()
    images = data.load_folder(tmp_path, 32)
    reasons = {
        path.removeprefix(f"{tmp_path}/"): reason
        for path, reason in images.skipped
    }
    assert reasons.keys() == {*broken, "dog/large.tiff", "beside.png"}
    for reason in reasons.values():
        assert reason
        assert "\n" not in reason
        assert "{{" not in reason
    assert reasons["cat/empty.jpg"] == "the file is empty"
    assert reasons["dog/text.png"].endswith("format is unknown to Pillow")
    assert "exceeds limit of" in reasons["dog/large.tiff"]
    assert images.train_count + images.test_count == 60
    for name, content in broken.items():
        (tmp_path / "cow").mkdir(exist_ok=True)
        (tmp_path / "cow" / pathlib.Path(name).name).write_bytes(content)
    with pytest.raises(ValueError, match=r"no images for \['cow'") as raised:
        data.load_folder(tmp_path, 32)
    # The error lists the unreadable files of the class, with reasons.
    message = str(raised.value)
    assert message.count(str(tmp_path / "cow")) == 3
    assert re.search("cow/half.jpg': (?i:.*truncated)", message)
    assert message.endswith("; and 2 more files")
    assert str(tmp_path / "cat") not in message


def save_formats(folder, colors):
    """Files of all kinds; some TensorFlow cannot decode, or not like Pillow."""
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
        "rgb.png": (colors, {}),
        "rgb.jpg": (colors, {}),
        "clear.png": (clear, {}),
        "gray.png": (colors.convert("L"), {}),
        "gray.jpg": (colors.convert("L"), {}),
        "palette.png": (colors.quantize(9), {}),
        "clear_palette.png": (colors.quantize(9), {"transparency": 3}),
        "1_bit.png": (colors.convert("1"), {}),
        "cmyk.jpeg": (colors.convert("CMYK"), {}),
    }
    for name, (image, options) in saved.items():
        image.save(folder / name, **options)
    return sorted(saved)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read"])
def test_all_formats_are_read_like_load_image(
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
    ((x, _),) = arrays(images.test(25, 1.0), 2)
    model = model_of((30, 40), channels)
    for path, received in zip(paths, x, strict=True):
        expected = load_image(path, model, 1.0)[0]
        atol = 2 if path.endswith("cmyk.jpeg") else 1
        np.testing.assert_allclose(received, expected, atol=atol, err_msg=path)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read"])
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_photos_are_rotated_like_load_image(
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
    # Crops for training are rotated too. One batch has all of them.
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
def test_paths_have_the_order_of_the_batches(channels, numbered):
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
        ({"seed": 2**32}, ValueError, "`seed` must be below"),
        ({"path": "gs://bucket/photos"}, ValueError, "`path` must be a path"),
    ],
)
def test_wrong_arguments_of_load_folder_raise_errors(
    options, error, message, numbered
):
    with pytest.raises(error, match=message):
        data.load_folder(**{"path": numbered, "image_size": 8, **options})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/a/1", "train/b/1", "test/"], "be images to test on"),
        (["train/a/1", "train/b/1", "val/", "test/a/1"], "to validate on"),
        (["a/1", "b/1", "b/2"], "needs at least 3 images. Received: at most 2"),
    ],
)
def test_too_few_images_raise_errors(names, message, tmp_path):
    for name in names:
        folder, _, file = name.rpartition("/")
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        if file:
            Image.new("RGB", (4, 5)).save(tmp_path / name, "png")
    with pytest.raises(ValueError, match=message):
        data.load_folder(tmp_path, 8)


@pytest.mark.parametrize("missing", ["tensorflow", "keras_cv"])
def test_missing_packages_are_reported(missing, numbered, monkeypatch):
    images = data.load_folder(numbered, 8)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"install keras_mixer\[train\]"):
        images.train(Augmentation(randaugment=(2, 8.5)), 4)
    if missing == "tensorflow":
        with pytest.raises(ImportError, match=r"install keras_mixer\[train\]"):
            data.load_folder(numbered, 8)
