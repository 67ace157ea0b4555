"""Image -> scaling -> stem -> blocks -> norm -> pool -> head.

All families use this builder. Each passes its own parts. A model is built in
three phases: the arguments and the weights file are described by an
`Architecture`, it is built, and the weights are loaded. Only `build_model`
knows of weights files.

All layers are "channels last". If the image data format is "channels_first",
one layer transposes the images at the input. The other layers and the weights
are the same for both formats.
"""

import dataclasses
from typing import Any

import keras

from keras_mixer.arguments import check_positive_int
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.layers.stem import Conv2D
from keras_mixer.models import outputs
from keras_mixer.models.contract import channels_behind
from keras_mixer.models.contract import check_head
from keras_mixer.models.contract import check_patch_size
from keras_mixer.models.contract import check_pooling
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
        patch_size: Height and width of a patch.
        hidden_dim: The number of channels of a token.
        blocks: The blocks, not built yet.
        image: The image, a Keras tensor in the image data format.
        grid: Rows and columns of the tokens.
        scaling: Mean and standard deviation of each channel, for pixels in
            [0, 1], or `None` if the image is scaled already.
        pooling: "avg", "max", "grid" or `None`.
        classes: The number of classes, or `None` for a model without a head.
        classifier_activation: The activation of the head.
        name: The name of the model.
        draw: Whether to draw initial weights. If not, the kernels are zeros.
    """

    family: Family
    patch_size: tuple
    hidden_dim: int
    blocks: list
    image: Any
    grid: tuple
    scaling: tuple | None
    pooling: str | None
    classes: int | None
    classifier_activation: Any
    name: str
    draw: bool


def build_model(
    family,
    sizes,
    blocks,
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
    resize,
):
    """Builds the functional model of a family, and loads its weights.

    Args:
        family: The `Family`.
        sizes: The sizes of the model, in the order of `family.sizes`.
        blocks: Function `blocks(activation, widening)` that returns a list of
            unbuilt blocks. The width of the MLP over tokens is multiplied by
            `widening`.
        include_top: See `keras_mixer.Mixer` for this and the other arguments.
    """
    sizes = dict(zip(family.sizes, sizes, strict=True))
    sizes["patch"] = check_patch_size(sizes["patch"])
    variant = family.variant_of(sizes)
    source = loading.check_source(weights, variant)
    resizing.check_method(resize)
    check_pooling(pooling)
    hidden_dim = check_positive_int("hidden_dim", sizes["hidden"])
    if include_top:
        classes = check_positive_int("classes", classes)
        check_head(source, classes, classifier_activation)
    side = catalog.image_size(variant)
    shape = image_shape(input_shape, input_tensor, sizes["patch"], side)
    if input_tensor is not None and not include_preprocessing:
        check_scaled(input_tensor)
    *sides, channels = channels_behind(shape)
    patch_size = _pair(sizes["patch"])
    grid = tuple(map(int.__floordiv__, sides, patch_size))

    file = loading.open_weights(source, family.name, include_top)
    plan = loading.plan(file, grid, resize)
    widening = plan.widening * loading.widening(file, sizes.get("tokens_mlp"))
    model, layers = build(
        Architecture(
            family=family,
            patch_size=patch_size,
            hidden_dim=hidden_dim,
            blocks=blocks(_activation(activation, file, family), widening),
            image=_image(shape) if input_tensor is None else input_tensor,
            grid=grid,
            scaling=(file.scaling or family.scaling)
            if include_preprocessing
            else None,
            pooling="avg" if include_top else pooling,
            classes=classes if include_top else None,
            classifier_activation=classifier_activation,
            name=name,
            draw=source is None,
        )
    )
    loading.load(file, plan, layers, channels)
    return model


def build(architecture):
    """Returns a model, and its layers that can have weights.

    The blocks were created in the caller's remat scope. Only they are
    rematerialized: if the model were too, all of it would be computed twice.
    """
    with keras.RematScope(None):
        layers = _layers(architecture)
        with skip_init([] if architecture.draw else layers):
            outputs = _outputs(architecture, layers)
        model = keras.Model(
            _sources(architecture.image), outputs, name=architecture.name
        )
    return model, layers


def _layers(architecture):
    """Returns the stem, the blocks, the norm, and the head if there is one."""
    family = architecture.family
    stem = Conv2D(
        architecture.hidden_dim,
        architecture.patch_size,
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
    if architecture.scaling is not None:
        x = scaling(x, *architecture.scaling, name="preprocessing")
    stem, *layers = layers
    head = layers.pop() if architecture.classes is not None else None
    x = stem(x)
    shape = (-1, architecture.hidden_dim)
    x = keras.layers.Reshape(shape, name="tokens")(x)
    for layer in layers:
        x = layer(x)  # (batch, tokens, channels)
    if architecture.pooling == "grid":
        return outputs.to_grid(x, architecture.grid, "grid")
    if architecture.pooling is not None:
        x = outputs.pool(x, architecture.pooling)  # (batch, channels)
    return x if head is None else head(x)


# Activations that have no name in Keras.
_ACTIVATIONS = {catalog.GELU_TANH: gelu_tanh}


def _activation(activation, file, family):
    if activation == "auto":
        activation = file.activation or family.activation
        activation = _ACTIVATIONS.get(activation, activation)
    return activation


def _pair(patch_size):
    return patch_size if isinstance(patch_size, tuple) else (patch_size,) * 2


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
