"""Folders of images, compared with Pillow and `load_image`."""

import os
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from PIL import ImageOps

from keras_mixer import data
from keras_mixer.data import finding
from keras_mixer.data import indexed
from keras_mixer.data.photos import load_image
from keras_mixer.recipes import Augmentation
from support.helpers import python
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
    assert images.image_shape == (6, 10, 3)  # grey images are converted to RGB
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
def test_folder_with_two_parts_is_not_split(part, tmp_path, digits):
    (x, y), _ = digits
    for label in (3, 5):
        save_digits(tmp_path / "train" / str(label), x[y == label][:4])
    save_digits(tmp_path / part / "5", x[y == 5][4:7])
    # This is neither a class nor an image.
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "5" / "notes.txt").write_text("hello")
    images = data.load_folder(tmp_path, 8)
    assert (images.train_count, images.test_count) == (8, 3)
    (batch,) = arrays(images.test(5, crop_ratio=1.0), 2)
    np.testing.assert_array_equal(batch[1], [[0, 1]] * 3)
    # 8 x 8 images are not resized, and their channels are equal.
    expected = np.repeat(x[y == 5][4:7].astype("uint8"), 3, axis=-1)
    np.testing.assert_array_equal(
        sorted(batch[0].reshape(3, -1).tolist()),
        sorted(expected.reshape(3, -1).tolist()),
    )


def test_unreadable_images_are_skipped_and_reported(cifar, tmp_path):
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
    assert "the file is empty" in dict(images.skipped).values()
    assert images.train_count + images.test_count == 14
    for name, content in broken.items():
        (tmp_path / "cow").mkdir(exist_ok=True)
        (tmp_path / "cow" / pathlib.Path(name).name).write_bytes(content)
    with pytest.raises(ValueError, match=r"no images for \['cow'") as raised:
        data.load_folder(tmp_path, 32)
    # The error lists the unreadable files of the class, with reasons.
    message = str(raised.value)
    assert message.count(str(tmp_path / "cow")) == 3
    assert re.search("cow/half.jpg': Truncated", message)
    assert message.endswith("; and 2 more files")
    assert str(tmp_path / "cat") not in message


def test_index_avoids_decoding_files_again(numbered, tmp_path, monkeypatch):
    """A damaged file with unchanged size and time is not decoded again."""
    monkeypatch.setattr(indexed, "MAX_BYTES_KEPT", 0)
    index = data.ImageIndex()
    data.load_folder(numbered, 8, index=index)
    index.write(tmp_path / "images.json")
    unchanged, touched = sorted((numbered / "odd").iterdir())[:2]
    for file, moved in ((unchanged, 0), (touched, 1)):
        status = file.stat()
        file.write_bytes(b"x" * status.st_size)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + moved))
    new = numbered / "odd" / "new.png"
    Image.new("RGB", (9, 7)).save(new)
    index = data.ImageIndex.read(tmp_path / "images.json")
    images = data.load_folder(numbered, 8, index=index)
    assert [path for path, _ in images.skipped] == [str(touched)]
    assert index.get(new)[:2] == index.get(numbered / "even" / "0.png")[:2]
    # Without an index, both damaged files are detected.
    skipped = [path for path, _ in data.load_folder(numbered, 8).skipped]
    assert skipped == [str(unchanged), str(touched)]


def exchange_classes(folder):
    (folder / "even").rename(folder / "other")
    (folder / "odd").rename(folder / "even")
    (folder / "other").rename(folder / "odd")


def exchange_photos(folder):
    for i in (1, 3):
        Image.new("RGB", (9, 7), "teal").save(folder / "odd" / f"{i}.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (exchange_photos, "Received: changed: '.*odd/1.png', '.*odd/3.png'$"),
        (exchange_classes, "new: .*, and 20 more; missing or unr.*, and 20 m"),
        (lambda folder: (folder / "odd/1.png").rename(folder / "odd/2.png"),
         "Received: new: '.*odd/2.png'; missing or unreadable: '.*odd/1.png'$"),
        (lambda folder: (folder / "odd/1.png").write_bytes(b""),
         "Received: missing or unreadable: '.*odd/1.png'$"),
    ],
)  # fmt: skip
def test_other_images_than_those_of_the_training_are_refused(
    change, message, numbered, tmp_path, caplog
):
    index = data.ImageIndex()
    images = data.load_folder(numbered, 8, index=index)
    index.check_unchanged(images)
    assert "the record of these is missing or damaged" in caplog.text
    index.write(tmp_path / "images.json")
    change(numbered)
    index = data.ImageIndex.read(tmp_path / "images.json")
    images = data.load_folder(numbered, 8, index=index)
    with pytest.raises(ValueError, match=message):
        index.check_unchanged(images)


def test_moved_and_copied_images_are_those_of_the_training(numbered, tmp_path):
    colors = Image.open(numbered / "odd" / "1.png")
    for kind in ("webp", "jpeg"):  # decoded by Pillow, and by TensorFlow
        colors.save(numbered / "odd" / f"1.{kind}", kind)
    index = data.ImageIndex()
    data.load_folder(numbered, 8, index=index)
    index.write(tmp_path / "images.json")
    shutil.copytree(numbered, tmp_path / "copy")
    numbered.rename(tmp_path / "old")
    (tmp_path / "copy").rename(numbered)
    for path in (numbered / "odd").iterdir():
        os.utime(path, (0, 0))
    index = data.ImageIndex.read(tmp_path / "images.json")
    index.check_unchanged(data.load_folder(numbered, 8, index=index))


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "[" * 10**6, '{"a": [1, 2]}', '{"a": 3}',
     '{"a": [1, 2, 3, 4, false, 5]}'],
)  # fmt: skip
def test_damaged_index_is_ignored(content, tmp_path, caplog):
    (tmp_path / "images.json").write_text(content)
    index = data.ImageIndex.read(tmp_path / "images.json")
    assert index.get(tmp_path / "images.json") is None
    assert "is damaged: images are checked again" in caplog.text


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
    assert reasons.pop(f"{photos}/dog/lost.png") == "it is a broken link"
    assert sorted(reasons) == [
        f"{photos}/cat/more", f"{photos}/dog/loop", f"{photos}/dog/up",
    ]  # fmt: skip


def test_all_unused_files_are_reported(tmp_path, colors):
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
        "cat/notes.txt": "cannot identify image file: the format is "
        "unknown to Pillow",
    }
    skipped = dict(images.skipped)
    assert "exceeds limit of" in skipped.pop(f"{tmp_path}/dog/large.tiff")
    assert skipped == {
        f"{tmp_path}/{name}": reason for name, reason in reasons.items()
    }
    assert (images.train_count, images.test_count) == (2, 2)


def test_output_among_the_images_is_refused(tmp_path):
    for output in ("cat/run", "runs/first", "train/cat/run"):
        with pytest.raises(ValueError, match="must not be among the images"):
            finding.check_output(tmp_path, tmp_path / output)
    for output in (tmp_path / "run", tmp_path.parent / "run", "run"):
        finding.check_output(tmp_path, output)


@pytest.mark.parametrize("place", ["", "cat/", "train/", "train/cat/"])
def test_folders_of_systems_and_trainings_are_no_classes(place, tmp_path):
    parts = ("train/", "test/") if place.startswith("train") else ("",)
    photos = [
        f"{part}{name}/1.png" for part in parts for name in ("cat", "dog")
    ]
    folders = ["@eaDir", "$RECYCLE.BIN", "#recycle", "__MACOSX", "lost+found",
               "System Volume Information", ".ipynb_checkpoints", "__pycache__",
               "run", "report"]  # fmt: skip
    others = [f"{place}{name}/a/1.png" for name in folders]
    records = [f"{place}run/run.json", f"{place}report/evaluation.json"]
    folder_with(*photos, *others)(tmp_path)
    for name in records:
        (tmp_path / name).touch()
    found = finding.find(tmp_path)
    assert len(found.parts) == len(parts)
    for part in found.parts.values():
        assert {name: len(files) for name, files in part.items()} == {
            "cat": 1, "dog": 1,
        }  # fmt: skip
    assert {str(path.relative_to(tmp_path)) for path, _ in found.skipped} == {
        f"{place}{name}" for name in folders
    }
    assert {reason.split(":")[0] for _, reason in found.skipped} == {
        "it is hidden",
        "it is a folder of the system or of a tool",
        "it is the folder of a training",
        "it is the folder of an evaluation",
    }


def test_files_outside_the_parts_are_reported(tmp_path, colors):
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
            "its name is not that of a train, val or test folder",
        ),
        (f"{tmp_path}/test/2.png", "it is not in the folder of a class"),
    )


def save_formats(folder, colors):
    """Files that TensorFlow cannot decode, or decodes unlike Pillow."""
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
    ((x, _),) = arrays(images.test(20, 1.0), 2)
    model = model_of((30, 40), channels)
    for path, received in zip(paths, x, strict=True):
        expected = load_image(path, model, 1.0)[0]
        np.testing.assert_allclose(received, expected, atol=1, err_msg=path)


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
def test_usual_names_of_the_parts_are_recognized(
    train, validation, test, tmp_path
):
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
    # If there is only one held-out part, it is used for both.
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
def test_colors_of_all_kinds_of_images_equal_pillow(mode, suffix, tmp_path):
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


def refuse_folder(make, tmp_path, message, error=ValueError, **options):
    folder = tmp_path / "photos"
    make(folder)
    options = {"image_size": 8, **options}
    with pytest.raises(error, match=message):
        data.load_folder(folder, **options)


def folder_with(*names):
    """Returns a function that creates a folder with images or folders."""

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
        (["a/1.png", "b/", "c/"], r"no images for \['b', 'c'\]", ValueError),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"],
         r"Received: \['c'\] only in .*test'", ValueError),
        (["train/a/1.png", "train/b/1.png", "test/"],
         "There must be images to test on", ValueError),
        (["a/1.png", "b/1.png", "b/2.png"], "needs at least 3 images. "
         "Received: at most 2 in a class of", ValueError),
        (["train/a/1.png", "train/b/1.png", "val/", "test/a/1.png"],
         "There must be images to validate on", ValueError),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "Valid/b/1.png"],
         r"only one validation folder in .*\['Valid', 'val'\]", ValueError),
        (["seg_train/a/1.png", "seg_train/b/1.png", "seg_test/a/1.png"],
         r"train/training \(train\), val/valid/.*'seg_test' has subfolders but "
         "no images", ValueError),
        (["photos/a/1.png", "photos/b/1.png"],
         r"inside train/training .*Received: the folders \['photos'\]",
         ValueError),
    ],
)  # fmt: skip
def test_wrong_folders_raise_errors(names, message, error, tmp_path):
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
        ({"seed": 2**32}, ValueError, "`seed` must be below"),
        ({"path": "gs://bucket/photos"}, ValueError, "`path` must be a path"),
    ],
)
def test_wrong_arguments_of_load_folder_raise_errors(
    options, error, message, numbered
):
    with pytest.raises(error, match=message):
        data.load_folder(**{"path": numbered, "image_size": 8, **options})


@pytest.mark.parametrize("missing", ["tensorflow", "keras_cv"])
def test_missing_packages_are_reported(missing, numbered):
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
