"""Checks zip archives before their content is used.

`.npz`, `.keras` and PyTorch files are zip archives. A zip archive can contain a
name twice, declare a thousand times the size that it stores, or contain a path
outside its folder. Python's `zipfile` does not detect these problems. It checks
the CRC-32 of each file that it reads. It can decompress more bytes than the
archive declares; `read` limits this.
"""

import contextlib
import pathlib
import zipfile

from keras_mixer.weights.errors import WeightsError

# For `formats.File.checksum`.
CHECKSUM = "CRC-32 of each array"

# The first bytes of an archive with files, and of an empty archive.
SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")

# Largest accepted compression ratio. Floating-point weights compress much less;
# a zip bomb compresses much more.
MAX_RATIO = 20


@contextlib.contextmanager
def open_archive(path):
    """Opens the archive at `path` after checking its list of files."""
    with zipfile.ZipFile(path) as archive:
        _check(archive, pathlib.Path(path).stat().st_size)
        yield archive


def _check(archive, size):
    names = set()
    for info in archive.infolist():
        name = info.filename
        path = pathlib.PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise WeightsError(f"the name {name!r} leads outside the archive")
        if name.lower() in names:
            raise WeightsError(f"it contains {name!r} twice")
        names.add(name.lower())
        # Other methods can expand without limit, and are not used for weights.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsError(f"{name!r} in it has an unsupported compression")
        is_stored = info.compress_type == zipfile.ZIP_STORED
        if is_stored and info.compress_size != info.file_size:
            raise WeightsError(
                f"{name!r} in it declares {info.file_size} bytes, but stores "
                f"{info.compress_size}"
            )
    declared = sum(info.file_size for info in archive.infolist())
    if declared > MAX_RATIO * size:
        raise WeightsError(
            f"it declares {declared} bytes of content, but has {size} bytes"
        )


def read(archive, info):
    """Returns the content of a file in an archive; checks its CRC-32."""
    with archive.open(info) as file:
        return file.read(info.file_size)  # not more than declared


def check_content(archive, infos):
    """Reads files in an archive only to check their CRC-32."""
    for info in infos:
        with archive.open(info) as file:
            while file.read(2**20):
                pass
