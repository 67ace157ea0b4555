"""Checks of the arguments that the constructors share with Keras Applications.

The arguments, their order and their errors are those of Keras Applications,
with one difference. The token-mixing weights have one row for each token, so
the size of the image is fixed when the model is built, with or without the top.
"""

import keras

from keras_mixer.arguments import check_positive_int
from keras_mixer.keras_private import flatten_layers
from keras_mixer.weights import catalog


def check_patch_size(patch_size):
    """Returns the side of square patches, or the pair `(height, width)`."""
    if not isinstance(patch_size, (tuple, list)):
        return check_positive_int("patch_size", patch_size)
    if len(patch_size) != 2:
        raise ValueError(
            "`patch_size` must be a positive integer, or a pair `(height, "
            f"width)`. Received: patch_size={patch_size}"
        )
    height, width = (
        check_positive_int(f"patch_size[{i}]", side)
        for i, side in enumerate(patch_size)
    )
    return height if height == width else (height, width)


def as_pair(patch_size):
    return patch_size if isinstance(patch_size, tuple) else (patch_size,) * 2


def check_outputs(source, include_top, pooling, classes, activation):
    """Returns the pooling, and the number of classes or `None`."""
    if pooling not in (None, "avg", "max", "grid"):
        raise ValueError(
            "`pooling` must be `None`, 'avg', 'max' or 'grid'. "
            f"Received: pooling={pooling!r}"
        )
    if not include_top:
        return pooling, None
    classes = check_positive_int("classes", classes)
    _check_head(source, classes, activation)
    return "avg", classes


def _check_head(source, classes, activation):
    """Raises an error if the head is not that of the published weights."""
    if not isinstance(source, catalog.Record):
        return
    if source.classes is None:
        raise ValueError(
            f"`weights='{source.tag}'` has no trained head. Use "
            "`include_top=False` and add your own head."
        )
    if classes != source.classes:
        raise ValueError(
            f"If using `weights='{source.tag}'` with `include_top=True`, "
            f"`classes` should be {source.classes}. For other classes, build "
            'the model with `include_top=False, pooling="avg"`, and give it a '
            f"new head: `keras_mixer.new_head(model, classes={classes})`. "
            f"Received: classes={classes}"
        )
    activation = keras.activations.get(activation)
    allowed = (keras.activations.softmax, keras.activations.linear)
    if activation not in allowed:
        raise ValueError(
            "Only `None` and `softmax` activations are allowed for the "
            "`classifier_activation` argument when using pretrained weights, "
            "with `include_top=True`. "
            f"Received: classifier_activation={activation}"
        )


def image_shape(input_shape, input_tensor, patch_size, side):
    """Returns the shape of the image, in the image data format."""
    axes = ("height", "width", "channels")
    default = (side, side, 3)
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
            "`input_shape` must not contain `None`, with or without the top, "
            "because token mixing has one row of weights for each patch of "
            "the image. Resize all images to one size and set it here. "
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
    pairs = list(zip(sides, as_pair(patch_size), strict=True))
    if any(side % size for side, size in pairs):
        nearest = tuple(
            max(round(side / size), 1) * size for side, size in pairs
        )
        raise ValueError(
            "The height and width of the image must be multiples of the patch "
            f"size. The nearest multiples are {nearest}. "
            f"Received: input_shape={shape}, patch_size={patch_size}"
        )


def _shape_of_tensor(input_tensor, input_shape):
    if not keras.utils.is_keras_tensor(input_tensor):
        raise TypeError(
            "`input_tensor` must be a Keras tensor: the output of "
            "`keras.Input` or of a layer called on a Keras tensor. To apply a "
            "model to data, call the model. "
            f"Received: input_tensor of type {type(input_tensor).__name__}"
        )
    shape = tuple(input_tensor.shape[1:])
    if input_shape is not None and input_shape not in (shape, list(shape)):
        raise ValueError(
            "`input_shape` must be the shape of `input_tensor`. Set only one "
            f"of them. Received: input_shape={input_shape}, "
            f"input_tensor.shape={tuple(input_tensor.shape)}"
        )
    return shape


def check_scaled(input_tensor, include_preprocessing):
    if input_tensor is None or include_preprocessing:
        return
    if not keras.backend.is_float_dtype(input_tensor.dtype):
        raise ValueError(
            "With `include_preprocessing=False`, `input_tensor` must contain "
            "scaled pixels, so its dtype must be a float dtype. "
            f"Received: input_tensor of dtype {input_tensor.dtype}"
        )


def channels_behind(shape):
    """Converts a shape in the image data format to channels last."""
    if keras.config.image_data_format() == "channels_first":
        return (*shape[1:], shape[0])
    return shape


def check_data_format(model):
    """Raises an error if Keras's image data format is not that of a model.

    Args:
        model: A model that contains a model of this package. If it takes images
            in channels first, one layer makes channels last of them.
    """
    is_first = any(
        isinstance(layer, keras.layers.Permute) and layer.dims == (2, 3, 1)
        for layer in flatten_layers(model)
    )
    expected = "channels_first" if is_first else "channels_last"
    used = keras.config.image_data_format()
    if used != expected:
        raise ValueError(
            f"'{model.name}' takes images in the format '{expected}'. Use "
            f"`keras.config.set_image_data_format('{expected}')`. Received: "
            f"keras.config.image_data_format()='{used}'"
        )
