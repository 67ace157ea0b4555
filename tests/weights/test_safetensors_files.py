"""Tests that damaged and hostile `.safetensors` files are refused."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save

from support import damages
from support.damages import ARRAYS

NAME = "stem.proj.bias"  # 10 numbers


@pytest.mark.parametrize(
    ("suffix", "allowed"),
    [
        (".safetensors", damages.SAME_BITS),
        ("_plain.safetensors", damages.SAME_SHAPES),
    ],
)
@damages.COUNTS
def test_damaged_files_are_refused(good, tmp_path, suffix, allowed, count):
    data = good[suffix]
    (size,) = struct.unpack_from("<Q", data)
    places = [*range(8 + size), *[*range(8)] * 20]
    damages.check(
        tmp_path,
        ".safetensors",
        data,
        [
            *damages.damaged(data, places, count, allowed),
            *lies(data),
            *damages.of_another_kind(good, ".safetensors"),
        ],
    )


def split(data):
    (size,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(header, data):
    if not isinstance(header, (bytes, str)):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header)) + header + data


def lies(good):
    header, data = split(good)
    for size in (0, 1, 7, 10**5, 10**8, 2**31, 2**32, 2**62, 2**63, 2**64 - 1):
        yield f"length {size}", struct.pack("<Q", size) + good[8:]
    note = header.pop("__metadata__", {})
    arrays = {
        key: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(
            entry["shape"]
        )
        for key, entry in header.items()
    }
    for missing in arrays:
        rest = {key: value for key, value in arrays.items() if key != missing}
        yield f"without {missing}", save(rest, note)
    for more in ("optimizer.m", "blocks.2.norm1.weight", "blocks.norm", "é"):
        yield f"with {more}", save(arrays | {more: arrays[NAME]}, note)
    for array in ARRAYS:
        if array.dtype.kind in "iuf?" or array.dtype == "c8":
            received = save(arrays | {NAME: array}, note)
            yield f"holds {array.dtype} {array.shape}", received
    yield "more data", good + bytes(40)
    yield "less data", good[:-40]
    yield "no data", good[: len(good) - len(data)]
    yield from headers(header | {"__metadata__": note}, data)
    yield from texts(header | {"__metadata__": note}, data)


def headers(header, data):
    entry = header[NAME]
    begin, end = entry["data_offsets"]
    changes = {
        "dtype": (
            *("F64", "F16", "BF16", "I32", "C64", "F8_E4M3", "X", "", 4, None),
        ),
        "shape": (
            *([10**12], [2**62, 4, 10], [2**63, 2], [2**64], [-10], [-2, -5]),
            *([10.0], ["10"], [None], 10, "10", None, {}, [[10]], [0], [11]),
            *([5, 3], [10, 2**64 - 1], [0, 2**63]),
        ),
        "data_offsets": (
            *([begin, end + 4], [begin - 4, end], [begin + 4, end + 4]),
            *([end, begin], [0, 40], [-40, 0], [len(data), len(data) + 40]),
            *([2**63, 2**63 + 40], [2**64 - 40, 2**64], [begin]),
            *([begin, end, end], [], None, "0", [0.0, 40]),
        ),
    }
    for key, values in changes.items():
        for value in values:
            lie = header | {NAME: entry | {key: value}}
            yield f"{key} {value}", join(lie, data)


def texts(header, data):
    begin, end = header[NAME]["data_offsets"]
    twice = json.dumps({NAME: header[NAME]})[1:-1]
    whole = json.dumps(header)
    escaped = twice.replace("stem", "\\u0073tem", 1)
    for label, text in (
        ("twice", f"{whole[:-1]}, {twice}}}"),
        ("twice, first", f"{{{twice}, {whole[1:]}"),
        ("twice, escaped", f"{whole[:-1]}, {escaped}}}"),
        ("shape twice", whole.replace('"shape"', '"shape": [10], "shape"', 1)),
        ("lists", "[" * 100_000),
        ("lists closed", "[" * 10_000 + "]" * 10_000),
        ("dictionaries", '{"a":' * 100_000 + "1" + "}" * 100_000),
        ("deep note", '{"__metadata__":' + "[" * 5000 + "]" * 5000 + "}"),
        ("no JSON", "weights" + whole),
        ("cut JSON", whole[:-1]),
        ("a list", "[]"),
        ("a number", "1"),
        ("nothing", "{}"),
        ("two", whole + whole),
        ("NaN", whole.replace(f"[{begin}, {end}]", f"[NaN, {end}]")),
        ("zeros", "\0" * 500),
    ):
        yield f"header {label}", join(text, data)
    for bits in (b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\\ud800"):
        text = whole.encode().replace(NAME.encode(), bits)
        yield f"named {bits}", join(text, data)
