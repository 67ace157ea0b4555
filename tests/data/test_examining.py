"""The index of checked images, and the images that a training began with."""

import json
import os
import shutil

import pytest
from PIL import Image

from keras_mixer import data
from keras_mixer.data import indexed

pytest.importorskip("tensorflow", reason="it reads the images")


def test_index_avoids_decoding_files_again(numbered, tmp_path, monkeypatch):
    """The digest of an unchanged file is that of the index, a wrong one."""
    monkeypatch.setattr(indexed, "MAX_BYTES_KEPT", 0)
    index = data.ImageIndex()
    data.load_folder(numbered, 8, index=index)
    index.write(tmp_path / "images.json")
    unchanged, touched = sorted((numbered / "odd").iterdir())[:2]
    entries = json.loads((tmp_path / "images.json").read_text())
    for file in (unchanged, touched):
        entries[str(file)][-1] = "known"
    (tmp_path / "images.json").write_text(json.dumps(entries))
    os.utime(touched)
    new = numbered / "odd" / "new.png"
    Image.new("RGB", (9, 7)).save(new)
    index = data.ImageIndex.read(tmp_path / "images.json")
    images = data.load_folder(numbered, 8, index=index)
    assert images.skipped == ()
    assert index.get(unchanged).digest == "known"
    assert index.get(touched).digest != "known"
    assert index.get(new)[:2] == index.get(numbered / "even" / "0.png")[:2]


@pytest.fixture
def alike(tmp_path):
    """Two classes whose files have the same names, sizes and times."""
    for i in range(22):
        file = tmp_path / "alike" / ("even", "odd")[i % 2] / f"{i // 2}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), (10 * i, i, 255 - i)).save(file)
        os.utime(file, (0, 0))
    return tmp_path / "alike"


def exchange_classes(folder):
    (folder / "even").rename(folder / "other")
    (folder / "odd").rename(folder / "even")
    (folder / "other").rename(folder / "odd")


def exchange_photos(folder):
    for i in (1, 3):
        file = folder / "odd" / f"{i}.bmp"
        Image.new("RGB", (9, 7), "teal").save(file)
        os.utime(file, (0, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (exchange_photos, "Received: changed: '.*odd/1.bmp', '.*odd/3.bmp'$"),
        (exchange_classes, "Received: changed: '.*', '.*', and 19 more$"),
        (lambda folder: (folder / "odd/1.bmp").rename(folder / "odd/x.bmp"),
         "Received: new: '.*odd/x.bmp'; missing or unreadable: '.*odd/1.bmp'$"),
        (lambda folder: (folder / "odd/1.bmp").write_bytes(b""),
         "Received: missing or unreadable: '.*odd/1.bmp'$"),
    ],
)  # fmt: skip
def test_other_images_than_those_of_the_training_are_refused(
    change, message, alike, tmp_path, caplog
):
    index = data.ImageIndex()
    images = data.load_folder(alike, 8, index=index)
    index.check_unchanged(images)
    assert "the record of these is missing or damaged" in caplog.text
    index.write(tmp_path / "images.json")
    change(alike)
    index = data.ImageIndex.read(tmp_path / "images.json")
    images = data.load_folder(alike, 8, index=index)
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
     '{"a": [1, 2, 3, 4, 5, 6, false, 7]}'],
)  # fmt: skip
def test_damaged_index_is_ignored(content, tmp_path, caplog):
    (tmp_path / "images.json").write_text(content)
    index = data.ImageIndex.read(tmp_path / "images.json")
    assert index.get(tmp_path / "images.json") is None
    assert "is damaged: images are checked again" in caplog.text
