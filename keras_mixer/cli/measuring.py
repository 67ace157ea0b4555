"""Measures a model on images with labels, and draws the report.

Classes are compared by name. A model can have several outputs with the same
name, such as "crane" and "maillot" in ImageNet: they are one class here.
"""

import heapq
import logging
import typing
import warnings

import numpy as np

from keras_mixer.cli.tables import printable
from keras_mixer.optional import require

logger = logging.getLogger("keras_mixer")

# This many of the worst mistakes keep their image.
MOST_IMAGES = 25

# Up to this many classes, the cells of the picture have numbers; up to this
# many, the axes have the names of the classes.
MOST_NUMBERS, MOST_NAMES = 25, 120

# The longest name to draw, in characters.
LONGEST_NAME = 22

COLUMNS = 5


class Measurement(typing.NamedTuple):
    """The predictions of a model for images with labels, one row per image."""

    names: list  # of the classes of the images, then of others of the model
    num_classes: int  # of the images
    true: np.ndarray  # the class of each image, a place in `names`
    predicted: np.ndarray
    probability: np.ndarray  # of the predicted class
    true_probability: np.ndarray
    worst: list  # `(image, pixels)` of the worst mistakes, the worst first

    @property
    def accuracy(self):
        """Float, the fraction of images whose class was predicted."""
        return float(np.mean(self.true == self.predicted))

    @property
    def mistakes(self):
        """The images of other classes, the highest probability first."""
        wrong = np.flatnonzero(self.true != self.predicted)
        order = np.argsort(-self.probability[wrong], kind="stable")
        return wrong[order].tolist()

    def confusion(self):
        """Counts the images of each true class (row) and predicted class.

        Returns:
            The names of the columns, and an integer array. The rows are the
            classes of the images. Other classes have a column if they were
            predicted.
        """
        others = np.unique(self.predicted[self.predicted >= self.num_classes])
        classes = [*range(self.num_classes), *others.tolist()]
        matrix = require("sklearn.metrics").confusion_matrix(
            self.true, self.predicted, labels=classes
        )
        return [self.names[i] for i in classes], matrix[: self.num_classes]

    def classes(self):
        """Returns `(name, images, precision, recall, F1 score)` of each class.

        A score is NaN if it is not defined: the recall of a class without
        images, the precision of a class that was never predicted, and the F1
        score of a class that has neither.
        """
        metrics = require("sklearn.metrics")
        *scores, images = metrics.precision_recall_fscore_support(
            self.true,
            self.predicted,
            labels=range(self.num_classes),
            zero_division=np.nan,
        )
        columns = (column.tolist() for column in (images, *scores))
        return list(zip(self.names, *columns, strict=False))


def measure(batches, model, class_names, known):
    """Returns the `Measurement` of a model.

    Args:
        batches: Iterable of batches of images and one-hot labels.
        model: Keras model that returns probabilities.
        class_names: Names of the classes of the images.
        known: Names of the outputs of the model, with all of `class_names`.
    """
    names = list(dict.fromkeys([*class_names, *known]))
    number = {name: i for i, name in enumerate(names)}
    of_label = np.array([number[name] for name in class_names])
    of_output = np.array([number[name] for name in known])
    columns, worst, count = [], [], 0
    for images, labels in batches:
        # The OpenVINO backend of Keras does not accept TensorFlow's tensors.
        images = np.asarray(images)
        scores = np.asarray(model.predict_on_batch(images))
        true = of_label[np.argmax(labels, axis=1)]
        predicted = of_output[scores.argmax(axis=1)]
        of_true = (scores * (of_output == true[:, None])).sum(axis=1)
        columns.append((true, predicted, scores.max(axis=1), of_true))
        for i in np.flatnonzero(true != predicted).tolist():
            # The number of the image decides between equal probabilities.
            entry = (float(scores[i].max()), -(count + i), images[i].copy())
            heapq.heappush(worst, entry)
            if len(worst) > MOST_IMAGES:
                heapq.heappop(worst)
        count += len(true)
    return Measurement(
        names,
        len(set(class_names)),
        *map(np.concatenate, zip(*columns, strict=True)),
        [(-place, pixels) for _, place, pixels in sorted(worst)[::-1]],
    )


def draw_confusion(measurement, path):
    """Draws the confusion matrix as a PNG file.

    A cell is the fraction of the images of its true class. All classes without
    images are one class, "other classes".

    Args:
        measurement: A `Measurement`.
        path: Path of the file to write.
    """
    count = measurement.num_classes
    true = measurement.true
    predicted = np.minimum(measurement.predicted, count)
    names = [_short(name) for name in measurement.names[:count]]
    if predicted.max() == count:
        names.append("(other classes)")
    side = float(np.clip(0.6 * len(names), 2.2, 13.5))
    axes = _figure(side + 3, side + 2).subplots()
    has_numbers = len(names) <= MOST_NUMBERS
    # Without numbers, cells with few images must have a color that is seen.
    colors, metrics = map(require, ("matplotlib.colors", "sklearn.metrics"))
    norm = colors.PowerNorm(1 if has_numbers else 0.5, 0, 1)
    display = metrics.ConfusionMatrixDisplay.from_predictions(
        true,
        predicted,
        labels=range(len(names)),
        display_labels=names,
        normalize="true",
        include_values=has_numbers,
        values_format=".0%",
        text_kw={"fontsize": 8},
        xticks_rotation="vertical",
        cmap="Blues",
        im_kw={"norm": norm},
        ax=axes,
        colorbar=False,
    )
    axes.figure.colorbar(
        display.im_, label="fraction of the true class", shrink=0.7
    )
    axes.set(
        xlabel="predicted class",
        ylabel="true class",
        title=f"{measurement.accuracy:.2%} of {len(true)} images are right",
    )
    if len(names) > MOST_NAMES:
        axes.set(xticks=[], yticks=[])
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        size = float(np.clip(720 / len(names), 6, 9))
        label.set(parse_math=False, fontsize=size)
    _save(axes.figure, path)


def draw_mistakes(measurement, path):
    """Draws the images of the worst mistakes as a PNG file."""
    lines = -(-len(measurement.worst) // COLUMNS)
    figure = _figure(2.1 * COLUMNS, 2.6 * lines)
    panels = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    names = [_short(name) for name in measurement.names]
    for axes, (image, pixels) in zip(panels, measurement.worst, strict=False):
        axes.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255)
        axes.set_title(
            f"true: {names[measurement.true[image]]}\n"
            f"predicted: {names[measurement.predicted[image]]}\n"
            f"({100 * measurement.probability[image]:.1f} %)",
            parse_math=False,
            fontsize=8,
        )
    _save(figure, path)


def _figure(width, height):
    return require("matplotlib.figure").Figure(
        (width, height), layout="constrained"
    )


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
