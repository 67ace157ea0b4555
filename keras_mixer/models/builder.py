"""Image -> scaling -> stem -> blocks -> norm -> pool -> head.

One builder for every family: a family passes its own parts.

The network is "channels last" throughout. With the image data format
"channels_first" the images are transposed once, at the input; everything behind
the input stays the same, the weights too.
"""

import keras

from keras_mixer.arguments import check_positive_int
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.models.cloning import skip_init
from keras_mixer.models.contract import channels_behind
from keras_mixer.models.contract import check_head
from keras_mixer.models.contract import check_pooling
from keras_mixer.models.contract import check_scaled
from keras_mixer.models.contract import image_shape
from keras_mixer.models.scaling import at_least_float32
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
        blocks: Makes the layers from `(batch, tokens, channels)` to the same,
            unbuilt, given an activation and how many times wider than in the
            variant the MLP across tokens is.
        include_top: This and all others: see `keras_mixer.Mixer`.
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

    checkpoint = loading.open_checkpoint(source, family.name, include_top)
    plan = loading.plan(checkpoint, grid, resize)
    blocks = blocks(_activation(activation, checkpoint, family), plan.widening)
    # The blocks were made in the caller's scope, and they are what is worth
    # rematerialising; the model as a whole, say, would be computed twice over.
    with keras.RematScope(None):
        stem = _stem(patch_size, hidden_dim, family.kernel_initializer())
        norm = family.norm(name="norm")
        head = _head(classes, classifier_activation, family.head_initializer())
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
            if pooling:
                x = _pool(pooling)(x)  # (batch, channels)
            if include_top:
                x = head(x)
            model = keras.Model(_sources(image), x, name=name)
    loading.load(checkpoint, plan, layers, channels)
    return model


# The names of activations that Keras does not have.
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


def _stem(patch_size, hidden_dim, kernel_initializer):
    return keras.layers.Conv2D(
        hidden_dim,
        patch_size,
        strides=patch_size,
        kernel_initializer=kernel_initializer,
        data_format="channels_last",
        name="stem",
    )


# The pool and the head are in float32 under mixed precision: they cost next to
# nothing, and a mean of many small terms is where 16 bits hurt.


def _pool(pooling):
    pools = {
        "avg": keras.layers.GlobalAveragePooling1D,
        "max": keras.layers.GlobalMaxPooling1D,
    }
    return pools[pooling](
        data_format="channels_last",
        dtype=at_least_float32(),
        name=f"{pooling}_pool",
    )


def _head(classes, activation, kernel_initializer):
    return keras.layers.Dense(
        classes,
        activation=activation,
        kernel_initializer=kernel_initializer,
        dtype=at_least_float32(),
        name="predictions",
    )


def _sources(image):
    sources = keras.utils.get_source_inputs(image)
    return sources[0] if len(sources) == 1 else sources
