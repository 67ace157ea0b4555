"""Refuses HDF5 files that libhdf5 would hang on, or would read cut short.

Two places are checked, in which a few changed bytes do that: the superblock,
and the global heaps, which hold the names of the layers.

libhdf5 1.14.6 (in h5py 3.14) does not return from reading a heap in which an
object has the size 0. We found no report of that upstream. Delete this module
when test_hostile.py passes without it.
"""

import struct

from keras_mixer.weights.errors import WeightsError


def check(content):
    """Checks the bytes of an HDF5 file.

    Args:
        content: Bytes, or what gives bytes without reading them all.

    Raises:
        WeightsError: If it is damaged, or not as Keras writes it.
    """
    _check_superblock(content)
    _check_heaps(content)


# By version of the superblock: where it has the sizes of an address and of a
# length, the address that others count from, and that of the file's end.
_SUPERBLOCKS = {
    0: (13, 24, 40),
    1: (13, 28, 44),
    2: (9, 12, 28),
    3: (9, 12, 28),
}
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def _check_superblock(content):
    if content[:8] != SIGNATURE or content[8] not in _SUPERBLOCKS:
        raise WeightsError("it is no HDF5 file that Keras has written")
    sizes, base, end = _SUPERBLOCKS[content[8]]
    addresses = [
        int.from_bytes(content[at : at + 8], "little") for at in (base, end)
    ]
    if content[sizes : sizes + 2] != b"\x08\x08" or addresses[0] != 0:
        raise WeightsError("it is no HDF5 file that Keras has written")
    if addresses[1] != len(content):
        raise WeightsError(
            f"it declares {addresses[1]} bytes and has {len(content)}"
        )


# Version 1, and three bytes that say nothing.
_HEAP = b"GCOL\x01"
_HEAP_HEADER = _OBJECT_HEADER = 16


def _check_heaps(content):
    """Refuses global heaps whose objects do not lead to the heap's end.

    libhdf5 goes from object to object by their sizes, and an object of no size
    (or one near 2**64) keeps it there for good.
    """
    at = content.find(_HEAP)
    while at >= 0:
        _check_heap(content, at)
        at = content.find(_HEAP, at + 1)


def _check_heap(content, start):
    size = int.from_bytes(content[start + 8 : start + 16], "little")
    at, end = start + _HEAP_HEADER, start + size
    if end > len(content):
        return  # refused by libhdf5; or these bytes are those of numbers
    is_whole = True
    while is_whole and end - at >= _OBJECT_HEADER:
        index, _, _, size = struct.unpack_from("<HHIQ", content, at)
        # The object 0 is the free space, and counts its header.
        needed = size + -size % 8 + _OBJECT_HEADER if index else size
        is_whole = _OBJECT_HEADER <= needed <= end - at
        at += needed
    if not is_whole:
        raise WeightsError("its heap of names is damaged")
