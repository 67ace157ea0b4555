"""The index of checked images, and the images that a training began with."""

import os
import shutil

import pytest
from PIL import Image

from keras_mixer import data
from keras_mixer.data import indexed

pytest.importorskip("tensorflow", reason="it reads the images")


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
