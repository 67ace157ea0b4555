"""The weights of a family: their paths, their axes, their names in files.

A path such as `block_0/token_mixing/dense_0/kernel` is part of a file format.
So the paths use fixed names of layers, not the numbers that Keras assigns. A
golden file contains every path of every variant.

Each row of the tables below describes one weight: its path, its axes, and its
name in every layout. A layout is a column of the table. It is used in one
direction to load and in the other to export. The axes determine the sizes of a
model, the shapes of its weights, and how resizing changes them.

This file is long because of the tables, which are a third of it. The code that
reads them is beside them.

Kernels are (in, out) here and in Flax, and (out, in) in PyTorch. The kernel of
the stem is (height, width, in, out), in PyTorch (out, in, height, width).
"""

import collections
import itertools
import os
import re
from typing import NamedTuple

import numpy as np

from keras_mixer.weights.errors import WeightsError

HEAD = "predictions/"

# fmt: off
MIXER = (
    # path, axes, and the names in Flax, Flax before Linen, and timm
    ("stem/kernel", ("patch", "patch_width", "in_channels", "hidden"),
     "stem/kernel", "embedding/kernel", "stem.proj.weight"),
    ("stem/bias", ("hidden",),
     "stem/bias", "embedding/bias", "stem.proj.bias"),
    ("block_{}/token_norm/gamma", ("hidden",),
     "MixerBlock_{}/LayerNorm_0/scale",
     "Mixer/encoderblock_{}/LayerNorm_0/scale",
     "blocks.{}.norm1.weight"),
    ("block_{}/token_norm/beta", ("hidden",),
     "MixerBlock_{}/LayerNorm_0/bias",
     "Mixer/encoderblock_{}/LayerNorm_0/bias",
     "blocks.{}.norm1.bias"),
    ("block_{}/token_mixing/dense_0/kernel", ("tokens", "tokens_mlp"),
     "MixerBlock_{}/token_mixing/Dense_0/kernel",
     "Mixer/encoderblock_{}/token_mixing_phase_0/kernel1",
     "blocks.{}.mlp_tokens.fc1.weight"),
    ("block_{}/token_mixing/dense_0/bias", ("tokens_mlp",),
     "MixerBlock_{}/token_mixing/Dense_0/bias",
     "Mixer/encoderblock_{}/token_mixing_phase_0/bias1",
     "blocks.{}.mlp_tokens.fc1.bias"),
    ("block_{}/token_mixing/dense_1/kernel", ("tokens_mlp", "tokens"),
     "MixerBlock_{}/token_mixing/Dense_1/kernel",
     "Mixer/encoderblock_{}/token_mixing_phase_0/kernel2",
     "blocks.{}.mlp_tokens.fc2.weight"),
    ("block_{}/token_mixing/dense_1/bias", ("tokens",),
     "MixerBlock_{}/token_mixing/Dense_1/bias",
     "Mixer/encoderblock_{}/token_mixing_phase_0/bias2",
     "blocks.{}.mlp_tokens.fc2.bias"),
    ("block_{}/channel_norm/gamma", ("hidden",),
     "MixerBlock_{}/LayerNorm_1/scale",
     "Mixer/encoderblock_{}/LayerNorm_1/scale",
     "blocks.{}.norm2.weight"),
    ("block_{}/channel_norm/beta", ("hidden",),
     "MixerBlock_{}/LayerNorm_1/bias",
     "Mixer/encoderblock_{}/LayerNorm_1/bias",
     "blocks.{}.norm2.bias"),
    ("block_{}/channel_mixing/dense_0/kernel", ("hidden", "channels_mlp"),
     "MixerBlock_{}/channel_mixing/Dense_0/kernel",
     "Mixer/encoderblock_{}/channel_mixing_phase_0/kernel1",
     "blocks.{}.mlp_channels.fc1.weight"),
    ("block_{}/channel_mixing/dense_0/bias", ("channels_mlp",),
     "MixerBlock_{}/channel_mixing/Dense_0/bias",
     "Mixer/encoderblock_{}/channel_mixing_phase_0/bias1",
     "blocks.{}.mlp_channels.fc1.bias"),
    ("block_{}/channel_mixing/dense_1/kernel", ("channels_mlp", "hidden"),
     "MixerBlock_{}/channel_mixing/Dense_1/kernel",
     "Mixer/encoderblock_{}/channel_mixing_phase_0/kernel2",
     "blocks.{}.mlp_channels.fc2.weight"),
    ("block_{}/channel_mixing/dense_1/bias", ("hidden",),
     "MixerBlock_{}/channel_mixing/Dense_1/bias",
     "Mixer/encoderblock_{}/channel_mixing_phase_0/bias2",
     "blocks.{}.mlp_channels.fc2.bias"),
    ("norm/gamma", ("hidden",),
     "pre_head_layer_norm/scale", "Mixer/encoder_norm/scale", "norm.weight"),
    ("norm/beta", ("hidden",),
     "pre_head_layer_norm/bias", "Mixer/encoder_norm/bias", "norm.bias"),
    ("predictions/kernel", ("hidden", "classes"),
     "head/kernel", "head/kernel", "head.weight"),
    ("predictions/bias", ("classes",),
     "head/bias", "head/bias", "head.bias"),
)

RESMLP = (
    # path, axes, and the names in timm and the authors' code (Facebook)
    ("stem/kernel", ("patch", "patch_width", "in_channels", "hidden"),
     "stem.proj.weight", "patch_embed.proj.weight"),
    ("stem/bias", ("hidden",),
     "stem.proj.bias", "patch_embed.proj.bias"),
    ("block_{}/token_norm/alpha", ("hidden",),
     "blocks.{}.norm1.alpha", "blocks.{}.norm1.alpha"),
    ("block_{}/token_norm/beta", ("hidden",),
     "blocks.{}.norm1.beta", "blocks.{}.norm1.beta"),
    ("block_{}/token_mixing/dense/kernel", ("tokens", "tokens"),
     "blocks.{}.linear_tokens.weight", "blocks.{}.attn.weight"),
    ("block_{}/token_mixing/dense/bias", ("tokens",),
     "blocks.{}.linear_tokens.bias", "blocks.{}.attn.bias"),
    ("block_{}/token_scale/gamma", ("hidden",),
     "blocks.{}.ls1", "blocks.{}.gamma_1"),
    ("block_{}/channel_norm/alpha", ("hidden",),
     "blocks.{}.norm2.alpha", "blocks.{}.norm2.alpha"),
    ("block_{}/channel_norm/beta", ("hidden",),
     "blocks.{}.norm2.beta", "blocks.{}.norm2.beta"),
    ("block_{}/channel_mixing/dense_0/kernel", ("hidden", "channels_mlp"),
     "blocks.{}.mlp_channels.fc1.weight", "blocks.{}.mlp.fc1.weight"),
    ("block_{}/channel_mixing/dense_0/bias", ("channels_mlp",),
     "blocks.{}.mlp_channels.fc1.bias", "blocks.{}.mlp.fc1.bias"),
    ("block_{}/channel_mixing/dense_1/kernel", ("channels_mlp", "hidden"),
     "blocks.{}.mlp_channels.fc2.weight", "blocks.{}.mlp.fc2.weight"),
    ("block_{}/channel_mixing/dense_1/bias", ("hidden",),
     "blocks.{}.mlp_channels.fc2.bias", "blocks.{}.mlp.fc2.bias"),
    ("block_{}/channel_scale/gamma", ("hidden",),
     "blocks.{}.ls2", "blocks.{}.gamma_2"),
    ("norm/alpha", ("hidden",), "norm.alpha", "norm.alpha"),
    ("norm/beta", ("hidden",), "norm.beta", "norm.beta"),
    ("predictions/kernel", ("hidden", "classes"), "head.weight", "head.weight"),
    ("predictions/bias", ("classes",), "head.bias", "head.bias"),
)
# fmt: on

FAMILIES = {"mixer": MIXER, "resmlp": RESMLP}


class Layout(NamedTuple):
    """The names of a family's weights in one kind of file."""

    name: str
    family: str
    column: int | None  # of the table; None: numbers for variables
    is_torch: bool = False

    def names(self):
        """Returns `{path: name}`, with `{}` for the number of a block."""
        return {row[0]: self._name(row) for row in FAMILIES[self.family]}

    def _name(self, row):
        if self.column is not None:
            return row[self.column]
        layer, variable = row[0].rsplit("/", 1)
        return f"{layer}/{int(variable in ('bias', 'beta'))}"


LAYOUTS = (
    Layout("keras", "mixer", None),
    Layout("flax", "mixer", 2),
    Layout("flax before Linen", "mixer", 3),
    Layout("timm", "mixer", 4, is_torch=True),
    # `Layout._name` numbers the variables of a layer in the order of the table.
    Layout("keras", "resmlp", None),
    Layout("timm", "resmlp", 2, is_torch=True),
    Layout("facebook", "resmlp", 3, is_torch=True),
)


def remove_prefix(arrays):
    """Removes the common prefix of all names, if no layout has it.

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
    if end == 0 or any(_is_known(name) for name in arrays):
        return arrays, ""
    return {name[end:]: array for name, array in arrays.items()}, common[:end]


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
        "it is a file of another model or library, or contains more than one "
        f"MLP-Mixer or ResMLP: its names begin with {shown}, expected names "
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
