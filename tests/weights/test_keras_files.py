"""Tests that damaged and hostile files of Keras are refused."""

import io
import itertools
import struct

import h5py
import numpy as np

from support import damages
from support.damages import ARRAYS
from support.damages import zipped

ARCHIVED = "model.weights.h5"


@damages.COUNTS
def test_damaged_h5_files_are_refused(good, tmp_path, count):
    data = good[".weights.h5"]
    damages.check(
        tmp_path,
        ".weights.h5",
        data,
        [
            *h5_files(data, tmp_path, count),
            *damages.of_another_kind(good, ".weights.h5"),
        ],
    )


@damages.COUNTS
def test_damaged_keras_files_are_refused(good, tmp_path, count):
    data = good[".keras"]
    entries = damages.unzipped(data)
    places = damages.around(data, *damages.ZIP)
    # In a new archive with a new checksum.
    inner = h5_files(entries[ARCHIVED], tmp_path, count)
    damages.check(
        tmp_path,
        ".keras",
        data,
        [
            *damages.damaged(data, places, count, damages.SAME_BITS),
            *damages.odd_archives(entries, ARCHIVED, ARCHIVED),
            *damages.of_another_kind(good, ".keras"),
            *(
                (label, zipped(entries | {ARCHIVED: received}), *allowed)
                for label, received, *allowed in inner
            ),
        ],
    )


def h5_files(data, folder, count):
    places = h5_places(data)
    yield from damages.damaged(data, places, count, damages.SAME_SHAPES)
    yield from h5_lies(data, folder)


def h5_places(data):
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


def soft_root(h5):
    h5["elsewhere"] = h5["layers"]
    del h5["layers"]
    h5["layers"] = h5py.SoftLink("/elsewhere")


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
    yield "soft link at the root", soft_root
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
