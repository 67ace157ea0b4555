"""Zip archives, before anything in them is used.

`.npz`, `.keras` and PyTorch's files are zip archives. A zip archive can name a
file twice, declare a thousand times what it stores, or name a path outside of
its folder. Python's `zipfile` notices none of that. It does check the CRC-32 of
each file that it reads. It decompresses a file beyond the size that the archive
declares; `read` does not.
"""

import contextlib
import pathlib
import zipfile

from keras_mixer.weights.errors import WeightsError

# How the content of an archive is protected, for `formats.File`.
CHECKSUM = "CRC-32 of each array"

# The first bytes of an archive with files in it, and of an empty one.
SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")

# Floating-point weights hardly compress: beyond this it is a bomb.
MAX_RATIO = 20


@contextlib.contextmanager
def open_archive(path):
    """Opens the archive at `path`, once its list of files is in order."""
    with zipfile.ZipFile(path) as archive:
        _check(archive, pathlib.Path(path).stat().st_size)
        yield archive


def _check(archive, size):
    names = set()
    for info in archive.infolist():
        name = info.filename
        path = pathlib.PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise WeightsError(f"the name {name!r} in it leads out of it")
        if name.lower() in names:
            raise WeightsError(f"it holds {name!r} twice")
        names.add(name.lower())
        # Others swell without limit, and nobody saves weights with them.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsError(f"{name!r} in it is compressed in an odd way")
        is_stored = info.compress_type == zipfile.ZIP_STORED
        if is_stored and info.compress_size != info.file_size:
            raise WeightsError(
                f"{name!r} in it declares {info.file_size} bytes and stores "
                f"{info.compress_size}"
            )
    declared = sum(info.file_size for info in archive.infolist())
    if declared > MAX_RATIO * size:
        raise WeightsError(
            f"it declares {declared} bytes of content, and has {size} bytes"
        )


def read(archive, info):
    """The content of a file in an archive, with its CRC-32 checked."""
    with archive.open(info) as file:
        return file.read(info.file_size)  # unbounded, it swells first


def check_content(archive, infos):
    """Reads files in an archive to check their CRC-32, and keeps nothing."""
    for info in infos:
        with archive.open(info) as file:
            while file.read(2**20):
                pass
