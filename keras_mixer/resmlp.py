"""ResMLP (arXiv 2105.03404): the sizes of the paper and constructors."""

import functools
from collections.abc import Sequence

import keras

from keras_mixer.labels import decode_predictions
from keras_mixer.layers.affine import Affine
from keras_mixer.layers.affine import authors_initializer
from keras_mixer.layers.resmlp import ResMLPBlock
from keras_mixer.models.builder import build_model
from keras_mixer.models.constructors import general_constructor
from keras_mixer.models.constructors import variant_of
from keras_mixer.models.family import Family
from keras_mixer.types import Activation
from keras_mixer.types import Path
from keras_mixer.types import Tensor
from keras_mixer.variants import RESMLP as VARIANTS

__all__ = [
    "ResMLP",
    "ResMLPB24",
    "ResMLPB24P8",
    "ResMLPS12",
    "ResMLPS24",
    "ResMLPS36",
    "decode_predictions",
    "preprocess_input",
]


def _block(i, sizes, widening, **options):
    return ResMLPBlock(sizes["channels_mlp"], sizes["layer_scale"], **options)


RESMLP = Family(
    name="resmlp",
    sizes=("patch", "num_blocks", "hidden", "channels_mlp", "layer_scale"),
    variants=VARIANTS,
    block=_block,
    norm=Affine,
    activation="gelu",
    # Mean and standard deviation of ImageNet, as in the authors' evaluation.
    scaling=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # The stem has the default initializer of PyTorch's convolutions. The head
    # has the initializer of the authors' linear layers.
    kernel_initializer=functools.partial(
        keras.initializers.VarianceScaling, 1 / 3, "fan_in", "uniform"
    ),
    head_initializer=authors_initializer,
)


@general_constructor(RESMLP)
def ResMLP(
    patch_size: int | Sequence[int],
    num_blocks: int,
    hidden_dim: int,
    channels_mlp_dim: int,
    layer_scale_init: float,
    include_top: bool = True,
    include_preprocessing: bool = True,
    weights: Path | None = None,
    input_tensor: Tensor | None = None,
    input_shape: Sequence[int] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str = "resmlp",
    *,
    activation: Activation = "auto",
    dropout_rate: float = 0.0,
    stochastic_depth_rate: float = 0.0,
    resize: str | None = "auto",
) -> keras.Model:
    """Instantiates a ResMLP of any size.

    The image is cut into patches. Each patch becomes a token with
    `hidden_dim` channels. Each block applies a linear layer over the tokens and
    an MLP over the channels. Learned scales and offsets per channel replace
    normalization. `ResMLPS12` and the other variants have the sizes of the
    paper.

    Source: section 2 and table 3 of ResMLP (arXiv 2105.03404);
    `resmlp_models.py` of facebookresearch/deit.

    Args:
        patch_size: Positive integer, the side of a patch in pixels. Or a pair
            `(height, width)`, for patches that are not square.
        num_blocks: Positive integer, the number of blocks.
        hidden_dim: Positive integer, the channels of a token.
        channels_mlp_dim: Positive integer, the width of the channel-mixing MLP.
            In the paper it is four times `hidden_dim`.
        layer_scale_init: Float, the initial value of the scales at the end of
            each branch. Deeper models use smaller values.
        {options}
        activation: Activation of the MLPs, as for `keras.activations.get`.
            `"auto"` is the activation that the weights were trained with. If
            there are no weights, it is the exact form of GELU, as in the
            authors' code.
        stochastic_depth_rate: Float in [0, 1), the probability that a sample
            skips a branch during training. It is the same in all blocks.

    {contract}

    Example:

    >>> import keras_mixer
    >>> model = keras_mixer.ResMLP(
    ...     patch_size=4, num_blocks=2, hidden_dim=16, channels_mlp_dim=64,
    ...     layer_scale_init=0.1, input_shape=(12, 20, 3), classes=7)
    >>> model.output_shape
    (None, 7)
    """
    sizes = (
        patch_size,
        num_blocks,
        hidden_dim,
        channels_mlp_dim,
        layer_scale_init,
    )
    return build_model(
        RESMLP,
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


@variant_of(ResMLP, "resmlp_s12")
def ResMLPS12(**options):
    """ResMLP-S12: 12 blocks of width 384 on patches of 16 x 16 pixels."""
    return ResMLP(*VARIANTS["resmlp_s12"], **options)


@variant_of(ResMLP, "resmlp_s24")
def ResMLPS24(**options):
    """ResMLP-S24: 24 blocks of width 384 on patches of 16 x 16 pixels."""
    return ResMLP(*VARIANTS["resmlp_s24"], **options)


@variant_of(ResMLP, "resmlp_s36")
def ResMLPS36(**options):
    """ResMLP-S36: 36 blocks of width 384 on patches of 16 x 16 pixels."""
    return ResMLP(*VARIANTS["resmlp_s36"], **options)


@variant_of(ResMLP, "resmlp_b24")
def ResMLPB24(**options):
    """ResMLP-B24: 24 blocks of width 768 on patches of 16 x 16 pixels."""
    return ResMLP(*VARIANTS["resmlp_b24"], **options)


@variant_of(ResMLP, "resmlp_b24p8")
def ResMLPB24P8(**options):
    """ResMLP-B24/8: 24 blocks of width 768 on patches of 8 x 8 pixels."""
    return ResMLP(*VARIANTS["resmlp_b24p8"], **options)


def preprocess_input(x: Tensor, data_format: str | None = None) -> Tensor:
    """Returns its input: the models scale pixels themselves.

    This function only exists for compatibility with Keras Applications. By
    default the first layer of a ResMLP takes pixels in [0, 255] and scales
    them. For a model built with `include_preprocessing=False`, divide the
    pixels by 255, subtract the mean (0.485, 0.456, 0.406) and divide by the
    standard deviation (0.229, 0.224, 0.225).

    Args:
        x: Array or tensor of any shape.
        data_format: Ignored.

    Returns:
        `x`, unchanged.

    Example:

    >>> from keras_mixer.resmlp import preprocess_input
    >>> preprocess_input(255)
    255
    """
    return x
