"""The weights of token mixing, as maps over the image.

Each hidden unit of Mixer's MLP over tokens has one weight for each token. Each
output token of ResMLP's linear layer has one weight for each input token. So
both are sets of small gray images, one weight for each patch, as the figures of
the two papers show them.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mixer.arguments import check_positive_int
from keras_mixer.layers.resmlp import TokenLinear
from keras_mixer.models.anatomy import block_name
from keras_mixer.models.anatomy import block_names
from keras_mixer.models.anatomy import grid_of
from keras_mixer.models.anatomy import inner_model
from keras_mixer.optional import require
from keras_mixer.visualizing.drawing import new_panels

# Larger weights have the color of the end of the scale. Without this, a few
# outliers would make all other weights pale.
PERCENTILE = 99.5


def token_mixing_maps(model: keras.Model, block: str | int) -> np.ndarray:
    """Returns the token-mixing weights of a block as maps over the tokens.

    For Mixer: the weights from each token to each hidden unit of the MLP over
    tokens, one map for each hidden unit. For ResMLP: the weights from each
    token to each output token, one map for each output token, in row-major
    order.

    Source: figure 5 of MLP-Mixer (arXiv 2105.01601); the figure of ResMLP
    (arXiv 2105.03404) with the rows of the matrix A of the linear layers.

    Args:
        model: A model built by this package, or a model that contains one as a
            layer. It may be resized or fused.
        block: Name or index of the block. Negative indices count from the last.

    Returns:
        A float32 array of shape `(maps, rows, columns)`, where `(rows,
        columns)` is the grid of tokens.

    Raises:
        ValueError: If the model has no such block, or is quantized.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import keras_mixer
    >>> from keras_mixer import visualizing
    >>> model = keras_mixer.Mixer(
    ...     patch_size=4, num_blocks=2, hidden_dim=16, tokens_mlp_dim=8,
    ...     channels_mlp_dim=32, input_shape=(12, 20, 3), classes=7)
    >>> visualizing.token_mixing_maps(model, block=0).shape
    (8, 3, 5)
    """
    model = inner_model(model)
    return _maps(model, _block(model, block))


def _block(model, block):
    return model.get_layer(block_name(model, block))


def _maps(model, block):
    mixing = block.token_mixing
    dense = mixing.dense if _is_linear(block) else mixing.dense_0
    if dense.quantization_mode:
        raise ValueError(
            "The weights of a quantized model cannot be shown. Use the model "
            "as it was before it was quantized. "
            f"Received: model='{model.name}', quantized to "
            f"'{dense.quantization_mode}'"
        )
    kernel = keras.ops.convert_to_numpy(
        keras.ops.cast(dense.kernel, "float32")  # (tokens, maps)
    )
    return kernel.T.reshape(-1, *grid_of(model))


def _is_linear(block):
    return isinstance(block.token_mixing, TokenLinear)


def meaning(model, limit):
    """Returns a sentence that says what the maps of a model are."""
    if _is_linear(_block(model, 0)):
        return (
            "Each small image has the weights from all tokens to one output "
            f"token. At most {limit} output tokens are shown, those in the "
            "center, where they are in the image."
        )
    return (
        "Each small image has the weights from all tokens to one hidden unit. "
        f"At most {limit} units are shown, those with the largest weights, "
        "sorted by spatial frequency."
    )


def plot_token_mixing(
    model: keras.Model,
    blocks: str | int | Sequence[str | int] = "all",
    order: str | None = "auto",
    limit: int | None = None,
    axes: Any = None,
) -> Any:
    """Draws the token-mixing weights of blocks, with one panel for each block.

    A panel has the maps of `token_mixing_maps` side by side. All panels have
    the same colors: white is zero, and the most intense color is for the
    0.5 % of the weights with the largest magnitude.

    Source: as for `token_mixing_maps`. MLP-Mixer's figure has units of opposing
    phase in pairs, and the pairs sorted by frequency: here, "similarity".

    Args:
        model: As for `token_mixing_maps`.
        blocks: Name or index of a block, a list of them, or `"all"`.
        order: Order of the maps of a block. One of:
            - `"frequency"`: by increasing mean spatial frequency of the power
              spectrum.
            - `"similarity"`: in pairs that are as similar or as opposite as
              possible. The pairs are sorted by their mean frequency.
            - `None`: as in the model. The maps of ResMLP are then placed as
              their output tokens in the image.
            - `"auto"`: `"frequency"` for Mixer, `None` for ResMLP.
        limit: Optional positive integer, at most how many maps to show for each
            block. For Mixer, those with the largest norm are shown. For ResMLP,
            those of the output tokens in the center of the image are shown.
        axes: Optional `matplotlib.axes.Axes` to draw in, only for one block.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ValueError: If the model has no such block, or is quantized; if `order`
            is unknown; or if there are `axes` and several blocks.
        TypeError: If an argument has the wrong type.
        ImportError: If Matplotlib is not installed.

    Example:

    >>> import keras_mixer
    >>> from keras_mixer import visualizing
    >>> model = keras_mixer.MixerNano(weights="cifar10")
    >>> figure = visualizing.plot_token_mixing(model, blocks=[0, 1, 2])
    >>> figure.savefig("token_mixing.png")  # doctest: +SKIP
    """
    model = inner_model(model)
    names = block_names(model, blocks)
    if axes is not None and len(names) != 1:
        raise ValueError(
            "`axes` can show one block. Use one block, or no `axes`. "
            f"Received: blocks={blocks}"
        )
    mosaics = [mosaic(model, name, order, limit) for name in names]
    figure, panels = new_panels(axes, len(mosaics))
    scale = color_limit(np.concatenate([m.ravel() for m in mosaics]))
    for panel, name, values in zip(panels, names, mosaics, strict=True):
        image = draw_mosaic(panel, values, scale)
        panel.set_title(name)
    figure.colorbar(image, ax=panels, label="weight", extend="both")
    return figure


def mosaic(model, block, order="auto", limit=None):
    """Returns the maps of a block as one image.

    Args:
        model, block, order, limit: As for `plot_token_mixing`.

    Returns:
        An array of shape `(height, width)`. NaN separates the maps.
    """
    if order not in (known := ["auto", *ORDERS, None]):
        raise ValueError(
            f"`order` must be one of {known}. Received: order={order!r}"
        )
    layer = _block(model, block)
    maps = _maps(model, layer)
    if limit is not None:
        limit = min(check_positive_int("limit", limit), len(maps))
    linear = _is_linear(layer)
    if order == "auto":
        order = None if linear else "frequency"
    columns = None
    if linear:
        maps, columns = _central(maps, limit)
    elif limit is not None:
        maps = _strongest(maps, limit)
    if order is not None:
        columns = None
        maps = maps[ORDERS[order](maps)]
    return tiled(maps, columns)


def _strongest(maps, limit):
    """Returns the maps with the largest norm, in their order."""
    norms = np.linalg.norm(maps, axis=(1, 2))
    return maps[np.sort(np.argsort(-norms, kind="stable")[:limit])]


def _central(maps, limit):
    """Returns the maps of the central output tokens, and their columns."""
    rows, columns = maps.shape[1:]
    if limit is None:
        return maps, columns
    height = min(rows, max(1, math.isqrt(limit)))
    width = min(columns, limit // height)
    top, left = (rows - height) // 2, (columns - width) // 2
    square = maps.reshape(rows, columns, rows, columns)
    square = square[top : top + height, left : left + width]
    return square.reshape(-1, rows, columns), width


def color_limit(values):
    """Returns the weight that has the most intense color."""
    magnitudes = np.abs(values[np.isfinite(values)])
    return float(np.percentile(magnitudes, PERCENTILE)) or 1.0


def draw_mosaic(axes, values, scale):
    """Draws a mosaic, and returns the Matplotlib image."""
    colors = require("matplotlib").colormaps["RdBu_r"].with_extremes(bad="0.7")
    axes.set_axis_off()
    return axes.imshow(values, cmap=colors, vmin=-scale, vmax=scale)


# The order of maps, and maps side by side in one image.


def mean_frequency(maps):
    """Returns the mean spatial frequency of each map, in cycles per token.

    The mean is weighted by the power spectrum. A constant map has frequency 0.
    """
    power = np.abs(np.fft.fft2(maps)) ** 2
    rows, columns = map(np.fft.fftfreq, maps.shape[1:])
    distance = np.hypot(rows[:, None], columns)
    total = power.sum((1, 2))
    weighted = (power * distance).sum((1, 2))
    return weighted / np.where(total > 0, total, 1)


def _by_frequency(maps):
    return np.argsort(mean_frequency(maps), kind="stable")


def _by_similarity(maps):
    """Returns the order in which similar or opposite maps are neighbors.

    The pair with the largest absolute cosine of all is taken first, then the
    largest among the remaining maps, and so on.
    """
    flat = maps.reshape(len(maps), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = flat / np.where(norms > 0, norms, 1)
    first, second = np.triu_indices(len(maps), 1)
    cosines = np.abs(flat @ flat.T)[first, second]
    remaining, pairs = set(range(len(maps))), []
    for i in np.argsort(-cosines, kind="stable"):
        pair = [int(first[i]), int(second[i])]
        if remaining.issuperset(pair):
            remaining.difference_update(pair)
            pairs.append(pair)
    frequency = mean_frequency(maps)
    pairs.sort(key=lambda pair: frequency[pair].mean())
    return [i for pair in pairs for i in pair] + sorted(remaining)


# `{name: function that returns the order of the maps}`.
ORDERS = {"frequency": _by_frequency, "similarity": _by_similarity}


def _columns(maps):
    count, rows, columns = maps.shape
    square = math.sqrt(count * (rows + 1) / (columns + 1))
    return max(1, min(count, 2 * round(square / 2)))


def tiled(maps, columns=None):
    """Places maps side by side, with a line of NaN around each.

    Args:
        maps: Array of shape `(maps, rows, columns)`.
        columns: How many maps to place in a row. By default, an even number
            that makes the result about square.

    Returns:
        An array of shape `(height, width)`.
    """
    columns = columns or _columns(maps)
    count, height, width = maps.shape
    rows = math.ceil(count / columns)
    image = np.full((rows * columns, height + 1, width + 1), np.nan, "float32")
    image[:count, 1:, 1:] = maps
    image = image.reshape(rows, columns, height + 1, width + 1)
    image = image.swapaxes(1, 2).reshape(rows * (height + 1), -1)
    return np.pad(image, ((0, 1), (0, 1)), constant_values=np.nan)
