"""Refuses HDF5 files on which libhdf5 hangs, and incomplete files.

Two parts of a file are checked: the superblock, and the global heaps, which
contain the names of the layers. A few wrong bytes there are enough to make
libhdf5 hang or accept an incomplete file.

libhdf5 1.14.6 (in h5py 3.14) hangs if an object in a heap has the size 0. We
did not find an upstream report of this bug. Delete this module when
test_keras_files.py passes without it.
"""

import struct

from keras_mixer.weights.errors import WeightsError


def check(content):
    """Checks the bytes of an HDF5 file.

    Args:
        content: `bytes`, `bytearray` or `mmap.mmap`.

    Raises:
        WeightsError: If the file is damaged, or was not written by Keras.
    """
    _check_superblock(content)
    _check_heaps(content)


# For each version of the superblock, the positions of: the sizes of addresses
# and lengths, the base address, and the address of the end of the file.
_SUPERBLOCKS = {
    0: (13, 24, 40),
    1: (13, 28, 44),
    2: (9, 12, 28),
    3: (9, 12, 28),
}
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def _check_superblock(content):
    if content[:8] != SIGNATURE or content[8] not in _SUPERBLOCKS:
        raise WeightsError("it is not an HDF5 file written by Keras")
    sizes, base, end = _SUPERBLOCKS[content[8]]
    addresses = [
        int.from_bytes(content[at : at + 8], "little") for at in (base, end)
    ]
    if content[sizes : sizes + 2] != b"\x08\x08" or addresses[0] != 0:
        raise WeightsError("it is not an HDF5 file written by Keras")
    if addresses[1] != len(content):
        raise WeightsError(
            f"it declares {addresses[1]} bytes, but has {len(content)}"
        )


# Signature and version. Three reserved bytes follow.
_HEAP = b"GCOL\x01"
_HEAP_HEADER = _OBJECT_HEADER = 16


def _check_heaps(content):
    """Refuses a global heap if its objects do not fill it exactly.

    libhdf5 adds the sizes of the objects to go from one to the next. If a size
    is 0 or near 2**64, it loops forever.
    """
    at = content.find(_HEAP)
    while at >= 0:
        _check_heap(content, at)
        at = content.find(_HEAP, at + 1)


def _check_heap(content, start):
    size = int.from_bytes(content[start + 8 : start + 16], "little")
    at, end = start + _HEAP_HEADER, start + size
    if end > len(content):
        return  # libhdf5 refuses it; or these bytes are not a heap
    is_whole = True
    while is_whole and end - at >= _OBJECT_HEADER:
        index, _, _, size = struct.unpack_from("<HHIQ", content, at)
        # Object 0 is the free space. Its size includes its header.
        needed = size + -size % 8 + _OBJECT_HEADER if index else size
        is_whole = _OBJECT_HEADER <= needed <= end - at
        at += needed
    if not is_whole:
        raise WeightsError("the heap with its names is damaged")
