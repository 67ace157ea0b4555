"""The weights of a family: their paths, their axes, their names in files.

A path such as `block_0/token_mixing/dense_0/kernel` is a file format: layers
are named, never numbered by Keras, and a golden file pins every path of every
variant. A row of a table below names one weight in every layout there is, so a
layout is a column, read in one direction to load and in the other to export.
The axes say what each axis counts: from them follow the sizes of a model, the
shapes it has to have, and what resizing does to it.

Kernels are (in, out) here and in Flax, (out, in) in PyTorch, and the stem's is
(height, width, in, out) against (out, in, height, width).
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
    # path, its axes, and the name in: Flax; Flax before Linen; timm
    ("stem/kernel", ("patch", "patch", "in_channels", "hidden"),
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
    # path, its axes, and the name in: timm; the authors' code (Facebook)
    ("stem/kernel", ("patch", "patch", "in_channels", "hidden"),
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
    """A way to name the weights of a family: a column of its table."""

    name: str
    family: str
    column: int | None  # none: Keras's numbers in place of the last names
    is_torch: bool = False

    def names(self):
        """`{path: name}`, with `{}` for the number of a block."""
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
    # A LayerScale has one variable, a norm two; the table's order numbers them.
    Layout("keras", "resmlp", None),
    Layout("timm", "resmlp", 2, is_torch=True),
    Layout("facebook", "resmlp", 3, is_torch=True),
)


def remove_prefix(arrays):
    """Removes what all names begin with, if no layout has such names.

    `DistributedDataParallel` puts `module.` in front of each name,
    `torch.compile` puts `_orig_mod.`, a `LightningModule` the name of its
    attribute, and a training in JAX `params/`.

    Args:
        arrays: `{name: array}`.

    Returns:
        `{name: array}`, and the prefix, `""` if none was removed.
    """
    # Compared by character, then cut at the last separator.
    common = os.path.commonprefix(list(arrays))  # noqa: RUF071
    end = 1 + max(common.rfind("."), common.rfind("/"))
    if end == 0 or any(_is_known(name) for name in arrays):
        return arrays, ""
    return {name[end:]: array for name, array in arrays.items()}, common[:end]


_KNOWN = {name for layout in LAYOUTS for name in layout.names().values()}


def layout_of(names):
    """The layout with most of `names`; `WeightsError` if none has any."""
    counts = []
    for layout in LAYOUTS:
        known = set(layout.names().values())
        counts.append(sum(_template(name, known) in known for name in names))
    best = max(range(len(LAYOUTS)), key=counts.__getitem__)
    if not counts[best]:
        shown = ", ".join(sorted(names)[:3]) or "no names at all"
        raise WeightsError(
            "expected the weights of an MLP-Mixer or a ResMLP, named as in "
            "Flax, in timm, in the authors' code or in this package. "
            f"Received: {shown}{_advice(names)}"
        )
    return LAYOUTS[best]


def _advice(names):
    """What to do if only some of the names have a prefix before known ones."""
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
        f". {count} of {len(names)} names are known without '{prefix}' at "
        "their beginning: save only these, without it"
    )


def _is_known(name):
    return _template(name, _KNOWN) in _KNOWN


def rename(arrays, layout):
    """`{name: array}` of a layout to `{path: array}`, as views where it can.

    A name that the layout does not have is left as it is: assigning then says
    that it is unexpected.
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
        raise WeightsError("two names in it mean the same weight")
    return renamed


def export_names(arrays, layout):
    """`{path: array}` to the `{name: array}` of a layout, contiguous."""
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


# Ranks of kernels to the order of their axes; vectors stay.
_TO_OURS = {2: (1, 0), 4: (2, 3, 1, 0)}
_TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}


def _transpose(array, orders):
    order = orders.get(array.ndim)
    return array.transpose(order) if order else array


_NUMBER = re.compile("[0-9]+")


def _template(name, known):
    """`name` as it stands in a table: with `{}` for the number of a block."""
    if "{" in name:
        return ""  # no name of a weight, and not to be taken for a template
    if name in known:
        return name
    return _NUMBER.sub("{}", name, count=1)


def _numbered(target, name, template):
    if "{}" not in template:
        return target
    return target.format(_NUMBER.search(name).group())


def _squeeze(array, rank):
    """Drops axes of size 1 that some layouts have in front of a weight's own.

    timm's Affine has (1, 1, channels), Flax before Linen kernels for a
    convolution of size 1.
    """
    squeezed = tuple(size for size in array.shape if size != 1)
    if array.ndim > rank == len(squeezed):
        return array.reshape(squeezed)
    return array


def family_of(paths):
    """The family whose weights have these paths, or `None`."""
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
    """`{path: axes}` of a family, with `{}` for the number of a block."""
    return {row[0]: row[1] for row in FAMILIES[family]}


def axes(path, table):
    """The axes of `path` in the table of `axes_of`; none if it is not in it."""
    return table.get(_template(path, table), ())


def sizes_of(shapes, family):
    """What each axis counts in a model, and its `num_blocks`.

    Args:
        shapes: `{path: shape}`.
        family: `"mixer"` or `"resmlp"`.

    Returns:
        `{axis: size}`. An axis that no path has is left out; where paths
        disagree, the first tells.
    """
    table = axes_of(family)
    sizes = {}
    blocks = set()
    for path, shape in shapes.items():
        if path.startswith("block_"):
            blocks.add(path.partition("/")[0])
        for axis, size in zip(axes(path, table), shape, strict=False):
            sizes.setdefault(axis, size)
    return {"num_blocks": max(len(blocks), 1), **sizes}


def shapes_of(family, sizes):
    """`{path: shape}` of every weight of a model of these sizes."""
    shapes = {}
    for path, names in axes_of(family).items():
        if path.startswith(HEAD) and "classes" not in sizes:
            continue
        for i in range(sizes["num_blocks"] if "{}" in path else 1):
            shapes[path.format(i)] = tuple(sizes.get(name) for name in names)
    return shapes
