"""Image -> scaling -> stem -> blocks -> norm -> pool -> head.

This builder is used by all families. Each family passes its own parts.

All layers are "channels last". If the image data format is "channels_first",
one layer transposes the images at the input. The other layers and the weights
are the same for both formats.
"""

import keras

from keras_mixer.arguments import check_positive_int
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.layers.stem import Conv2D
from keras_mixer.models import outputs
from keras_mixer.models.contract import channels_behind
from keras_mixer.models.contract import check_head
from keras_mixer.models.contract import check_pooling
from keras_mixer.models.contract import check_scaled
from keras_mixer.models.contract import image_shape
from keras_mixer.models.graph import skip_init
from keras_mixer.models.scaling import scaling
from keras_mixer.weights import catalog
from keras_mixer.weights import loading
from keras_mixer.weights import resizing


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
    """Builds the functional model of a family from its parts.

    Args:
        family: The `Family`.
        sizes: The sizes of the model, in the order of `family.sizes`.
        blocks: Function `blocks(activation, widening)` that returns a list of
            unbuilt blocks. The width of the MLP over tokens is multiplied by
            `widening`.
        include_top: See `keras_mixer.Mixer` for this and the other arguments.
    """
    sizes = dict(zip(family.sizes, sizes, strict=True))
    variant = family.variant_of(sizes)
    source = loading.check_source(weights, variant)
    resizing.check_method(resize)
    check_pooling(pooling)
    patch_size = check_positive_int("patch_size", sizes["patch"])
    hidden_dim = check_positive_int("hidden_dim", sizes["hidden"])
    if include_top:
        classes = check_positive_int("classes", classes)
        check_head(source, classes, classifier_activation)
        pooling = "avg"
    side = catalog.image_size(variant)
    shape = image_shape(input_shape, input_tensor, patch_size, side)
    if input_tensor is not None and not include_preprocessing:
        check_scaled(input_tensor)
    *sides, channels = channels_behind(shape)
    grid = tuple(side // patch_size for side in sides)

    checkpoint = loading.open_weights(source, family.name, include_top)
    plan = loading.plan(checkpoint, grid, resize)
    widening = plan.widening * loading.widening(
        checkpoint, sizes.get("tokens_mlp")
    )
    blocks = blocks(_activation(activation, checkpoint, family), widening)
    # The blocks were created in the caller's remat scope. Only they are
    # rematerialised: if the model were too, all of it would be computed twice.
    with keras.RematScope(None):
        stem = Conv2D(
            hidden_dim,
            patch_size,
            kernel_initializer=family.kernel_initializer(),
            name="stem",
        )
        norm = family.norm(name="norm")
        head = outputs.head(
            classes,
            classifier_activation,
            family.head_initializer(),
            "predictions",
        )
        layers = [stem, *blocks, norm, head]
        with skip_init(layers if source is not None else []):
            image = input_tensor
            if image is None:
                image = keras.Input(shape, name="image")
            x = _channels_last(image)
            if include_preprocessing:
                mean_and_std = checkpoint.scaling or family.scaling
                x = scaling(*mean_and_std, channels, name="preprocessing")(x)
            x = stem(x)
            x = keras.layers.Reshape((-1, hidden_dim), name="tokens")(x)
            for block in blocks:
                x = block(x)  # (batch, tokens, channels)
            x = norm(x)
            if pooling == "grid":
                x = outputs.to_grid(x, grid, "grid")
            elif pooling:
                x = outputs.pool(pooling)(x)  # (batch, channels)
            if include_top:
                x = head(x)
            model = keras.Model(_sources(image), x, name=name)
    loading.load(checkpoint, plan, layers, channels)
    return model


# Activations that have no name in Keras.
_ACTIVATIONS = {catalog.GELU_TANH: gelu_tanh}


def _activation(activation, checkpoint, family):
    if activation == "auto":
        activation = checkpoint.activation or family.activation
        activation = _ACTIVATIONS.get(activation, activation)
    return activation


def _channels_last(image):
    if keras.config.image_data_format() == "channels_last":
        return image
    return keras.layers.Permute((2, 3, 1), name="channels_last")(image)


def _sources(image):
    sources = keras.utils.get_source_inputs(image)
    return sources[0] if len(sources) == 1 else sources
