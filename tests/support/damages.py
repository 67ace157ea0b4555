"""Damaged and hostile weights files, and a process that reads them.

A seeded generator adds random damage to good files, mostly to the structure of
the file. The tests of each format add files that were damaged by hand. A
separate process reads the files. It can use 10 seconds per file and 1 GB of
additional memory. If it crashes, the test fails.

A file must be refused, or the damage must not change any weight. A flipped bit
in the values is detected where the format has a checksum: see `SAME_SHAPES`.
"""

import io
import json
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import time
import warnings
import zipfile
import zlib

import numpy as np
import pytest

SECONDS = 10
MEMORY = 2**30

# How many random damages are tried.
COUNTS = pytest.mark.parametrize(
    "count", [60, pytest.param(300, marks=pytest.mark.nightly)]
)

# Allowed results for a file that is not refused. Formats without a checksum do
# not detect a changed value.
NOTHING = "nothing"
SAME_BITS = "the same bits"
SAME_SHAPES = "the same names and shapes"


def check(folder, suffix, good, files):
    """Reads files of a format in a process; checks the result of each.

    Args:
        folder: An empty folder. Code in a file writes `folder / "executed"`.
        suffix: The ending of the names of the files.
        good: The bytes of a good file.
        files: Pairs `(label, bytes)` that must be refused, or triples with the
            allowed result.
    """
    cases = []
    for i, (label, data, *allowed) in enumerate(
        [("good", good, SAME_BITS), *files]
    ):
        name = f"{i}_{re.sub(r'[^A-Za-z0-9]+', '_', label)[:60]}{suffix}"
        (folder / name).write_bytes(data)
        cases.append((name, *(allowed or [NOTHING])))
    (folder / f"directory{suffix}").mkdir()
    cases.append((f"directory{suffix}", NOTHING))
    (folder / "cases.json").write_text(json.dumps(cases))
    tests = str(pathlib.Path(__file__).parents[1])
    result = subprocess.run(
        [sys.executable, __file__, folder],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tests}:{os.path.dirname(tests)}"},
        check=False,
    )
    received = [json.loads(line) for line in result.stdout.splitlines()]
    assert not (folder / "executed").exists()
    if result.returncode:
        name = cases[len(received)][0] if len(received) < len(cases) else "none"
        pytest.fail(f"{name}: {result.returncode}, {result.stderr[-2000:]}")
    wrong = [
        (name, outcome)
        for name, outcome in received
        if outcome not in ("loaded", "refused")
    ]
    assert not wrong, "\n".join(map(str, wrong))
    assert [name for name, _ in received] == [name for name, *_ in cases]
    outcomes = [outcome for _, outcome in received]
    assert outcomes[0] == "loaded"
    assert outcomes.count("refused") > len(outcomes) / 2


# The process that reads the files.


def read_all(folder):
    """Reads the files of a folder; prints each result."""
    sys.argv[0] = "keras_mixer"  # the package is then imported without Keras
    from keras_mixer.weights import assigning
    from keras_mixer.weights import loading

    folder = pathlib.Path(folder)
    cases = json.loads((folder / "cases.json").read_text())
    good = loading.open_weights(folder / cases[0][0], "mixer")
    shapes = assigning.shapes(good.arrays)
    limit = MEMORY + _used_memory()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for name, allowed in cases:
        signal.alarm(SECONDS)  # ends the process by default
        start = time.monotonic()
        outcome = _outcome(folder / name, good, shapes, allowed)
        assert time.monotonic() - start < SECONDS
        signal.alarm(0)
        print(json.dumps([name, outcome]), flush=True)


def _outcome(path, good, shapes, allowed):
    from keras_mixer.weights import assigning
    from keras_mixer.weights import loading
    from keras_mixer.weights.errors import WeightsError

    try:
        file = loading.open_weights(path, "mixer")
        problem = f"Cannot load '{path}'"
        assigning.check(shapes, assigning.shapes(file.arrays), problem)
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
    is_same = allowed == SAME_SHAPES or (
        file[4:-1] == good[4:-1]  # the settings of the model
        and all(
            file.arrays[path].tobytes() == array.tobytes()
            for path, array in good.arrays.items()
        )
    )
    if allowed == NOTHING or not is_same:
        return f"loaded, but only {allowed} is allowed"
    return "loaded"


def _used_memory():
    pages, *_ = pathlib.Path("/proc/self/statm").read_text().split()
    return int(pages) * resource.getpagesize()


# Random damage.


def damaged(data, places, count, allowed):
    """Yields `count` files with random damage, and the allowed result.

    Args:
        data: The bytes of a good file.
        places: Where the structure of the file is; most damage is there.
    """
    rng = random.Random(count)
    for i in range(count):
        if i % 6 == 0:
            # Truncated at evenly spaced places; the last file by one byte.
            end = len(data) - 1 - (len(data) - 1) * i // count
            yield f"cut{i}", data[:end], allowed
            continue
        kind = rng.choice(_DAMAGE)
        at, other = (
            rng.choice(places)
            if rng.random() < 0.8
            else rng.randrange(len(data))
            for _ in range(2)
        )
        received = bytes(kind(bytearray(data), at, other, rng))
        if received != data:
            yield f"{kind.__name__}{i}", received, allowed


def _flip(data, at, _, rng):
    data[at] ^= 1 << rng.randrange(8)
    return data


def _flip_many(data, at, _, rng):
    for i in range(at, min(at + 40, len(data))):
        if rng.random() < 0.2:
            data[i] ^= 1 << rng.randrange(8)
    return data


def _zero(data, at, _, rng):
    end = min(at + rng.randrange(1, 64), len(data))
    data[at:end] = bytes(end - at)
    return data


def _lie(data, at, _, rng):
    size = rng.choice([2, 4, 8])
    at -= at % size
    number = rng.choice([0, 1, 2**16, 2**31, 2**32 - 1, 10**12, 2**62, 2**63])
    data[at : at + size] = number.to_bytes(8, "little")[:size][: len(data) - at]
    return data


def _remove(data, at, _, rng):
    del data[at : at + rng.randrange(1, 300)]
    return data


def _insert(data, at, _, rng):
    data[at:at] = rng.randbytes(rng.randrange(1, 300))
    return data


def _repeat(data, at, _, rng):
    data[at:at] = data[at : at + rng.randrange(1, 300)]
    return data


def _swap(data, at, other, rng):
    at, other = sorted((at, other))
    size = rng.randrange(1, 64)
    first, second = data[at : at + size], data[other : other + size]
    if at + size <= other:
        data[other : other + size], data[at : at + size] = first, second
    return data


_DAMAGE = [
    *(_flip, _flip, _flip_many, _zero, _lie, _remove, _insert, _repeat, _swap)
]


def around(data, *signatures, size=46):
    """Returns the positions after each occurrence of the signatures."""
    pattern = b"|".join(map(re.escape, signatures))
    return [
        place
        for found in re.finditer(pattern, data)
        for place in range(found.start(), found.start() + size)
        if place < len(data)
    ]


# Zip archives.

ZIP = (
    *(b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06"),
    b"PK\x06\x07",
)


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


def unzipped(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _bomb():
    """Returns deflated data that expands to 2 GB of zeros."""
    deflate = zlib.compressobj(9, wbits=-15)
    part = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return part * 2048 + deflate.flush()


BOMB = _bomb()


def odd_archives(entries, name, with_evil_name):
    """Yields archives in which `name` or a second file is unusual."""
    pairs = list(entries.items())
    changed = entries[name][:-1] + b"?"
    yield "twice", zipped([*pairs, (name, entries[name])])
    yield "twice, different", zipped([*pairs, (name, changed)])
    for i, form in enumerate(
        ("../{}", "/tmp/{}", "a/../../{}", "..\\{}", "C:\\{}", "a\\..\\{}")
    ):
        evil = form.format(with_evil_name)
        yield f"leads out {i}", zipped([*pairs, (evil, entries[name])])
        yield f"leads out alone {i}", zipped({evil: entries[name]})
    deflated = zipfile.ZIP_DEFLATED
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield f"compressed {compression}", zipped(entries, compression)
        swelling = entries | {name: bytes(10**6)}
        yield f"swells {compression}", zipped(swelling, compression)
    yield "swells", zipped(entries | {name: bytes(10**7)}, deflated)
    bomb = zipped(entries | {name: BOMB}, only=name, compress_type=deflated)
    yield "swells unseen", bomb
    yield "stored, it says", zipped(entries, deflated, compress_type=0)
    yield "deflated, it says", zipped(entries, compress_type=deflated)
    for lies in (
        *({"compress_type": 99}, {"extract_version": 99}, {"CRC": 1}),
        *({"flag_bits": 1}, {"flag_bits": 0x41}, {"compress_size": 2**40}),
        *({"file_size": n} for n in (0, 1, 10**6, 2**31, 2**40, 2**63)),
        *({"header_offset": offset} for offset in (1, 2**20, 2**40)),
    ):
        yield f"{lies}", zipped(entries, **lies)


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
        if other[other.index(".") :] != suffix:
            yield f"as{other}", data


# Arrays that are not a vector of 10 floats.
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
        for shape in (
            *((), (0,), (9,), (11,), (2, 5), (10, 2), (2, 10), (10, 0)),
            (2,) * 4,
        )
    ),
]


# Code in files.


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self._command = command

    def __reduce__(self):
        return os.system, (self._command,)


def marking(folder):
    return Runs(f"touch '{folder / 'executed'}'")


if __name__ == "__main__":
    read_all(sys.argv[1])
