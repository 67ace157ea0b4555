"""Converts between the names in files and the paths of weights.

The tables are in `layouts`.
"""

import collections
import itertools
import os
import re

import numpy as np

from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.layouts import FAMILIES
from keras_mixer.weights.layouts import HEAD
from keras_mixer.weights.layouts import LAYOUTS


def remove_prefix(arrays):
    """Removes the common prefix of all names, if they are then known.

    Several tools add a prefix to each name: `DistributedDataParallel` adds
    `module.`, `torch.compile` adds `_orig_mod.`, a `LightningModule` adds the
    name of its attribute, and trainings in JAX add `params/`.

    Args:
        arrays: `{name: array}`.

    Returns:
        `{name: array}` and the removed prefix, which can be `""`.
    """
    # `commonprefix` compares characters, so cut at the last separator.
    common = os.path.commonprefix(list(arrays))  # noqa: RUF071
    end = 1 + max(common.rfind("."), common.rfind("/"))
    shorter = {name[end:]: array for name, array in arrays.items()}
    if any(map(_is_known, arrays)) or not any(map(_is_known, shorter)):
        return arrays, ""
    return shorter, common[:end]


_KNOWN = {name for layout in LAYOUTS for name in layout.names().values()}


def layout_of(names):
    """Returns the layout that knows most of `names`.

    Raises:
        WeightsError: If no layout knows half of them.
    """
    counts = []
    for layout in LAYOUTS:
        known = set(layout.names().values())
        counts.append(sum(_template(name, known) in known for name in names))
    best = max(range(len(LAYOUTS)), key=counts.__getitem__)
    if 2 * counts[best] < max(len(names), 1):
        raise WeightsError(f"{another_model(names, *LAYOUTS)}{_advice(names)}")
    return LAYOUTS[best]


def another_model(names, *layouts):
    """Returns the error message for a file with unknown names.

    Args:
        names: The unknown names.
        *layouts: The layouts that the file can have.
    """
    expected = dict.fromkeys(
        each.names()["block_{}/token_norm/beta"].format(0) for each in layouts
    )
    shown = ", ".join(map(repr, [*names][:3])) or "no names"
    return (
        "it is a file of another model or library, was edited or fused, or "
        "contains more than one MLP-Mixer or ResMLP: its names begin with "
        f"{shown}, expected names "
        f"such as {', '.join(map(repr, expected))}"
    )


def _advice(names):
    """Returns advice if some names are known names with a prefix."""
    prefixes = collections.Counter(
        name[: match.end()]
        for name in names
        for match in itertools.islice(re.finditer("[./]", name), 4)
        if _is_known(name[match.end() :])
    )
    if not prefixes:
        return ""
    ((prefix, count),) = prefixes.most_common(1)
    return (
        f". {count} of {len(names)} names are known without the prefix "
        f"'{prefix}': save only these, without the prefix"
    )


def _is_known(name):
    return _template(name, _KNOWN) in _KNOWN


def rename(arrays, layout):
    """Converts `{name: array}` of a layout to `{path: array}`.

    The arrays are views where possible. Unknown names are kept: `assigning`
    reports them later.
    """
    table = axes_of(layout.family)
    paths = {name: path for path, name in layout.names().items()}
    renamed = {}
    for name, array in arrays.items():
        template = _template(name, paths)
        if template not in paths:
            renamed[name] = array
            continue
        path = paths[template]
        if layout.is_torch:
            array = _transpose(array, _TO_OURS)
        array = _squeeze(array, len(table[path]))
        renamed[_numbered(path, name, template)] = array
    if len(renamed) < len(arrays):
        raise WeightsError("two names in it stand for the same weight")
    return renamed


def export_names(arrays, layout):
    """Converts `{path: array}` to contiguous `{name: array}` of a layout."""
    names = layout.names()
    exported = {}
    for path, array in arrays.items():
        template = _template(path, names)
        name = _numbered(names[template], path, template)
        if layout.is_torch:
            array = _transpose(array, _TO_TORCH)
        if layout.name == "timm" and name.endswith(("alpha", "beta")):
            array = array.reshape(1, 1, -1)
        exported[name] = np.ascontiguousarray(array)
    return exported


# `{rank of a kernel: order of its axes}`. Vectors do not change.
_TO_OURS = {2: (1, 0), 4: (2, 3, 1, 0)}
_TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}


def _transpose(array, orders):
    order = orders.get(array.ndim)
    return array.transpose(order) if order else array


_NUMBER = re.compile("[0-9]+")


def _template(name, known):
    """Returns `name` as in a table, with `{}` for the number of a block."""
    if "{" in name:
        return ""  # not the name of a weight; it must not pass as a template
    if name in known:
        return name
    return _NUMBER.sub("{}", name, count=1)


def _numbered(target, name, template):
    if "{}" not in template:
        return target
    return target.format(_NUMBER.search(name).group())


def _squeeze(array, rank):
    """Removes the leading axes of size 1 that some layouts have.

    The Affine layer of timm has vectors of shape (1, 1, channels). Flax before
    Linen has kernels for a convolution of size 1.
    """
    extra = max(array.ndim - rank, 0)
    if array.shape[:extra] == (1,) * extra:
        return array.reshape(array.shape[extra:])
    return array


def family_of(paths):
    """Returns the family whose weights have these paths, or `None`."""
    known = {
        family: {row[0] for row in rows} for family, rows in FAMILIES.items()
    }
    matching = [
        family
        for family, templates in known.items()
        if "block_0/token_norm/beta" in paths
        and all(
            _template(path, templates) in templates
            for path in paths
            if path.startswith("block_")
        )
    ]
    return matching[0] if matching else None


def axes_of(family):
    """Returns `{path: axes}`, with `{}` for the number of a block."""
    return {row[0]: row[1] for row in FAMILIES[family]}


def axes(path, table):
    """Returns the axes of `path` in a table of `axes_of`; `()` if unknown."""
    return table.get(_template(path, table), ())


def sizes_of(shapes, family):
    """Returns the size of each axis of a model, and its `num_blocks`.

    Args:
        shapes: `{path: shape}`.
        family: `"mixer"` or `"resmlp"`.

    Returns:
        `{axis: size}`. Axes that do not occur are left out. If the shapes
        contradict each other, the first one is used. The size of "patch" is
        the pair `(height, width)` if patches are not square.
    """
    table = axes_of(family)
    sizes = {}
    blocks = set()
    for path, shape in shapes.items():
        if path.startswith("block_"):
            blocks.add(path.partition("/")[0])
        for axis, size in zip(axes(path, table), shape, strict=False):
            sizes.setdefault(axis, size)
    width = sizes.pop("patch_width", None)
    if width != sizes.get("patch"):
        sizes["patch"] = sizes["patch"], width
    return {"num_blocks": max(len(blocks), 1), **sizes}


def shapes_of(family, sizes):
    """Returns `{path: shape}` of all weights of a model of these sizes."""
    shapes = {}
    patch = sizes.get("patch")
    height, width = patch if isinstance(patch, tuple) else (patch, patch)
    sizes = {**sizes, "patch": height, "patch_width": width}
    for path, names in axes_of(family).items():
        if path.startswith(HEAD) and "classes" not in sizes:
            continue
        for i in range(sizes["num_blocks"] if "{}" in path else 1):
            shapes[path.format(i)] = tuple(sizes.get(name) for name in names)
    return shapes
