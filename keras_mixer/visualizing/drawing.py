"""Figures of photos, maps and predictions.

Figures are made without pyplot, so no window opens and no state of the caller
changes.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mixer.optional import require

# Side of a panel in inches.
SIDE = 3.2

# Longer side in inches of a figure without labels.
BARE_SIDE = 4.0

# The photo remains visible where the map has its largest value.
MOST_OPAQUE = 0.75


def plot_heatmap(
    image: np.ndarray,
    heatmap: np.ndarray,
    label: str = "",
    axes: Any = None,
) -> Any:
    """Draws a photo with a map over it, and a color bar.

    Red is for positive values and blue for negative ones. Values near zero are
    transparent.

    Args:
        image: Array of shape `(height, width, channels)` with pixels in [0,
            255], or a batch of one image as `keras_mixer.load_image` returns.
        heatmap: Array of shape `(rows, columns)`, from `class_activation_map`
            or `occlusion_map`. It is stretched over the image.
        label: Text at the color bar.
        axes: Optional `matplotlib.axes.Axes` to draw in.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ValueError: If an array has another shape.
        ImportError: If Matplotlib is not installed.

    Example:

    >>> import numpy as np
    >>> from keras_mixer import visualizing
    >>> photo = np.random.default_rng(0).uniform(0, 255, (32, 48, 3))
    >>> figure = visualizing.plot_heatmap(photo, np.eye(4, 6), "logit")
    >>> figure.savefig("heatmap.png")  # doctest: +SKIP
    """
    pixels, heatmap = to_pixels(image), check_heatmap(heatmap)
    figure, (panel,) = new_panels(axes, 1)
    drawn = draw_heatmap(panel, pixels, heatmap)
    figure.colorbar(drawn, ax=panel, label=label)
    return figure


def draw_heatmap(axes, pixels, heatmap):
    """Draws a map over a photo, and returns the Matplotlib image of the map."""
    height, width = pixels.shape[:2]
    scale = float(np.abs(heatmap).max()) or 1.0
    draw_photo(axes, pixels)
    return axes.imshow(
        heatmap,
        cmap="RdBu_r",
        vmin=-scale,
        vmax=scale,
        alpha=MOST_OPAQUE * np.abs(heatmap) / scale,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear",
    )


def plot_predictions(
    image: np.ndarray,
    predictions: Sequence[Sequence[Any]],
    axes: Any = None,
) -> Any:
    """Draws a photo beside horizontal bars with the scores of classes.

    Args:
        image: As for `plot_heatmap`.
        predictions: Sequence of `(name, score)` or `(wnid, name, score)`, one
            for each bar, from top to bottom, as
            `decode_predictions(scores, top=5)[0]` returns. Scores are in [0,
            1].
        axes: Optional pair of `matplotlib.axes.Axes`, one for the photo and one
            for the bars.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ValueError: If an argument has another form.
        ImportError: If Matplotlib is not installed.

    Example:

    >>> import numpy as np
    >>> from keras_mixer import visualizing
    >>> photo = np.random.default_rng(0).uniform(0, 255, (32, 48, 3))
    >>> figure = visualizing.plot_predictions(
    ...     photo, [("cat", 0.8), ("dog", 0.15), ("frog", 0.05)])
    >>> figure.savefig("predictions.png")  # doctest: +SKIP
    """
    pixels = to_pixels(image)
    names, scores = _check_predictions(predictions)
    if axes is not None and np.size(axes) != 2:
        raise ValueError(
            "`axes` must be two axes: for the photo and for the bars. "
            f"Received: axes={axes!r}"
        )
    figure, (left, right) = new_panels(axes, 2)
    draw_photo(left, pixels)
    positions = range(len(names))
    bars = right.barh(positions, [100 * score for score in scores])
    right.bar_label(bars, fmt="%.1f", padding=3)
    # Names are no formulas, even if they contain "$".
    right.set_yticks(positions, names, parse_math=False)
    right.invert_yaxis()
    right.set(xlabel="probability [%]", xlim=(0, 119), xticks=(0, 50, 100))
    right.spines[["top", "right"]].set_visible(False)
    return figure


def _check_predictions(predictions):
    try:
        pairs = [tuple(row)[-2:] for row in predictions]
        names, scores = zip(*pairs, strict=True)
        return [str(name) for name in names], [float(s) for s in scores]
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`predictions` must be a list of (name, score) with at least one "
            "entry. `decode_predictions` returns such a list for each image. "
            f"Received: predictions={predictions!r}"
        ) from error


def new_panels(axes, count):
    """Returns a figure and its axes, for `count` panels.

    Args:
        axes: Axes of the caller, a sequence of such, or `None` for a new
            figure.
        count: Positive integer.
    """
    if axes is not None:
        panels = list(np.ravel(axes))
        return panels[0].figure, panels
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    figure = require("matplotlib.figure").Figure(
        (SIDE * columns + 0.8, SIDE * rows), layout="constrained"
    )
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for unused in panels[count:]:
        unused.set_axis_off()
    return figure, panels[:count]


def to_pixels(image):
    """Returns one image as an array of uint8 that Matplotlib can draw.

    Args:
        image: As for `plot_heatmap`.

    Returns:
        An array of shape `(height, width, 3)` or, for gray, `(height, width)`.
    """
    array = np.asarray(image)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.ndim == 3 and is_channels_first():
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(
            "`image` must be one image of shape (height, width, channels) with "
            "1 or 3 channels, or a batch of one such image. "
            f"Received: image of shape {np.shape(image)}"
        )
    array = np.clip(np.round(array), 0, 255).astype("uint8")
    return array[..., 0] if array.shape[2] == 1 else array


def is_channels_first():
    return keras.config.image_data_format() == "channels_first"


def check_heatmap(heatmap):
    array = np.asarray(heatmap, "float32")
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            "`heatmap` must be an array of shape (rows, columns) with finite "
            f"values. Received: heatmap of shape {array.shape}"
        )
    return array


def bare_axes(height, width):
    """Returns axes that fill a new figure, without margins and labels.

    Args:
        height, width: Numbers, for the aspect ratio of the figure.
    """
    scale = BARE_SIDE / max(height, width)
    size = (max(1, width * scale), max(1, height * scale))
    figure = require("matplotlib.figure").Figure(size)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return axes


def draw_photo(axes, pixels):
    """Draws a photo without labels."""
    axes.set_axis_off()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
