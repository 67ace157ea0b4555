"""Image -> preprocessing -> stem -> blocks -> norm -> pool -> head.

One builder for every family, since they differ only in the parts they hand in.
It keeps the contract of Keras Applications: its arguments, its order, its
errors. Where it must differ: the weights of token mixing have one row for each
token, so the size of the image is fixed at construction, with a top or without.

The network itself is "channels last" throughout. With the image data format
"channels_first" the images are transposed at the input, once; everything behind
it, the weights included, stays the same.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Concatenate
from typing import ParamSpec

import keras

from keras_mixer.checking import check_positive_int
from keras_mixer.preprocessing import at_least_float32
from keras_mixer.weights import loading
from keras_mixer.weights import reading

DEFAULT_SIDE = 224


def build_model(
    *,
    patch_size,
    hidden_dim,
    blocks,
    norm,
    preprocessing,
    kernel_initializer,
    head_initializer,
    include_top,
    include_preprocessing,
    weights,
    input_tensor,
    input_shape,
    pooling,
    classes,
    classifier_activation,
    name,
):
    """Builds the functional model of a family from its parts.

    Args:
        patch_size: Side of the square patches, in pixels.
        hidden_dim: Channels of a token.
        blocks: Layers from `(batch, tokens, channels)` to the same, unbuilt.
        norm: Makes the layer behind the last block, given its `name`.
        preprocessing: Makes the layer from pixels in [0, 255] to network
            input, given its `name`.
        kernel_initializer: Initializer of the stem's kernel.
        head_initializer: Initializer of the head's kernel.
        include_top: The rest is documented in `keras_mixer.Mixer`.
    """
    source = reading.check_source(weights)
    patch_size = check_positive_int("patch_size", patch_size)
    hidden_dim = check_positive_int("hidden_dim", hidden_dim)
    if pooling not in (None, "avg", "max"):
        raise ValueError(
            "`pooling` must be `None`, 'avg' or 'max'. "
            f"Received: pooling={pooling!r}"
        )
    if include_top:
        classes = check_positive_int("classes", classes)
        pooling = "avg"
    shape = _image_shape(input_shape, input_tensor, patch_size)
    if input_tensor is not None and not include_preprocessing:
        _check_scaled(input_tensor)
    image = input_tensor
    if image is None:
        image = keras.Input(shape, name="image")

    # The blocks were made in the caller's scope, and they are what is worth
    # rematerialising; the model as a whole, say, would be computed twice over.
    with keras.RematScope(None):
        x = _channels_last(image)
        if include_preprocessing:
            x = preprocessing(name="preprocessing")(x)
        x = _stem(patch_size, hidden_dim, kernel_initializer)(x)
        x = keras.layers.Reshape((-1, hidden_dim), name="tokens")(x)
        for block in blocks:
            x = block(x)  # (batch, tokens, channels)
        x = norm(name="norm")(x)
        if pooling:
            x = _pool(pooling)(x)  # (batch, channels)
        if include_top:
            x = _head(classes, classifier_activation, head_initializer)(x)
        model = keras.Model(_sources(image), x, name=name)
    if source is not None:
        names = ["stem", *(block.name for block in blocks), "norm"]
        names += ["predictions"] if include_top else []
        loading.load([model.get_layer(name) for name in names], source)
    return model


def _image_shape(input_shape, input_tensor, patch_size):
    """Checks the shape of the image, which is in the image data format."""
    axes = ("height", "width", "channels")
    default = (DEFAULT_SIDE, DEFAULT_SIDE, 3)
    if keras.config.image_data_format() == "channels_first":
        axes = axes[2:] + axes[:2]
        default = default[2:] + default[:2]
    if input_tensor is not None:
        input_shape = _shape_of_tensor(input_tensor, input_shape)
    elif input_shape is None:
        input_shape = default
    is_sequence = isinstance(input_shape, (tuple, list))
    if not is_sequence or len(input_shape) != 3:
        raise (ValueError if is_sequence else TypeError)(
            f"`input_shape` must be a tuple of three integers, {axes}. "
            f"Received: input_shape={input_shape!r}"
        )
    if None in input_shape:
        raise ValueError(
            "`input_shape` must be known in full, with `include_top` or "
            "without: token mixing has one row of weights for each patch of "
            "the image. Resize the images to one size, and give it. "
            f"Received: input_shape={tuple(input_shape)}"
        )
    shape = tuple(
        check_positive_int(f"input_shape[{i}]", size)
        for i, size in enumerate(input_shape)
    )
    _check_sides(shape, axes, patch_size)
    return shape


def _check_sides(shape, axes, patch_size):
    sides = [
        size
        for size, axis in zip(shape, axes, strict=True)
        if axis != "channels"
    ]
    if any(side % patch_size for side in sides):
        nearest = tuple(
            max(round(side / patch_size), 1) * patch_size for side in sides
        )
        raise ValueError(
            "The height and width of the image must be multiples of the patch "
            f"size; the nearest are {nearest}. "
            f"Received: input_shape={shape}, patch_size={patch_size}"
        )


def _shape_of_tensor(input_tensor, input_shape):
    if not keras.utils.is_keras_tensor(input_tensor):
        raise TypeError(
            "`input_tensor` must be a Keras tensor: the output of "
            "`keras.Input` or of a layer called on one. To use a model on "
            "data, call it. "
            f"Received: input_tensor of type {type(input_tensor).__name__}"
        )
    shape = tuple(input_tensor.shape[1:])
    if input_shape is not None and input_shape not in (shape, list(shape)):
        raise ValueError(
            "`input_shape` and the shape of `input_tensor` must agree; give "
            f"only one of them. Received: input_shape={input_shape}, "
            f"input_tensor.shape={tuple(input_tensor.shape)}"
        )
    return shape


def _check_scaled(input_tensor):
    if not keras.backend.is_float_dtype(input_tensor.dtype):
        raise ValueError(
            "With `include_preprocessing=False` the model expects scaled "
            "values, which are not whole numbers. "
            f"Received: input_tensor of dtype {input_tensor.dtype}"
        )


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


Options = ParamSpec("Options")


# Annotated, as nothing else here, so that editors complete the options.
def variant_of(
    family: Callable[
        Concatenate[int, int, int, int, int, Options], keras.Model
    ],
    name: str,
) -> Callable[[Callable[..., keras.Model]], Callable[Options, keras.Model]]:
    """Gives the constructor of a variant the options of its family.

    Signature and documentation are the family's without the sizes, which have
    no default, and the constructor is called with every option by its name.

    Args:
        family: The general constructor.
        name: The default of the variant's `name`.
    """
    signature = inspect.signature(family)
    options = [
        parameter.replace(default=name) if key == "name" else parameter
        for key, parameter in signature.parameters.items()
        if parameter.default is not parameter.empty
    ]
    signature = signature.replace(parameters=options)

    def decorate(constructor):
        @functools.wraps(constructor)
        def variant(*args, **kwargs):
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                message = f"{constructor.__name__}() {error}"
                raise TypeError(message) from None
            bound.apply_defaults()
            return constructor(**bound.arguments)

        variant.__signature__ = signature
        variant.__doc__ = (
            f"{inspect.cleandoc(constructor.__doc__)}\n\n"
            f"Args:\n    {_documented_from(options[0].name, family)}\n"
        )
        return variant

    return decorate


def _documented_from(option, family):
    text = inspect.cleandoc(family.__doc__)
    return text[text.index(f"{option}: ") : text.index("Example:")].rstrip()
