"""Adapts a model to another image size: train small, fine-tune large.

Only token mixing depends on the number of tokens. So a model is cloned layer by
layer with another input, and only the weights that have an axis of tokens are
changed (`weights.resizing`).
"""

import logging
from collections.abc import Sequence

import keras

from keras_mixer.arguments import check_positive_int
from keras_mixer.models.anatomy import check_holds_ours
from keras_mixer.models.anatomy import family_of
from keras_mixer.models.anatomy import grid_of
from keras_mixer.models.anatomy import inner_models
from keras_mixer.models.anatomy import is_ours
from keras_mixer.models.anatomy import weights_of
from keras_mixer.models.graph import clone
from keras_mixer.models.graph import with_inner
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
            layers are copied. The returned model has the same form.
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
        ValueError: If the model is not one of this package's, is quantised or
            fused, or cannot be resized this way.
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
    new = _check_shape(inner[0], input_shape)
    return with_inner(
        model,
        lambda each: _resize(each, new, method, None),
        (shapes[inner[0].name], new),
        name,
    )


def _resize(model, input_shape, method, name):
    family, grid = family_of(model), grid_of(model)
    patch = model.get_layer("stem").kernel_size
    if len(model.inputs) != 1 or _grid(_image_shape(model), patch) != grid:
        raise ValueError(
            "`model` must have one image as input, and no layer before its "
            "stem may change the size of the image. Resize the model before "
            "you add such layers. "
            f"Received: model='{model.name}'"
        )
    shape = _check_shape(model, input_shape)
    plan = resizing.plan(grid, _grid(shape, patch), method)

    resized = _clone(model, shape, plan, name)
    arrays = resizing.resize(weights_of(model), family, plan)
    variables = loading.variables_of(resized.layers)
    assigning.assign(variables, arrays, model.name)
    logger.info("%s: %s", model.name, plan)
    return resized


def _image_shape(model):
    return tuple(model.inputs[0].shape[1:])


def _check_shape(model, shape):
    if not isinstance(shape, (tuple, list)):
        raise TypeError(
            "`input_shape` must be a tuple of three integers. "
            f"Received: input_shape={shape!r}"
        )
    shape = tuple(
        check_positive_int(f"input_shape[{i}]", size)
        for i, size in enumerate(shape)
    )
    old = _image_shape(model)
    patch_size, _ = model.get_layer("stem").kernel_size
    sides = _sides(shape) if len(shape) == 3 else ()
    if (
        len(shape) != len(old)
        or shape[_channel_axis()] != old[_channel_axis()]
        or any(side % patch_size for side in sides)
    ):
        raise ValueError(
            f"`input_shape` must have the channels of the old one, {old}, and "
            "its height and width must be multiples of the patch size, "
            f"{patch_size}. "
            f"Received: input_shape={shape}"
        )
    return shape


def _channel_axis():
    return 0 if keras.config.image_data_format() == "channels_first" else -1


def _sides(shape):
    return shape[1:] if _channel_axis() == 0 else shape[:2]


def _grid(shape, patch):
    return tuple(
        side // size for side, size in zip(_sides(shape), patch, strict=True)
    )


def _clone(model, shape, plan, name):
    """Clones a model for another input shape and widens its token mixing."""
    patch = model.get_layer("stem").kernel_size
    old, new = _grid(_image_shape(model), patch), _grid(shape, patch)

    def clone_layer(layer):
        config = layer.get_config()
        if "tokens_mlp_dim" in config:
            config["tokens_mlp_dim"] *= plan.widening
        if is_grid(layer, old):
            config["target_shape"] = (*new, config["target_shape"][-1])
        return type(layer).from_config(config)

    image = keras.Input(
        shape, dtype=model.inputs[0].dtype, name=model.inputs[0].name
    )
    return clone(model, clone_layer, image=image, name=name)
