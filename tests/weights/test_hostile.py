"""Tests that hostile and damaged weights files are refused without changes.

Several hundred bad files are made for each format. A seeded generator adds
random damage to good files, mostly to the structure of the file. Other files
have invalid content that was written by hand. A separate process reads the
files. It can use 10 seconds per file and 1 GB of additional memory. If it
crashes, the test fails.

A file must be refused, or the damage must not change any weight. A flipped bit
in the values is detected in some formats only:

- It is detected in `.npz`, `.keras` and `.pth` files, which are zip archives
  with a CRC-32 of each file, and in `.safetensors` files of this package, which
  have a checksum. It is not detected in a `.keras` file that contains a damaged
  HDF5 file with a new CRC-32.
- It is not detected in `.safetensors` files of other programs, `.weights.h5`
  files, and `.pth` files of PyTorch before 1.6. They do not have a checksum.
  Names and shapes must still be correct.
"""

import support  # noqa: F401  # isort: skip  (it imports PyTorch first)

import argparse
import io
import itertools
import json
import os
import pathlib
import pickle
import pickletools
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from collections import OrderedDict

import h5py
import keras
import numpy as np
import pytest
import torch
from safetensors.numpy import save as safetensors

import keras_mixer
from keras_mixer.models.anatomy import weights_of
from keras_mixer.weights import assigning
from keras_mixer.weights import loading
from keras_mixer.weights.errors import WeightsError
from support import helpers

SECONDS = 10
MEMORY = 2**30
AT_LEAST = 300  # files of each format that must be refused

# Allowed results for a file that is not refused.
NOTHING = "nothing"
SAME_BITS = "the same bits"
SAME_SHAPES = "the same names and shapes"


# The process that reads the files.


def read_all(folder):
    """Loads the files of a folder into a model; prints each result."""
    folder = pathlib.Path(folder)
    model = keras_mixer.Mixer(
        **helpers.SIZES, input_shape=helpers.IMAGE, classes=helpers.CLASSES
    )
    good = helpers.randomise(model)
    before = helpers.randomise(model, seed=9)
    cases = json.loads((folder / "cases.json").read_text())
    for name, _ in cases[:1]:  # triggers late imports
        assert load(model, folder / name) == "loaded"
        reset(model, before)
    limit = MEMORY + used_memory()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for name, allowed in cases:
        signal.alarm(SECONDS)  # ends the process by default
        start = time.monotonic()
        outcome = load(model, folder / name)
        seconds = time.monotonic() - start
        signal.alarm(0)
        weights = weights_of(model)
        if outcome == "loaded":
            if allowed == NOTHING or not is_same(weights, good, allowed):
                outcome = f"loaded, but only {allowed} is allowed"
            reset(model, before)
        elif not is_same(weights, before, SAME_BITS):
            outcome = "the model has changed"
        print(json.dumps([name, outcome, seconds]), flush=True)


def load(model, path):
    """Loads a file in the same way as the model constructors."""
    grid = (
        helpers.IMAGE[0] // helpers.SIZES["patch_size"],
        helpers.IMAGE[1] // helpers.SIZES["patch_size"],
    )
    try:
        checkpoint = loading.open_weights(path, "mixer", True)
        plan = loading.plan(checkpoint, grid, None)
        loading.load(checkpoint, plan, model.layers, helpers.IMAGE[2])
    except WeightsError as error:
        message = str(error)
        if not message.startswith(f"Cannot load '{path}'"):
            return f"refused as: {message}"
        # Advice to run code from a file must include a warning.
        is_warned = "if you trust" in message
        return (
            "refused" if is_warned or "weights_only" not in message else message
        )
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "loaded"


def used_memory():
    pages, *_ = pathlib.Path("/proc/self/statm").read_text().split()
    return int(pages) * resource.getpagesize()


def reset(model, arrays):
    for path, variable in loading.variables_of(model.layers).items():
        variable.assign(arrays[path])


def is_same(weights, arrays, what):
    if what == SAME_SHAPES:
        return assigning.shapes(weights) == assigning.shapes(arrays)
    return weights.keys() == arrays.keys() and all(
        weights[path].tobytes() == array.tobytes()
        for path, array in arrays.items()
    )


# Good files, and functions for all formats.


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Returns `{suffix: bytes}` of good files with the same weights."""
    keras.utils.set_random_seed(7)
    folder = tmp_path_factory.mktemp("good")
    model = keras_mixer.Mixer(
        **helpers.SIZES, input_shape=helpers.IMAGE, classes=helpers.CLASSES
    )
    helpers.randomise(model)
    for suffix in (".npz", ".safetensors"):
        keras_mixer.export_weights(model, folder / f"good{suffix}")
    model.save_weights(folder / "good.weights.h5")
    model.save(folder / "good.keras")
    files = {
        path.name.removeprefix("good"): path.read_bytes()
        for path in folder.iterdir()
    }
    files["_plain.safetensors"] = without_checksum(files[".safetensors"])
    state = torch_state(files)
    for suffix, is_zip in ((".pth", True), ("_legacy.pth", False)):
        files[suffix] = saved_by_torch(state, is_zip)
    return files


def without_checksum(data):
    header, data = split_safetensors(data)
    del header["__metadata__"]["keras_mixer sha256"]
    return join_safetensors(header, data)


def extension(suffix):
    """Returns the file name extension, such as ".pth" of "_legacy.pth"."""
    return suffix[suffix.index(".") :]


def torch_state(good):
    path = io.BytesIO(good[".safetensors"])
    header, data = split_safetensors(path.getvalue())
    del header["__metadata__"]
    return OrderedDict(
        (
            name,
            torch.frombuffer(
                bytearray(data[slice(*entry["data_offsets"])]),
                dtype=torch.float32,
            ).reshape(entry["shape"]),
        )
        for name, entry in header.items()
    )


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self._command = command

    def __reduce__(self):
        return os.system, (self._command,)


class Makes:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments, items=None):
        self._made = function, arguments, None, None, items

    def __reduce__(self):
        return self._made


def marking(folder):
    return Runs(f"touch '{folder / 'executed'}'")


def test_code_in_the_files_works(tmp_path):
    assert pickle.loads(pickle.dumps(marking(tmp_path))) == 0
    assert (tmp_path / "executed").exists()


INTEGERS = [
    number.to_bytes(8, "little")
    for number in (
        0,
        1,
        2**16,
        2**31,
        2**32 - 1,
        10**12,
        2**62,
        2**63,
        2**64 - 1,
    )
]


def damaged(data, places, count, seed):
    """Yields `count` labels and copies of `data` with random damage.

    Args:
        data: The bytes of a good file.
        places: Where the structure of the file is; most damage is there.
    """
    rng = random.Random(seed)
    for i in range(count):
        if i % 6 == 0:
            # Truncated at evenly spaced places; the last file by one byte.
            end = len(data) - 1 - (len(data) - 1) * i // count
            yield f"cut{i}", data[:end]
            continue
        kind = rng.choice(DAMAGE)
        at, other = (
            rng.choice(places)
            if rng.random() < 0.8
            else rng.randrange(len(data))
            for _ in range(2)
        )
        received = bytes(kind(bytearray(data), at, other, rng))
        if received != data:
            yield f"{kind.__name__}{i}", received


def flip(data, at, _, rng):
    data[at] ^= 1 << rng.randrange(8)
    return data


def flip_many(data, at, _, rng):
    for i in range(at, min(at + 40, len(data))):
        if rng.random() < 0.2:
            data[i] ^= 1 << rng.randrange(8)
    return data


def zero(data, at, _, rng):
    end = min(at + rng.randrange(1, 64), len(data))
    data[at:end] = bytes(end - at)
    return data


def lie(data, at, _, rng):
    size = rng.choice([2, 4, 8])
    at -= at % size
    data[at : at + size] = rng.choice(INTEGERS)[:size][: len(data) - at]
    return data


def remove(data, at, _, rng):
    del data[at : at + rng.randrange(1, 300)]
    return data


def insert(data, at, _, rng):
    data[at:at] = rng.randbytes(rng.randrange(1, 300))
    return data


def repeat(data, at, _, rng):
    data[at:at] = data[at : at + rng.randrange(1, 300)]
    return data


def swap(data, at, other, rng):
    at, other = sorted((at, other))
    size = rng.randrange(1, 64)
    first, second = data[at : at + size], data[other : other + size]
    if at + size <= other:
        data[other : other + size], data[at : at + size] = first, second
    return data


DAMAGE = [flip, flip, flip_many, zero, lie, remove, insert, repeat, swap]


def around(data, *signatures, size=46):
    """Returns the positions after each occurrence of the signatures."""
    pattern = b"|".join(map(re.escape, signatures))
    return [
        place
        for found in re.finditer(pattern, data)
        for place in range(found.start(), found.start() + size)
        if place < len(data)
    ]


ZIP = (
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"PK\x06\x07",
)


def of_another_kind(good, suffix):
    """Yields files that have another format."""
    yield "empty", b""
    yield "byte", b"\x00"
    yield "zeros", bytes(5000)
    yield "text", b"these are not weights\n" * 50
    yield "page", b"<!DOCTYPE html><title>Not found</title>"
    yield "archive", zipped({})
    yield "other archive", zipped({"a.txt": b"text"})
    for other, data in good.items():
        if extension(other) != extension(suffix):
            yield f"as{other}", data


def zipped(entries, compression=zipfile.ZIP_STORED, only=None, **lies):
    """Returns an archive of `{name: bytes}` or of pairs, with wrong headers.

    The wrong values `lies` are set for the file `only`, or for all files.
    """
    pairs = entries.items() if isinstance(entries, dict) else entries
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # about duplicate names
        for name, data in pairs:
            archive.writestr(name, data, compression)
        for info in archive.infolist():  # the directory is written last
            if only in (None, info.filename):
                for key, value in lies.items():
                    setattr(info, key, value)
    return file.getvalue()


def bomb():
    """Returns deflated data that expands to 2 GB of zeros."""
    deflate = zlib.compressobj(9, wbits=-15)
    part = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return part * 2048 + deflate.flush()


BOMB = bomb()


def unzipped(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def odd_archives(entries, name, with_evil_name):
    """Yields archives in which `name` or a second file is unusual."""
    pairs = list(entries.items())
    yield "twice", zipped([*pairs, (name, entries[name])])
    yield (
        "twice, different",
        zipped([*pairs, (name, entries[name][:-1] + b"?")]),
    )
    for evil in (
        "../{}",
        "/tmp/{}",
        "a/../../{}",
        "..\\{}",
        "C:\\{}",
        "a\\..\\{}",
    ):
        evil = evil.format(with_evil_name)
        yield f"leads out {len(evil)}", zipped([*pairs, (evil, entries[name])])
        yield f"leads out alone {len(evil)}", zipped({evil: entries[name]})
    deflated = zipfile.ZIP_DEFLATED
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield f"compressed {compression}", zipped(entries, compression)
        yield (
            f"swells {compression}",
            zipped(entries | {name: bytes(10**6)}, compression),
        )
    yield "swells", zipped(entries | {name: bytes(10**7)}, deflated)
    bomb = zipped(entries | {name: BOMB}, only=name, compress_type=deflated)
    yield "swells unseen", bomb
    yield "stored, it says", zipped(entries, deflated, compress_type=0)
    yield "deflated, it says", zipped(entries, compress_type=deflated)
    yield "compressed unknown", zipped(entries, compress_type=99)
    yield "encrypted", zipped(entries, flag_bits=1)
    yield "encrypted strongly", zipped(entries, flag_bits=0x41)
    yield "of a later version", zipped(entries, extract_version=99)
    for size in (0, 1, 10**6, 2**31, 2**40, 2**63):
        yield f"declares {size}", zipped(entries, file_size=size)
    yield "stores", zipped(entries, compress_size=2**40)
    yield "wrong checksum", zipped(entries, CRC=1)
    for offset in (1, 2**20, 2**40):
        yield f"elsewhere {offset}", zipped(entries, header_offset=offset)


# Bad files of each format. The generators yield a label, the bytes, and the
# allowed result if the file is not refused.


def npz_files(good, folder):
    data = good[".npz"]
    for label, received in damaged(
        data, around(data, *ZIP, b"\x93NUMPY", size=70), 330, "npz"
    ):
        yield label, received, SAME_BITS
    yield from never(npz_lies(unzipped(data), folder))
    yield from never(of_another_kind(good, ".npz"))
    yield "pickle", pickle.dumps(marking(folder)), NOTHING
    yield "pickle of arrays", pickle.dumps({"a": np.zeros(3)}), NOTHING


def never(files):
    for label, data in files:
        yield label, data, NOTHING


def npz_lies(entries, folder):
    name = "stem/bias.npy"  # 10 numbers
    yield from odd_archives(entries, name, name)
    for missing in entries:
        rest = {key: value for key, value in entries.items() if key != missing}
        yield f"without {missing}", zipped(rest)
    for more in ("opt/m.npy", "stem/bias.npy.npy", "MixerBlock_2/x.npy", "a/"):
        yield f"with {more}", zipped(entries | {more: entries[name]})
    for bits in (b"stem/bi\xff\xfe.npy", b"stem\x00bias.npy"):
        received = zipped(entries | {"stem_bias.npy": entries[name]})
        yield (
            f"named {bits}",
            received.replace(
                b"stem_bias.npy", (bits + b".npy")[: len("stem_bias.npy")]
            ),
        )

    def with_array(array):
        return zipped(entries | {name: npy(array)})

    for array in ARRAYS:
        yield f"holds {array.dtype.str} {array.shape}", with_array(array)
    evil = np.array([marking(folder)] * 10, object)
    yield "holds objects", with_array(evil)
    yield "holds an object", with_array(np.array(marking(folder), object))
    for header in NPY_HEADERS:
        received = raw_npy(header, bytes(40))
        yield f"header {header[:60]}", zipped(entries | {name: received})
    bomb = zipped(entries | {name: npy_bomb()}, only=name, compress_type=8)
    yield "swells behind a header", bomb
    for version in (b"\x00\x00", b"\x02\x00", b"\x03\x00", b"\xff\xff"):
        received = entries[name][:6] + version + entries[name][8:]
        yield f"version {version}", zipped(entries | {name: received})
    received = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{" * 99
    yield "long header", zipped(entries | {name: received})
    yield "pickled", zipped(entries | {name: pickle.dumps(marking(folder))})


# For a vector of 10 numbers.
ARRAYS = [
    *(
        np.ones(10, dtype)
        for dtype in (
            *("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"),
            *("c8", "c16", "S4", "U4", "V4", "M8[s]", "f4,f4"),
        )
    ),
    *(
        np.ones(shape, "f4")
        for shape in [
            (),
            (0,),
            (9,),
            (11,),
            (2, 5),
            (10, 2),
            (2, 10),
            (10, 0),
            (2,) * 4,
        ]
    ),
]


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
    behind = BOMB + bytes(-(5 + len(BOMB)) % 4)
    head = raw_npy(npy_header(f"({(5 + len(behind)) // 4},)"), b"")
    # A block without compression: 5 bytes, and the header.
    return struct.pack("<BHH", 0, len(head), 0xFFFF ^ len(head)) + head + behind


NPY_HEADERS = [
    *(
        npy_header(shape)
        for shape in (
            "(10**12,)",
            "(1000000000000,)",
            "(-10,)",
            "(-2, -5)",
            "(-1,)",
            "(4294967296, 4294967296)",
            "(9223372036854775807, 9223372036854775807, 4)",
            "(4611686018427387904, 4, 10)",
            f"({'9' * 5000},)",
            "10",
            "(10.0,)",
            "('10',)",
            "(None,)",
            "[10]",
            "(True, 10, 0)",
            "__import__('os')",
            "(1,) * 10",
            "(" + "-" * 8000 + "1,)",
            "(" * 4000 + ")" * 4000,
        )
    ),
    *(
        npy_header("(10,)", descr)
        for descr in (
            "'|O'",
            "'<f4,<f4'",
            "'(1000000,1000000)<f4'",
            "[('a', '<f4', (1000000, 1000000))]",
            "[('a', '|O')]",
            "'<f16'",
            "'<f99'",
            "'<i4'",
            "4",
            "None",
        )
    ),
    "{}",
    "[]",
    "",
    "{" * 2000,
    "{'shape': (10,), 'descr': '<f4'}",
    npy_header("(10,)").replace("False", "None"),
    npy_header("(10,)").replace("{", "{'more': 1, "),
]


def safetensors_files(good, _):
    return safetensors_like(good, ".safetensors", SAME_BITS)


def plain_safetensors_files(good, _):
    return safetensors_like(good, "_plain.safetensors", SAME_SHAPES)


def safetensors_like(good, suffix, allowed):
    data = good[suffix]
    (size,) = struct.unpack_from("<Q", data)
    places = [*range(8 + size), *[*range(8)] * 20]
    for label, received in damaged(data, places, 380, "safetensors"):
        yield label, received, allowed
    yield from never(safetensors_lies(data))
    yield from never(of_another_kind(good, suffix))


def split_safetensors(data):
    (size,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join_safetensors(header, data):
    if not isinstance(header, (bytes, str)):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header)) + header + data


def safetensors_lies(good):
    header, data = split_safetensors(good)
    name = "stem.proj.bias"  # 10 numbers
    for size in (0, 1, 7, 10**5, 10**8, 2**31, 2**32, 2**62, 2**63, 2**64 - 1):
        yield f"length {size}", struct.pack("<Q", size) + good[8:]
    arrays = {
        key: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(
            entry["shape"]
        )
        for key, entry in header.items()
        if key != "__metadata__"
    }
    note = header["__metadata__"]
    yield from (
        (
            f"without {missing}",
            safetensors(
                {k: v for k, v in arrays.items() if k != missing}, note
            ),
        )
        for missing in arrays
    )
    for more in (
        "optimizer.m",
        "blocks.2.norm1.weight",
        "blocks.norm",
        "",
        "é",
    ):
        received = safetensors(arrays | {more: arrays[name]}, note)
        yield f"with {more}", received
    for array in ARRAYS:
        if array.dtype.kind in "iuf?" or array.dtype == "c8":
            received = safetensors(arrays | {name: array}, note)
            yield f"holds {array.dtype} {array.shape}", received
    yield "more data", good + bytes(40)
    yield "less data", good[:-40]
    yield "no data", good[: len(good) - len(data)]
    yield from safetensors_headers(header, data, name)


def safetensors_headers(header, data, name):
    entry = header[name]
    begin, end = entry["data_offsets"]
    for dtype in (
        "F64",
        "F16",
        "BF16",
        "I32",
        "C64",
        "F8_E4M3",
        "X",
        "",
        4,
        None,
    ):
        lie = header | {name: entry | {"dtype": dtype}}
        yield f"dtype {dtype}", join_safetensors(lie, data)
    for shape in (
        *([10**12], [2**62, 4, 10], [2**63, 2], [2**64], [-10], [-2, -5]),
        *(
            [10.0],
            ["10"],
            [None],
            10,
            "10",
            None,
            {},
            [[10]],
            [0],
            [11],
            [5, 3],
        ),
        *([10, 2**64 - 1], [0, 2**63]),
    ):
        lie = header | {name: entry | {"shape": shape}}
        yield f"shape {shape}", join_safetensors(lie, data)
    for offsets in (
        *(
            [begin, end + 4],
            [begin - 4, end],
            [begin + 4, end + 4],
            [end, begin],
        ),
        *([0, 40], [-40, 0], [len(data), len(data) + 40], [2**63, 2**63 + 40]),
        *(
            [2**64 - 40, 2**64],
            [begin],
            [begin, end, end],
            [],
            None,
            "0",
            [0.0, 40],
        ),
    ):
        lie = header | {name: entry | {"data_offsets": offsets}}
        yield f"offsets {offsets}", join_safetensors(lie, data)
    twice = json.dumps({name: entry})[1:-1]
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
        yield f"header {label}", join_safetensors(text, data)
    for name_bytes in (b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\\ud800"):
        text = whole.encode().replace(b"stem.proj.bias", name_bytes)
        yield f"named {name_bytes}", join_safetensors(text, data)


def torch_files(good, folder):
    data = good[".pth"]
    entries = unzipped(data)
    for label, received in damaged(data, around(data, *ZIP), 250, "pth"):
        yield label, received, SAME_BITS
    pickled = entries["archive/data.pkl"]
    for label, received in damaged(pickled, range(len(pickled)), 120, "pickle"):
        # A new archive with a new checksum.
        received = zipped(entries | {"archive/data.pkl": received})
        yield f"pickle {label}", received, SAME_SHAPES
    yield from never(odd_archives(entries, "archive/data/0", "archive/data/0"))
    yield from never(odd_archives(entries, "archive/data.pkl", "archive/x"))
    yield from never(of_another_kind(good, ".pth"))
    for missing in entries:
        if "/data" in missing:
            rest = dict(entries)
            del rest[missing]
            yield f"without {missing}", zipped(rest), NOTHING
    yield from never(torch_lies(torch_state(good), folder, True))
    yield from beside(torch_state(good), True)
    for order in (b"big", b"", b"middle"):
        received = zipped(entries | {"archive/byteorder": order})
        yield f"byte order {order}", received, NOTHING
    for label, received in evil_pickles(folder):
        received = zipped(entries | {"archive/data.pkl": received})
        yield f"pickle {label}", received, NOTHING
    yield "pickle", pickle.dumps(marking(folder)), NOTHING


def legacy_files(good, folder):
    data = good["_legacy.pth"]
    # The numbers are at the end, with their count before each tensor. Tensors
    # are named and sorted by their address, so no two runs have the same file.
    numbers = sum(tensor.nbytes for tensor in torch_state(good).values())
    places = range(len(data) - numbers - 8 * 30)
    for label, received in damaged(data, places, 400, "legacy"):
        yield label, received, SAME_SHAPES
    yield from never(of_another_kind(good, "_legacy.pth"))
    yield from never(torch_lies(torch_state(good), folder, False))
    yield from beside(torch_state(good), False)
    yield "more data", data + bytes(40), NOTHING
    count = struct.pack("<q", 10)
    for lie in (0, 9, 11, 2**40, -1):
        received = data[::-1].replace(count[::-1], struct.pack(">q", lie), 1)
        yield f"stores {lie}", received[::-1], NOTHING
    received = data.replace(b"little_endian", b"LITTLE_ENDIAN")
    yield "unknown byte order", received, NOTHING


def beside(state, is_zip):
    """Yields files with unusual objects beside the weights."""
    for label, thing in (
        ("deep key", nested_tuples()),
        ("terabytes", Makes(bytearray, 2**40)),
        ("class", torch.nn.Linear),
    ):
        more = Makes(OrderedDict, items=iter([(thing, thing)]))
        saved = saved_by_torch({"state_dict": state, "more": more}, is_zip)
        yield f"{label} beside", saved, SAME_BITS


def nested_tuples():
    key = ()
    for _ in range(60):
        key = (key, key)  # hashing it takes 2**60 steps
    return key


def evil_pickles(folder):
    """Yields pickles that call functions with other instructions."""
    command = f"touch '{folder / 'executed'}'"
    for protocol in (0, 1, 3, 4, 5):
        yield f"protocol {protocol}", pickle.dumps(Runs(command), protocol)
    text = b"X" + struct.pack("<I", len(command)) + command.encode()
    for label, received in (
        ("INST", b"(" + text + b"ios\nsystem\n."),
        ("OBJ", b"(cos\nsystem\n" + text + b"o."),
        ("NEWOBJ_EX", b"cos\nsystem\n" + text + b"\x85}\x92."),
        ("EXT1", b"\x82\x01" + text + b"\x85R."),
        ("DUP", b"]" + b"2" * 1000 + b"."),
        ("POP", b"]0."),
    ):
        assert label in {o.name for o, _, _ in pickletools.genops(received)}
        yield label, b"\x80\x02" + received


def saved_by_torch(state, is_zip, edit=None):
    """Returns the bytes of `torch.save`, with `edit` applied to the pickle."""
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=is_zip)
    data = file.getvalue()
    if edit is None:
        return data
    if not is_zip:
        return edit(data)
    entries = unzipped(data)
    return zipped(
        entries | {"archive/data.pkl": edit(entries["archive/data.pkl"])}
    )


def torch_lies(state, folder, is_zip):
    name = "stem.proj.bias"  # 10 numbers

    def saved(value, edit=None):
        return saved_by_torch(value, is_zip, edit)

    for missing in state:
        rest = {key: value for key, value in state.items() if key != missing}
        yield f"without {missing}", saved(rest)
    for more in ("m", "blocks.2.norm1.weight", 7, None, ("a", "b")):
        yield f"with {more}", saved({**state, more: state[name]})
    tensors = [
        *(torch.ones(10, dtype=dtype) for dtype in TORCH_DTYPES),
        *(torch.ones(shape) for shape in [(), (0,), (9,), (2, 5), (2, 10)]),
        torch.ones(10).to_sparse(),
        torch.ones(10, device="meta"),
        torch.ones(1).expand(10),
        torch.ones(1).expand(10**13),
        torch.ones(10).as_strided((10**7, 10**6), (0, 0)),
        torch.ones(16).as_strided((10, 7), (1, 1)),
    ]
    for tensor in tensors:
        yield (
            f"holds {tensor.dtype} {tensor.shape}",
            saved({**state, name: tensor}),
        )
    evil = marking(folder)
    for value in (
        *(evil, [evil], {"a": evil}, 1, 1.5, "text", None, [1], {"a": 1}),
        *(np.ones(10, "f4"), np.float32(1), torch.Size([10]), torch.float32),
        *(torch.nn.Linear(1, 1), torch.device("cpu"), b"bytes", {1}, 1j),
        Makes(eval, f"open({str(folder / 'executed')!r}, 'w')"),
        Makes(exec, "raise SystemExit"),
        Makes(__import__, "antigravity"),
        Makes(bytearray, 2**38),
        Makes(bytearray, 10**9),
        Makes(torch.FloatTensor, 2**38),
        Makes(torch.FloatTensor, 2**28),
        Makes(torch.nn.Linear, 2**19, 2**19),
        Makes(getattr, "text", "upper"),
    ):
        label = f"value {type(value).__name__} {str(value)[:30]}"
        yield label, saved({**state, name: value})
        yield f"{label} alone", saved(value)
        yield (
            f"{label} aside",
            saved({"state_dict": state, "more": [evil, value]}),
        )
    for shape, strides, offset in (
        *([(2**28,), (1,), 0], [(2**38,), (1,), 0], [(2**38,), (0,), 0]),
        *([(11,), (1,), 0], [(10,), (1,), 1], [(10,), (2**40,), 0]),
        *([(10,), (1,), 2**40], [(10,), (1,), -1], [(-10,), (1,), 0]),
        *([(10,), (-1,), 9], [(2**62, 4), (1, 1), 0], [(2**63 - 1,), (1,), 0]),
        *([(10,), (1, 1), 0], [(0,), (1,), 2**40], [(2**40, 0), (1, 1), 0]),
    ):
        lie = Makes(
            torch._utils._rebuild_tensor_v2,
            *(
                Storage(state[name]),
                offset,
                shape,
                strides,
                False,
                OrderedDict(),
            ),
        )
        label = f"{shape} {strides} {offset}"
        yield f"declares {label}", saved({**state, name: lie})
        if strides != (0,):  # the tensor is not a weight
            yield f"hides {label}", saved({"model": state, "more": lie})
    items = [*state.items(), (name, state["norm.bias"])]
    yield "twice", saved(Makes(OrderedDict, items=iter(items)))
    key = nested_tuples()
    yield "deep key", saved(Makes(OrderedDict, items=iter([(key, 1)])))
    yield "deep value", saved({**state, name: key})
    yield "deep alone", saved(key)
    inside = argparse.Namespace(learning_rate=0.1, more=[evil])
    yield "inside an object", saved({"state_dict": state, "args": inside})
    yield "an object", saved({**state, name: argparse.Namespace(lr=0.1)})
    yield "negated", saved({**state, name: torch._neg_view(state[name])})
    shape = (1,) * 65
    yield (
        "65 axes",
        saved({**state, name: torch.ones(10).as_strided(shape, shape)}),
    )
    for count in (0, 12, 255, 2**16, 2**28, 2**31 - 1, -1):
        number = b"J" + struct.pack("<i", count)
        yield (
            f"counts {count}",
            saved(
                state,
                lambda data, number=number: COUNT.sub(
                    rb"\1" + escape(number), data, 1
                ),
            ),
        )
    yield (
        "long text",
        saved(
            state,
            lambda data: data.replace(
                b"X\x0e\0\0\0stem", b"X\xff\xff\xff\xffstem"
            ),
        ),
    )


def escape(data):
    return data.replace(b"\\", rb"\\")


# The number of elements of the first storage, after its device "cpu".
COUNT = re.compile(rb"(X\x03\0\0\0cpuq.)(?:K.|M..|J....)", re.DOTALL)
TORCH_DTYPES = [
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64),
    *(torch.bool, torch.complex64, torch.complex128),
    *(torch.float8_e4m3fn, torch.uint16, torch.uint64),
]


class Storage:
    """Is pickled as the storage of a tensor."""

    def __new__(cls, tensor):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about untyped storages
            return tensor.storage()


def h5_files(good, folder):
    data = good[".weights.h5"]
    for label, received in damaged(data, h5_places(data, folder), 250, "h5"):
        yield label, received, SAME_SHAPES
    yield from never(h5_lies(data, folder))
    yield from never(of_another_kind(good, ".weights.h5"))


def h5_places(data, folder):
    """Returns the positions of nonzero bytes that are not array values."""
    with h5py.File(io.BytesIO(data)) as h5:
        numbers = set()

        def visit(_, thing):
            if isinstance(thing, h5py.Dataset):
                begin = thing.id.get_offset()
                numbers.update(range(begin, begin + thing.nbytes))

        h5.visititems(visit)
    return [i for i, byte in enumerate(data) if byte and i not in numbers]


def h5_lies(data, folder):
    for label, change in h5_edits(data, folder):
        file = io.BytesIO(data)
        with h5py.File(file, "r+") as h5:
            change(h5)
        yield label, file.getvalue()
    # libhdf5 hangs on a heap if an object has the size 0.
    heap = data.index(b"GCOL")
    for size in (0, 2**32, 2**63, 2**64 - 1, 2**64 - 16):
        for at in (16, 40):
            received = bytearray(data)
            header = struct.pack("<HHIQ", 0 if at == 40 else 1, 1, 0, size)
            received[heap + at : heap + at + 16] = header
            yield f"heap {size} {at}", bytes(received)
    for size in (0, 8, 16, 2**20, 2**63):
        received = bytearray(data)
        received[heap + 8 : heap + 16] = struct.pack("<Q", size)
        yield f"heap of {size}", bytes(received)
    for end in (0, 96, len(data) - 1, len(data) + 1, 10**12, 2**64 - 1):
        received = bytearray(data)
        received[40:48] = struct.pack("<Q", end)
        yield f"end {end}", bytes(received)
    yield "more data", data + bytes(512)
    yield "behind a block", bytes(512) + data


BIAS = "layers/conv2d/vars/1"  # 10 numbers


def h5_edits(data, folder):
    """Yields a label and a function that edits the open file."""
    with h5py.File(io.BytesIO(data)) as h5:
        names = []
        h5["layers"].visititems(lambda _, thing: names.append(thing.name))
    for name in names:
        kept = name.split("/")[-1]
        if kept == "vars" or kept.isdecimal():
            yield f"without {name}", lambda h5, name=name: h5.pop(name)
    yield from h5_values(folder)
    yield from h5_storage(folder / "secret")
    yield from h5_names()
    yield from h5_links()
    yield "maze", maze
    yield "mirrors", mirrors


def put(value):
    def change(h5):
        del h5[BIAS]
        h5[BIAS] = value

    return change


def make(*arguments, **options):
    def change(h5):
        del h5[BIAS]
        h5.create_dataset(BIAS, *arguments, **options)

    return change


def renamed(value):
    def change(h5):
        del h5["layers/conv2d/vars"].attrs["name"]
        if value is not None:
            h5["layers/conv2d/vars"].attrs["name"] = value

    return change


def named_by_a_sequence(h5):
    value = np.empty((), object)
    value[()] = np.arange(4, dtype="i4")
    attributes = h5["layers/conv2d/vars"].attrs
    attributes.create("name", value, dtype=h5py.vlen_dtype("i4"))


def linked(target, source):
    def change(h5):
        h5[target] = h5[source]

    return change


def maze(h5):
    """Adds few groups with very many paths through them."""
    groups = [h5.create_group(f"maze{i}") for i in range(6)]
    for outer, inner in itertools.pairwise([h5["layers/conv2d"], *groups]):
        inner.create_group("vars").attrs["name"] = inner.name
        for i in range(300):
            outer[f"way{i}"] = inner


def mirrors(h5):
    """Adds links to one array a hundred times: 16 MB become 1.6 GB."""
    variables = h5["layers/conv2d/vars"]
    variables["2"] = np.zeros(2**22, "f4")
    for i in range(3, 103):
        variables[str(i)] = variables["2"]


def h5_values(folder):
    for array in ARRAYS:
        if array.dtype.kind not in "UM":
            yield f"holds {array.dtype.str} {array.shape}", put(array)
    for value in (
        h5py.SoftLink("/layers/conv2d/vars/0"),
        h5py.SoftLink("/" + BIAS),
        h5py.SoftLink("/nowhere"),
        h5py.ExternalLink(str(folder / "good.weights.h5"), BIAS),
        h5py.ExternalLink("/etc/passwd", "/"),
        h5py.Empty("f4"),
        "text",
        np.array([b"text"] * 10, object),
        np.dtype("f4"),
    ):
        yield f"holds {type(value).__name__} {value}", put(value)
    yield "group", lambda h5: (h5.pop(BIAS), h5.create_group(BIAS))


def h5_storage(file):
    file.write_bytes(bytes(40))
    yield "outside", make((10,), "f4", external=[(str(file), 0, 40)])
    yield "terabyte", make((2**38,), "f4", chunks=(2**20,))
    yield "terabyte, lying flat", make((2**38,), "f4")
    yield "gigabyte", make((2**28,), "f4", chunks=(2**10,))
    yield "never written", make((10,), "f4")
    for options in (
        {"compression": "gzip"},
        {"shuffle": True},
        {"fletcher32": True},
        {"compression": "gzip", "maxshape": (None,)},
    ):
        yield f"filtered {options}", make(data=np.ones(10, "f4"), **options)
    yield "swells", make(data=np.zeros(10**6, "f4"), compression="gzip")

    def virtual(h5):
        layout = h5py.VirtualLayout((10,), "f4")
        layout[:] = h5py.VirtualSource(str(file), "secret", (10,))
        del h5[BIAS]
        h5.create_virtual_dataset(BIAS, layout)

    yield "virtual", virtual


def h5_names():
    for value in (
        *(None, "", "norm", "block_0", "../stem", "stem/..", 7, 1.5),
        *(np.bytes_(b"stem"), ["stem"], ["stem", "stem"]),
        *(h5py.Empty("f"), np.arange(5), np.ones(1000), "é", "s" * 10_000),
    ):
        yield f"named {str(value)[:20]} {type(value).__name__}", renamed(value)
    yield "named by a sequence", named_by_a_sequence


def h5_links():
    for target, source in (
        ("layers/more", "layers/conv2d"),
        ("layers/conv2d/vars/2", BIAS),
        ("layers/conv2d/vars/one", BIAS),
        ("layers/conv2d/more", "layers/dense"),
    ):
        yield (
            f"copied {target} {source}",
            lambda h5, target=target, source=source: h5.copy(source, target),
        )
    for target, source in (
        ("layers/more", "layers/conv2d"),
        ("layers/more", "layers"),
        ("layers/conv2d/more", "layers/conv2d"),
        ("layers/mixer_block/token_norm/more", "layers/mixer_block"),
        ("layers/conv2d/vars/2", BIAS),
        ("layers/conv2d/vars/2", "layers"),
        ("layers/conv2d/layers", "layers"),
    ):
        yield f"linked {target} to {source}", linked(target, source)


def keras_files(good, folder):
    data = good[".keras"]
    entries = unzipped(data)
    name = "model.weights.h5"
    places = around(data, *ZIP)
    for label, received in damaged(data, places, 100, "keras"):
        yield label, received, SAME_BITS
    yield from never(odd_archives(entries, name, name))
    yield from never(of_another_kind(good, ".keras"))
    for label, received, allowed in h5_files(good, folder):
        # A new archive with a new checksum.
        yield f"inner {label}", zipped(entries | {name: received}), allowed


FORMATS = {
    ".npz": npz_files,
    ".safetensors": safetensors_files,
    "_plain.safetensors": plain_safetensors_files,
    ".pth": torch_files,
    "_legacy.pth": legacy_files,
    ".weights.h5": h5_files,
    ".keras": keras_files,
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_hostile_files_are_refused(good, tmp_path, suffix):
    cases = write_files(good, tmp_path, suffix)
    result = subprocess.run(
        [sys.executable, __file__, tmp_path],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "PYTHONPATH": str(helpers.ROOT / "tests"),
        },
        check=False,
    )
    received = [json.loads(line) for line in result.stdout.splitlines()]
    assert not (tmp_path / "executed").exists()
    if result.returncode:
        name = cases[len(received)][0] if len(received) < len(cases) else "none"
        pytest.fail(f"{name}: {result.returncode}, {result.stderr[-2000:]}")
    names = [name for name, _, _ in received]
    assert names == [name for name, _ in cases]
    wrong = [
        (name, outcome)
        for name, outcome, _ in received
        if outcome not in ("loaded", "refused")
    ]
    assert not wrong, "\n".join(map(str, wrong))
    assert max(seconds for _, _, seconds in received) < SECONDS
    outcomes = [outcome for _, outcome, _ in received]
    print(f"{suffix}: {outcomes.count('refused')} of {len(outcomes)} refused")
    assert outcomes.count("refused") >= AT_LEAST


def write_files(good, folder, suffix):
    """Writes a good file and all bad files; returns `(name, allowed)` pairs."""
    files = [("good", good[suffix], SAME_BITS)]
    files += FORMATS[suffix](good, folder)
    cases = []
    for i, (label, data, allowed) in enumerate(files):
        label = re.sub(r"\W+", "_", label)[:60]
        name = f"{i}_{label}{extension(suffix)}"
        (folder / name).write_bytes(data)
        cases.append((name, allowed))
    directory = f"directory{extension(suffix)}"
    (folder / directory).mkdir()
    cases.append((directory, NOTHING))
    (folder / "cases.json").write_text(json.dumps(cases))
    return cases


if __name__ == "__main__":
    read_all(sys.argv[1])
