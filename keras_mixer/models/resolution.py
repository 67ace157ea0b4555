"""The same model on images of another size: train small, fine-tune large.

Everything but token mixing is indifferent to the number of tokens, so a model
is cloned layer by layer onto another input, and only the weights that have an
axis of tokens are changed on the way (`weights.resizing`).
"""

import logging
from collections.abc import Sequence

import keras

from keras_mixer.arguments import check_positive_int
from keras_mixer.models.cloning import clone
from keras_mixer.models.introspection import describe
from keras_mixer.models.introspection import weights_of
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

    The weights that mix the tokens are brought to the new grid of patches; all
    others are copied. The model may have been trained, compiled and saved in
    between, and may have another head than it came with; the new one is to be
    compiled again, and shares nothing with the old. What was done is logged in
    one line, by the logger "keras_mixer".

    Source: appendix C of MLP-Mixer (arXiv 2105.01601) for "tile"; the others
    are this library's.

    Args:
        model: A model that this package built, or one made of its layers by
            adding to it. Of a model that holds another, resize the inner one.
        input_shape: The new shape of an image, in the image data format, with
            the same channels: `(height, width, channels)`.
        method: `"tile"` processes parts of the old size by themselves, which
            widens the MLP across tokens; `"interleave"` likewise, each part
            spread over the whole image; `"interpolate"` resamples the weights
            for any grid. `"auto"` is `"tile"` where the new grid is a whole
            multiple, else `"interpolate"`.
        name: Name of the new model, by default the old one's.

    Returns:
        A `keras.Model`, not compiled.

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
    >>> large.get_layer("block_0").tokens_mlp_dim  # of four parts
    32
    """
    if method is None:
        raise ValueError("`method` must not be `None`: give 'auto', for one.")
    family, grid = describe(model)
    patch = model.get_layer("stem").kernel_size
    if len(model.inputs) != 1 or _grid(model.input_shape[1:], patch) != grid:
        raise ValueError(
            "`model` must take one image, which reaches its stem in the size "
            "it has. Resize the model before adding layers in front of it. "
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
    old = model.input_shape[1:]
    patch_size, _ = model.get_layer("stem").kernel_size
    sides = _sides(shape) if len(shape) == 3 else ()
    if (
        len(shape) != len(old)
        or shape[_channel_axis()] != old[_channel_axis()]
        or any(side % patch_size for side in sides)
    ):
        raise ValueError(
            f"`input_shape` must have the channels of the model's, {old}, and "
            f"sides that are multiples of its patch size, {patch_size}. "
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
    """The layers of a model on another input, wider where the plan says so."""

    def clone_layer(layer):
        config = layer.get_config()
        if "tokens_mlp_dim" in config:
            config["tokens_mlp_dim"] *= plan.widening
        return type(layer).from_config(config)

    image = keras.Input(
        shape, dtype=model.inputs[0].dtype, name=model.inputs[0].name
    )
    return clone(model, clone_layer, image=image, name=name)
