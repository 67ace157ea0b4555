"""The outputs of the blocks of a model, as features for other models."""

from collections.abc import Sequence

import keras

from keras_mixer.models import outputs
from keras_mixer.models.anatomy import block_names
from keras_mixer.models.anatomy import grid_of
from keras_mixer.models.anatomy import is_fused
from keras_mixer.models.anatomy import norm_of
from keras_mixer.models.calls import output_of
from keras_mixer.models.graph import with_front

FORMS = ("grid", "tokens", "pooled")


def features(
    model: keras.Model,
    blocks: str | int | Sequence[str | int] = "all",
    form: str = "grid",
    norm: bool = True,
) -> keras.Model:
    """Returns a model that computes the outputs of some blocks.

    The new model shares all layers and weights with `model`. It can be saved,
    resized and trained like any Keras model.

    Args:
        model: A model built by this package, with or without a head. It may be
            trained, loaded from a file, resized, fused or quantized. If the
            model contains such a model as a layer, the layers in front of the
            inner model are kept.
        blocks: Name or index of a block, a list of them, or `"all"`. Negative
            indices count from the last block.
        form: The form of the outputs. One of:
            - `"grid"`: an image of features, `(batch, rows, columns,
              channels)`, or `(batch, channels, rows, columns)` if the image
              data format is `"channels_first"`.
            - `"tokens"`: `(batch, tokens, channels)`, row by row.
            - `"pooled"`: the mean over the tokens, `(batch, channels)`.
        norm: Boolean, whether to apply the model's last norm to each output. If
            `True`, `"pooled"` of the last block is the input of the head.

    Returns:
        A `keras.Model` that is not compiled. Its output is a dict `{name of a
        block: features}`.

    Raises:
        ValueError: If the model is not one of this package's or contains
            several of them, a block does not exist, `form` is unknown, or
            `norm` is `True` but `fuse` folded the norm into the head.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import keras_mixer
    >>> model = keras_mixer.MixerNano(weights="cifar10")
    >>> maps = keras_mixer.features(model, ["block_3", -1])
    >>> {name: output.shape for name, output in maps.output.items()}
    {'block_3': (None, 8, 8, 128), 'block_7': (None, 8, 8, 128)}
    """
    if form not in FORMS:
        raise ValueError(
            f"`form` must be one of {list(FORMS)}. Received: form={form!r}"
        )

    def convert(body):
        last = _norm(body) if norm else None
        made = {}
        for name in block_names(body, blocks):
            x = output_of(body, name)
            made[name] = _arranged(last(x) if norm else x, body, form, name)
        return made

    return with_front(model, convert)


def _norm(body):
    norm = norm_of(body)
    # `fuse` removes the norm, or its scale and offset.
    is_whole = norm is not None and getattr(norm, "scale", True)
    if is_fused(body) and not is_whole:
        raise ValueError(
            f"The last norm of '{body.name}' is folded into its head. Use "
            "`norm=False`, or pass the model that the fused model was made "
            "from."
        )
    if norm is None:
        raise ValueError(
            f"'{body.name}' has no norm behind its last block. Use "
            "`norm=False`."
        )
    return norm


def _arranged(x, body, form, name):
    if form == "tokens":
        return x
    if form == "pooled":
        return outputs.pool(x, "avg", f"{name}_pool")
    return outputs.to_grid(x, grid_of(body), f"{name}_grid")
