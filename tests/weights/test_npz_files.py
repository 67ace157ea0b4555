"""Tests that damaged and hostile `.npz` files are refused."""

import io
import pickle
import struct

import numpy as np

from support import damages
from support.damages import ARRAYS
from support.damages import zipped

NAME = "stem/bias.npy"  # 10 numbers


@damages.COUNTS
def test_damaged_files_are_refused(good, tmp_path, count):
    data = good[".npz"]
    places = damages.around(data, *damages.ZIP, b"\x93NUMPY", size=70)
    # The notes are at the end.
    places += [*range(len(data) - 150, len(data))]
    damages.check(
        tmp_path,
        ".npz",
        data,
        [
            *damages.damaged(data, places, count, damages.SAME_BITS),
            *lies(damages.unzipped(data), tmp_path),
            *damages.of_another_kind(good, ".npz"),
            ("pickle", pickle.dumps(damages.marking(tmp_path))),
            ("pickle of arrays", pickle.dumps({"a": np.zeros(3)})),
        ],
    )


def lies(entries, folder):
    yield from damages.odd_archives(entries, NAME, NAME)
    for missing in entries:
        rest = {key: value for key, value in entries.items() if key != missing}
        yield f"without {missing}", zipped(rest)
    for more in ("opt/m.npy", "stem/bias.npy.npy", "MixerBlock_2/x.npy", "a/"):
        yield f"with {more}", zipped(entries | {more: entries[NAME]})
    odd_name = "stem_bias.npy"
    for bits in (b"stem/bi\xff\xfe.npy", b"stem\x00bias.npy"):
        received = zipped(entries | {odd_name: entries[NAME]})
        bits = (bits + b".npy")[: len(odd_name)]
        yield f"named {bits}", received.replace(odd_name.encode(), bits)
    evil = damages.marking(folder)
    objects = [np.array([evil] * 10, object), np.array(evil, object)]
    for array in (*ARRAYS, *objects):
        received = zipped(entries | {NAME: npy(array)})
        yield f"holds {array.dtype.str} {array.shape}", received
    for header in HEADERS:
        received = zipped(entries | {NAME: raw_npy(header, bytes(40))})
        yield f"header {header}", received
    bomb = zipped(entries | {NAME: npy_bomb()}, only=NAME, compress_type=8)
    yield "swells behind a header", bomb
    for version in (b"\x00\x00", b"\x02\x00", b"\x03\x00", b"\xff\xff"):
        received = entries[NAME][:6] + version + entries[NAME][8:]
        yield f"version {version}", zipped(entries | {NAME: received})
    received = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{" * 99
    yield "long header", zipped(entries | {NAME: received})
    yield "pickled", zipped(entries | {NAME: pickle.dumps(evil)})


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def raw_npy(header, data):
    header = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def npy_header(shape, descr="'<f4'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n"


def npy_bomb():
    """Returns a deflated array that expands beyond its declared size."""
    behind = damages.BOMB + bytes(-(5 + len(damages.BOMB)) % 4)
    head = raw_npy(npy_header(f"({(5 + len(behind)) // 4},)"), b"")
    # A block without compression: 5 bytes, and the header.
    return struct.pack("<BHH", 0, len(head), 0xFFFF ^ len(head)) + head + behind


HEADERS = [
    *(
        npy_header(shape)
        for shape in (
            *("(10**12,)", "(1000000000000,)", "(-10,)", "(-2, -5)", "(-1,)"),
            "(4294967296, 4294967296)",
            "(9223372036854775807, 9223372036854775807, 4)",
            "(4611686018427387904, 4, 10)",
            f"({'9' * 5000},)",
            *("10", "(10.0,)", "('10',)", "(None,)", "[10]", "(True, 10, 0)"),
            *("__import__('os')", "(1,) * 10", "(" + "-" * 8000 + "1,)"),
            "(" * 4000 + ")" * 4000,
        )
    ),
    *(
        npy_header("(10,)", descr)
        for descr in (
            *("'|O'", "'<f4,<f4'", "'(1000000,1000000)<f4'", "'<f16'"),
            "[('a', '<f4', (1000000, 1000000))]",
            *("[('a', '|O')]", "'<f99'", "'<i4'", "4", "None"),
        )
    ),
    *("{}", "[]", "", "{" * 2000, "{'shape': (10,), 'descr': '<f4'}"),
    npy_header("(10,)").replace("False", "None"),
    npy_header("(10,)").replace("{", "{'more': 1, "),
]
