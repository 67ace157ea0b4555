"""Pictures of a report: the confusion matrix and the worst mistakes."""

import logging
import warnings

import numpy as np

from keras_mixer.commands.tables import printable
from keras_mixer.optional import require

logger = logging.getLogger("keras_mixer")

# Up to this many classes, the cells have numbers; up to this many, the axes
# have the names of the classes.
MOST_NUMBERS, MOST_NAMES = 25, 120

# The longest name to draw, in characters.
LONGEST_NAME = 22

COLUMNS = 5


def draw_confusion(confusion, path):
    """Draws a confusion matrix as a PNG file.

    The color of a cell is the fraction of the images of its true class. All
    classes without images are one column, "other classes".

    Args:
        confusion: A `Confusion`.
        path: Path of the file to write.
    """
    count, names = confusion.num_classes, list(confusion.names)
    matrix = confusion.matrix[:count]
    if len(names) > count:
        others = matrix[:, count:].sum(axis=1, keepdims=True)
        matrix = np.concatenate([matrix[:, :count], others], axis=1)
        names[count:] = ["(other classes)"]
    rows = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.55 * count, 2.2, 13.5))
    figure = require("matplotlib.figure").Figure(
        (side + 3.2, side + 2.4), layout="constrained"
    )
    axes = figure.subplots()
    norm = require("matplotlib.colors").PowerNorm(0.5, 0, 100)
    image = axes.imshow(100 * matrix / rows, "Blues", norm=norm)
    figure.colorbar(
        image,
        label="images of the true class [%]",
        ticks=[0, 1, 5, 10, 25, 50, 75, 100],
        shrink=0.7,
        aspect=30,
        pad=0.02,
    )
    axes.set_title(
        f"{100 * confusion.accuracy:.2f} % of {int(matrix.sum())} images are "
        "correct",
        fontsize=10,
    )
    _label_axes(axes, names, count)
    if count <= MOST_NUMBERS:
        _write_numbers(axes, matrix, rows)
    _save(figure, path)


def _label_axes(axes, names, count):
    if count > MOST_NAMES:
        axes.set(
            xlabel="predicted class (number)", ylabel="true class (number)"
        )
        return
    size = 9 if count <= MOST_NUMBERS else float(np.clip(720 / count, 6, 9))
    short = [_short(name) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=90)
    axes.set_yticks(range(count), short[:count])
    axes.set(xlabel="predicted class", ylabel="true class")
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(parse_math=False, fontsize=size)


def _write_numbers(axes, matrix, rows):
    for (row, column), images in np.ndenumerate(matrix):
        if images:
            is_dark = images > 0.35 * rows[row, 0]
            axes.text(
                column,
                row,
                str(images),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if is_dark else "black",
            )


def draw_mistakes(mistakes, path):
    """Draws images with their true and predicted classes as a PNG file.

    Args:
        mistakes: List of `Mistake` with pixels.
        path: Path of the file to write.
    """
    lines = -(-len(mistakes) // COLUMNS)
    figure = require("matplotlib.figure").Figure(
        (2.1 * COLUMNS, 2.6 * lines), layout="constrained"
    )
    panels = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, mistake in zip(panels, mistakes, strict=False):
        pixels = mistake.pixels
        if pixels.shape[-1] == 1:
            pixels = np.repeat(pixels, 3, axis=-1)
        axes.imshow(pixels.astype("uint8"))
        axes.set_title(
            f"true: {_short(mistake.true)}\n"
            f"predicted: {_short(mistake.predicted)}\n"
            f"({100 * mistake.probability:.1f} %)",
            parse_math=False,
            fontsize=8,
        )
    _save(figure, path)


def _short(name):
    """Returns a name to draw, in one line and not too long."""
    name = printable(name)
    if len(name) <= LONGEST_NAME:
        return name
    return name[: LONGEST_NAME - 1] + "…"


def _save(figure, path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph .* missing from font")
        figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.1)
    if caught:
        logger.warning(
            "The font of Matplotlib does not have all characters of the class "
            "names. They are boxes in '%s'; the CSV files have the names.",
            path.name,
        )
