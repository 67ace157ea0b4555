"""Image -> scaling -> stem -> blocks -> norm -> pool -> head.

All families use this builder. Each passes its own parts. A model is built in
three phases: `describe` reads the arguments and the weights file, `build` makes
the layers and knows no files, and the weights are loaded.

All layers are "channels last". If the image data format is "channels_first",
one layer transposes the images at the input. The other layers and the weights
are the same for both formats.
"""

import dataclasses
from typing import Any

import keras

from keras_mixer.arguments import check_positive_int
from keras_mixer.arguments import check_rate
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.layers.stem import Conv2D
from keras_mixer.models import outputs
from keras_mixer.models.contract import as_pair
from keras_mixer.models.contract import channels_behind
from keras_mixer.models.contract import check_outputs
from keras_mixer.models.contract import check_patch_size
from keras_mixer.models.contract import check_scaled
from keras_mixer.models.contract import image_shape
from keras_mixer.models.family import Family
from keras_mixer.models.graph import skip_init
from keras_mixer.models.scaling import at_least_float32
from keras_mixer.models.scaling import scaling
from keras_mixer.weights import catalog
from keras_mixer.weights import loading
from keras_mixer.weights import resizing


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What `build` needs to know about a model.

    Args:
        family: The `Family`.
        sizes: `{name: size}` of the model, with the names of `family.sizes`.
        blocks: The blocks, not built yet.
        image: The image, a Keras tensor in the image data format.
        scaling: Mean and standard deviation of each channel, for pixels in
            [0, 1], or `False` if the image is scaled already.
        pooling: "avg", "max", "grid" or `None`.
        classes: The number of classes, or `None` for a model without a head.
        classifier_activation: The activation of the head.
        name: The name of the model.
        draw: Whether to draw initial weights. If not, the kernels are zeros.
    """

    family: Family
    sizes: dict
    blocks: list
    image: Any
    scaling: tuple | bool
    pooling: str | None
    classes: int | None
    classifier_activation: Any
    name: str
    draw: bool


def build_model(family, sizes, *, resize, **options):
    """Builds the functional model of a family, and loads its weights.

    Args:
        family: The `Family`.
        sizes: The sizes of the model, in the order of `family.sizes`.
        resize: See `keras_mixer.Mixer` for this and the other arguments.
        **options: The arguments of `describe`.
    """
    resizing.check_method(resize)
    architecture, file, plan = describe(family, sizes, resize, **options)
    model, layers = build(architecture)
    *_, channels = channels_behind(architecture.image.shape[1:])
    loading.load(file, plan, layers, channels)
    return model


def describe(
    family,
    sizes,
    resize,
    *,
    include_top,
    include_preprocessing,
    weights,
    input_tensor,
    input_shape,
    pooling,
    classes,
    classifier_activation,
    name,
    activation,
    dropout_rate,
    stochastic_depth_rate,
):
    """Checks the arguments, and reads the weights file.

    The file determines the activation, the scaling of the pixels, and how wide
    the MLP over tokens is.

    Returns:
        The `Architecture`, the `WeightsFile`, and how to resize its weights.
    """
    sizes = _checked_sizes(family, sizes)
    variant = family.variant_of(sizes)
    source = loading.check_source(weights, variant)
    pooling, classes = check_outputs(
        source, include_top, pooling, classes, classifier_activation
    )
    side = catalog.image_size(variant)
    shape = image_shape(input_shape, input_tensor, sizes["patch"], side)
    check_scaled(input_tensor, include_preprocessing)
    file = loading.open_weights(source, family.name, include_top)
    plan = loading.plan(file, _grid(shape, sizes["patch"]), resize)
    blocks = _blocks(
        family,
        sizes,
        plan.widening * loading.widening(file, sizes.get("tokens_mlp")),
        activation=_activation(activation, file, family),
        dropout_rate=dropout_rate,
        stochastic_depth_rate=stochastic_depth_rate,
    )
    architecture = Architecture(
        family,
        sizes,
        blocks,
        _image(shape) if input_tensor is None else input_tensor,
        include_preprocessing and (file.scaling or family.scaling),
        pooling,
        classes,
        classifier_activation,
        name,
        draw=source is None,
    )
    return architecture, file, plan


def build(architecture):
    """Returns a model, and its layers that can have weights.

    The blocks were created in the caller's remat scope. Only they are
    rematerialized: if the model were too, all of it would be computed twice.
    """
    with keras.RematScope(None):
        layers = _layers(architecture)
        with skip_init([] if architecture.draw else layers):
            x = _outputs(architecture, layers)
        model = keras.Model(
            _sources(architecture.image), x, name=architecture.name
        )
    return model, layers


def _layers(architecture):
    """Returns the stem, the blocks, the norm, and the head if there is one."""
    family, sizes = architecture.family, architecture.sizes
    stem = Conv2D(
        sizes["hidden"],
        sizes["patch"],
        kernel_initializer=family.kernel_initializer(),
        name="stem",
    )
    layers = [stem, *architecture.blocks, family.norm(name="norm")]
    if architecture.classes is not None:
        head = outputs.head(
            architecture.classes,
            architecture.classifier_activation,
            family.head_initializer(),
            "predictions",
        )
        layers.append(head)
    return layers


def _outputs(architecture, layers):
    """Calls the layers of a model, and returns its outputs."""
    x = _channels_last(architecture.image)
    if architecture.scaling:
        x = scaling(x, *architecture.scaling, name="preprocessing")
    stem, *layers = layers
    head = layers.pop() if architecture.classes is not None else None
    x = stem(x)
    grid = tuple(x.shape[1:3])
    x = keras.layers.Reshape((-1, x.shape[-1]), name="tokens")(x)
    for layer in layers:
        x = layer(x)  # (batch, tokens, channels)
    if architecture.pooling == "grid":
        return outputs.to_grid(x, grid, "grid")
    if architecture.pooling is not None:
        x = outputs.pool(x, architecture.pooling)  # (batch, channels)
    return x if head is None else head(x)


# The arguments of the constructors that are positive integers.
_ARGUMENTS = {
    "num_blocks": "num_blocks",
    "hidden": "hidden_dim",
    "tokens_mlp": "tokens_mlp_dim",
    "channels_mlp": "channels_mlp_dim",
}


def _checked_sizes(family, sizes):
    """Returns `{name: size}`. The size of "patch" can be a pair."""
    sizes = dict(zip(family.sizes, sizes, strict=True))
    sizes["patch"] = check_patch_size(sizes["patch"])
    for name in sizes.keys() & _ARGUMENTS:
        sizes[name] = check_positive_int(_ARGUMENTS[name], sizes[name])
    return sizes


def _grid(shape, patch_size):
    """Returns the rows and columns of the tokens."""
    *sides, _ = channels_behind(shape)
    pairs = zip(sides, as_pair(patch_size), strict=True)
    return tuple(side // size for side, size in pairs)


def _blocks(family, sizes, widening, **options):
    check_rate("stochastic_depth_rate", options["stochastic_depth_rate"])
    return [
        family.block(i, sizes, widening, name=f"block_{i}", **options)
        for i in range(sizes["num_blocks"])
    ]


# Activations that have no name in Keras.
_ACTIVATIONS = {catalog.GELU_TANH: gelu_tanh}


def _activation(activation, file, family):
    if activation == "auto":
        activation = file.activation or family.activation
        activation = _ACTIVATIONS.get(activation, activation)
    return activation


def _image(shape):
    # `keras.config.set_floatx("bfloat16")` must not round pixels.
    dtype = at_least_float32(keras.config.floatx())
    return keras.Input(shape, dtype=dtype, name="image")


def _channels_last(image):
    if keras.config.image_data_format() == "channels_last":
        return image
    # An image of integers keeps its dtype, whatever that of the layer is.
    return keras.layers.Permute(
        (2, 3, 1), dtype=at_least_float32(), name="channels_last"
    )(image)


def _sources(image):
    sources = keras.utils.get_source_inputs(image)
    return sources[0] if len(sources) == 1 else sources
