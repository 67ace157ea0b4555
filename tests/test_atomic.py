"""Files that are complete or not there, and paths that are not local."""

import errno
import os
import pathlib

import pytest

from keras_mixer import arguments
from keras_mixer import atomic


def write_file(part):
    part.write_text("new")


def write_folder(part):
    part.mkdir()
    (part / "file").write_text("new")


def content(path):
    return path.read_text() if path.is_file() else (path / "file").read_text()


@pytest.mark.parametrize("write", [write_file, write_folder])
@pytest.mark.parametrize("exists", [False, True])
def test_replaces_files_and_folders(tmp_path, write, exists):
    path = tmp_path / "run.keras"
    if exists:
        write(path)
        os.utime(path, (1, 1))
    with atomic.replacing(path) as part:
        assert part.suffix == ".keras"
        write(part)
        assert exists == path.exists()
    assert content(path) == "new"
    assert path.stat().st_mtime > 1
    assert os.listdir(tmp_path) == ["run.keras"]


def write_and_fail(path, write, error):
    with atomic.replacing(path) as part:
        write(part)
        raise error


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_an_error_leaves_everything_as_it_was(tmp_path, write):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(KeyError):
        write_and_fail(path, write, KeyError())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_an_error_of_the_disk_names_the_file(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device", "part")
    with pytest.raises(OSError, match=r"a\.json' could not be written: No spa"):
        write_and_fail(tmp_path / "a.json", write_file, error)
    assert os.listdir(tmp_path) == []


def test_a_file_does_not_replace_a_folder(tmp_path):
    write_folder(tmp_path / "photos")
    message = "photos' could not be written: Is a directory"
    with (
        pytest.raises(OSError, match=message),
        atomic.replacing(tmp_path / "photos") as part,
    ):
        write_file(part)
    assert content(tmp_path / "photos") == "new"
    assert os.listdir(tmp_path) == ["photos"]


def test_folders_that_cannot_be_opened_are_written_to(tmp_path, monkeypatch):
    """As on Windows."""
    opened = os.open

    def open_file(path, flags):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags)

    monkeypatch.setattr(os, "open", open_file)
    with atomic.replacing(tmp_path / "a.json") as part:
        write_file(part)
    assert content(tmp_path / "a.json") == "new"


@pytest.mark.parametrize(
    "path",
    ["gs://bucket/a", "s3://b/a", "https://host/a.npz", "file:///tmp/a"],
)
@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_addresses_are_not_paths(path, kind):
    with pytest.raises(ValueError, match="must be a path on this machine"):
        arguments.check_local_path("output", kind(path))


@pytest.mark.parametrize("path", ["C:\\a", "C:/a", "a/b:/c", "./a", None, b"a"])
def test_paths_are_paths(path):
    arguments.check_local_path("output", path)
