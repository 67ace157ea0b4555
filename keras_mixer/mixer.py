"""MLP-Mixer (arXiv 2105.01601): the sizes of the paper and constructors."""

import functools
from collections.abc import Sequence

import keras

from keras_mixer.labels import decode_predictions
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.layers.mixer import NORM_EPSILON
from keras_mixer.layers.mixer import MixerBlock
from keras_mixer.models.builder import build_model
from keras_mixer.models.constructors import general_constructor
from keras_mixer.models.constructors import variant_of
from keras_mixer.models.family import Family
from keras_mixer.types import Activation
from keras_mixer.types import Path
from keras_mixer.types import Tensor
from keras_mixer.variants import MIXER as VARIANTS

__all__ = [
    "Mixer",
    "MixerB16",
    "MixerB32",
    "MixerH14",
    "MixerL16",
    "MixerL32",
    "MixerNano",
    "MixerS8",
    "MixerS16",
    "MixerS32",
    "decode_predictions",
    "preprocess_input",
]


def _block(i, sizes, widening, stochastic_depth_rate, **options):
    last = max(sizes["num_blocks"] - 1, 1)
    return MixerBlock(
        widening * sizes["tokens_mlp"],
        sizes["channels_mlp"],
        stochastic_depth_rate=stochastic_depth_rate * i / last,
        tiles=widening,
        **options,
    )


MIXER = Family(
    name="mixer",
    sizes=("patch", "num_blocks", "hidden", "tokens_mlp", "channels_mlp"),
    variants=VARIANTS,
    block=_block,
    norm=functools.partial(
        keras.layers.LayerNormalization, epsilon=NORM_EPSILON
    ),
    activation=gelu_tanh,
    scaling=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # to [-1, 1]
    # The official code uses Flax's default initializer, and zeros for the head.
    kernel_initializer=keras.initializers.LecunNormal,
    head_initializer=keras.initializers.Zeros,
)


@general_constructor(MIXER)
def Mixer(
    patch_size: int | Sequence[int],
    num_blocks: int,
    hidden_dim: int,
    tokens_mlp_dim: int,
    channels_mlp_dim: int,
    include_top: bool = True,
    include_preprocessing: bool = True,
    weights: Path | None = None,
    input_tensor: Tensor | None = None,
    input_shape: Sequence[int] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str = "mixer",
    *,
    activation: Activation = "auto",
    dropout_rate: float = 0.0,
    stochastic_depth_rate: float = 0.0,
    resize: str | None = "auto",
) -> keras.Model:
    """Instantiates an MLP-Mixer of any size.

    The image is cut into patches. Each patch becomes a token with
    `hidden_dim` channels. Each block applies an MLP over the tokens and an MLP
    over the channels. `MixerB16` and the other variants have the sizes of the
    paper.

    Source: section 2 and table 1 of MLP-Mixer (arXiv 2105.01601);
    `vit_jax/models_mixer.py` of google-research/vision_transformer.

    Args:
        patch_size: Positive integer, the side of a patch in pixels (the paper's
            P). Or a pair `(height, width)`, for patches that are not square.
        num_blocks: Positive integer, the number of blocks.
        hidden_dim: Positive integer, the channels of a token (C).
        tokens_mlp_dim: Positive integer, the width of the token-mixing MLP
            (D_S).
        channels_mlp_dim: Positive integer, the width of the channel-mixing MLP
            (D_C).
        {options}
        activation: Activation of the MLPs, as for `keras.activations.get`.
            `"auto"` is the activation that the weights were trained with. If
            there are no weights, it is the tanh form of GELU, as in the
            official code.
        stochastic_depth_rate: Float in [0, 1), the probability that a sample
            skips a branch of the last block during training. The probability
            grows linearly from 0 in the first block.

    {contract}

    Example:

    >>> import keras_mixer
    >>> model = keras_mixer.Mixer(
    ...     patch_size=4, num_blocks=2, hidden_dim=16, tokens_mlp_dim=8,
    ...     channels_mlp_dim=32, input_shape=(12, 20, 3), classes=7)
    >>> model.output_shape
    (None, 7)
    """
    sizes = (
        patch_size,
        num_blocks,
        hidden_dim,
        tokens_mlp_dim,
        channels_mlp_dim,
    )
    return build_model(
        MIXER,
        sizes,
        include_top=include_top,
        include_preprocessing=include_preprocessing,
        weights=weights,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
        activation=activation,
        dropout_rate=dropout_rate,
        stochastic_depth_rate=stochastic_depth_rate,
        resize=resize,
    )


@variant_of(Mixer, "mixer_s32")
def MixerS32(**options):
    """Mixer-S/32: 8 blocks of width 512 on patches of 32 x 32 pixels."""
    return Mixer(*VARIANTS["mixer_s32"], **options)


@variant_of(Mixer, "mixer_s16")
def MixerS16(**options):
    """Mixer-S/16: 8 blocks of width 512 on patches of 16 x 16 pixels."""
    return Mixer(*VARIANTS["mixer_s16"], **options)


@variant_of(Mixer, "mixer_s8")
def MixerS8(**options):
    """Mixer-S/8: 8 blocks of width 512 on patches of 8 x 8 pixels."""
    return Mixer(*VARIANTS["mixer_s8"], **options)


@variant_of(Mixer, "mixer_b32")
def MixerB32(**options):
    """Mixer-B/32: 12 blocks of width 768 on patches of 32 x 32 pixels."""
    return Mixer(*VARIANTS["mixer_b32"], **options)


@variant_of(Mixer, "mixer_b16")
def MixerB16(**options):
    """Mixer-B/16: 12 blocks of width 768 on patches of 16 x 16 pixels."""
    return Mixer(*VARIANTS["mixer_b16"], **options)


@variant_of(Mixer, "mixer_l32")
def MixerL32(**options):
    """Mixer-L/32: 24 blocks of width 1024 on patches of 32 x 32 pixels."""
    return Mixer(*VARIANTS["mixer_l32"], **options)


@variant_of(Mixer, "mixer_l16")
def MixerL16(**options):
    """Mixer-L/16: 24 blocks of width 1024 on patches of 16 x 16 pixels."""
    return Mixer(*VARIANTS["mixer_l16"], **options)


@variant_of(Mixer, "mixer_h14")
def MixerH14(**options):
    """Mixer-H/14: 32 blocks of width 1280 on patches of 14 x 14 pixels."""
    return Mixer(*VARIANTS["mixer_h14"], **options)


@variant_of(Mixer, "mixer_nano")
def MixerNano(**options):
    """A small Mixer for images of 32 x 32 pixels.

    It has 8 blocks of width 128 on patches of 4 x 4 pixels. It is not in the
    paper. Its weights "cifar10" are in the package and are not downloaded.
    """
    return Mixer(*VARIANTS["mixer_nano"], **options)


def preprocess_input(x: Tensor, data_format: str | None = None) -> Tensor:
    """Returns its input: the models scale pixels themselves.

    This function only exists for compatibility with Keras Applications. By
    default the first layer of a Mixer takes pixels in [0, 255] and scales them.
    For a model built with `include_preprocessing=False`, scale the pixels to
    [-1, 1]: `x / 127.5 - 1`. For the weights of MIIL, scale them to [0, 1]:
    `x / 255`.

    Args:
        x: Array or tensor of any shape.
        data_format: Ignored.

    Returns:
        `x`, unchanged.

    Example:

    >>> from keras_mixer.mixer import preprocess_input
    >>> preprocess_input(255)
    255
    """
    return x
