"""Adapts a model to another image size: train small, fine-tune large.

Only token mixing depends on the number of tokens. So a model is cloned layer by
layer with another input, and only the weights that have an axis of tokens are
changed (`weights.resizing`).
"""

import logging
import operator
from collections.abc import Sequence

import keras

from keras_mixer.arguments import check_positive_int
from keras_mixer.layers.mixing import Block
from keras_mixer.models.anatomy import blocks_of
from keras_mixer.models.anatomy import check_holds_ours
from keras_mixer.models.anatomy import family_of
from keras_mixer.models.anatomy import grid_of
from keras_mixer.models.anatomy import inner_models
from keras_mixer.models.anatomy import is_ours
from keras_mixer.models.anatomy import weights_of_layers
from keras_mixer.models.contract import check_data_format
from keras_mixer.models.graph import rebuild
from keras_mixer.models.outputs import is_grid
from keras_mixer.weights import assigning
from keras_mixer.weights import loading
from keras_mixer.weights import resizing

logger = logging.getLogger("keras_mixer")


def resize(
    model: keras.Model,
    input_shape: Sequence[int],
    method: str = "auto",
    name: str | None = None,
) -> keras.Model:
    """Returns the model for images of another size, with resized weights.

    The token-mixing weights are resized to the new grid of patches. All other
    weights are copied. The new model shares no weights with the original and
    must be compiled before training. The original may be trained, loaded from a
    file, or have another head. The logger "keras_mixer" logs the method.

    Source: appendix C of MLP-Mixer (arXiv 2105.01601) for "tile".

    Args:
        model: A model built by this package, a functional model that extends
            one, or a model that contains such models as layers, such as
            `keras.Sequential([backbone, Dense(3)])`. All inner models must
            take images of the same shape. They are resized, and the other
            layers are copied. The returned model has the same form, and a
            subclass of `keras.Model` keeps its methods. Attributes that you set
            on a model are lost.
        input_shape: Tuple `(height, width, channels)`, the new shape of one
            image, in the image data format. The number of channels must be the
            same.
        method: How to resize the weights. One of:
            - `"tile"`: cuts the image into tiles of the old size, and processes
              each tile separately. The MLP over tokens becomes wider.
            - `"interleave"`: like `"tile"`, but the tokens of each part are
              spread evenly over the whole image.
            - `"interpolate"`: resamples the weights. The new grid may have any
              size.
            - `"auto"`: `"tile"` if the new height and width are whole multiples
              of the old ones, else `"interpolate"`.
        name: Name of the new model. The default is the name of `model`.

    Returns:
        A `keras.Model` that is not compiled.

    Raises:
        ValueError: If the model is not one of this package's, is quantized or
            fused, is of a class with its own `__init__`, or cannot be resized
            this way.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import keras_mixer
    >>> small = keras_mixer.Mixer(
    ...     patch_size=4, num_blocks=2, hidden_dim=16, tokens_mlp_dim=8,
    ...     channels_mlp_dim=32, input_shape=(12, 20, 3), classes=7)
    >>> large = keras_mixer.resize(small, (24, 40, 3))
    >>> large.input_shape
    (None, 24, 40, 3)
    >>> large.get_layer("block_0").tokens_mlp_dim  # four tiles of width 8
    32
    """
    if method is None:
        raise ValueError("`method` must not be `None`. Use 'auto'.")
    check_holds_ours(model)
    if is_ours(model):
        return _resize(model, input_shape, method, name)
    return _resize_inner(model, input_shape, method, name)


def _resize_inner(model, input_shape, method, name):
    inner = inner_models(model)
    shapes = {each.name: _image_shape(each) for each in inner}
    if len({*shapes.values()}) != 1:
        raise ValueError(
            "The inner models must take images of the same shape. Resize each "
            "of them, and build the outer model again. "
            f"Received: model='{model.name}' with {shapes}"
        )
    old = shapes[inner[0].name]
    new = _check_shape(input_shape, old, _token_size(inner[0]))

    def change(layer):
        return _resize(layer, new, method, None) if is_ours(layer) else None

    return rebuild(model, change, sizes=(old, new), name=name)


def _resize(model, input_shape, method, name):
    family, grid = family_of(model), grid_of(model)
    size, old = _token_size(model), _image_shape(model)
    shape = _check_shape(input_shape, old, size)
    new_grid = tuple(
        side // pixels for side, pixels in zip(_sides(shape), size, strict=True)
    )
    plan = resizing.plan(grid, new_grid, method)

    def change(layer):
        if is_ours(layer):
            return _resize(layer, shape, method, None)
        if not (isinstance(layer, Block) or is_grid(layer, grid)):
            return None
        config = layer.get_config()
        if "tokens_mlp_dim" in config:
            config["tokens_mlp_dim"] *= plan.widening
            config["tiles"] = config.get("tiles", 1) * plan.widening
        elif is_grid(layer, grid):
            config["target_shape"] = (*new_grid, config["target_shape"][-1])
        return type(layer).from_config(config)

    resized = rebuild(model, change, sizes=(old, shape), name=name)
    if grid_of(resized) != new_grid:
        raise _not_whole(model)
    arrays = weights_of_layers(blocks_of(model).values())
    variables = loading.variables_of(blocks_of(resized).values())
    assigning.assign(
        variables, resizing.resize(arrays, family, plan), model.name
    )
    logger.info("%s: %s", model.name, plan)
    return resized


def _image_shape(model):
    return tuple(model.inputs[0].shape[1:])


def _token_size(model):
    """Returns the height and width of the part of an image for each token."""
    shape = _image_shape(model)
    check_data_format(model)
    if len(model.inputs) != 1 or len(shape) != 3 or None in shape:
        raise _not_whole(model)
    pairs = [*zip(_sides(shape), grid_of(model), strict=True)]
    if any(side % count for side, count in pairs):
        raise _not_whole(model)
    return tuple(side // count for side, count in pairs)


def _not_whole(model):
    return ValueError(
        "`model` must have one image as input, of a known size that its stem "
        "divides into equal patches, and no layer before the stem may cut or "
        "pad the image. Resize the model before you add such layers. "
        f"Received: model='{model.name}'"
    )


def _check_shape(shape, old, token_size):
    if not isinstance(shape, (tuple, list)):
        raise TypeError(
            "`input_shape` must be a tuple of three integers. "
            f"Received: input_shape={shape!r}"
        )
    shape = tuple(
        check_positive_int(f"input_shape[{i}]", size)
        for i, size in enumerate(shape)
    )
    if (
        len(shape) != len(old)
        or shape[_channel_axis()] != old[_channel_axis()]
        or any(map(operator.mod, _sides(shape), token_size))
    ):
        raise ValueError(
            f"`input_shape` must have the channels of the old one, {old}, and "
            "its height and width must be multiples of the patch size, "
            f"{token_size}. "
            f"Received: input_shape={shape}"
        )
    return shape


def _channel_axis():
    return 0 if keras.config.image_data_format() == "channels_first" else -1


def _sides(shape):
    return shape[1:] if _channel_axis() == 0 else shape[:2]
