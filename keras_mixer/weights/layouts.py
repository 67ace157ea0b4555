"""The weights of a family: their paths, their axes, their names in files.

A path such as `block_0/token_mixing/dense_0/kernel` is part of a file format.
So the paths use fixed names of layers, not the numbers that Keras assigns. A
golden file contains every path of every variant.

Each row of the tables describes one weight: its path, its axes, and its name in
every layout. A layout is a column of the table. It is used in one direction to
load and in the other to export. The axes determine the sizes of a model, the
shapes of its weights, and how resizing changes them.

Kernels are (in, out) here and in Flax, and (out, in) in PyTorch. The kernel of
the stem is (height, width, in, out), in PyTorch (out, in, height, width).
"""

from typing import NamedTuple

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
