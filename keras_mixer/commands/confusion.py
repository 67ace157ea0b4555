"""What a model takes for what: the confusion matrix and its numbers, in NumPy.

Classes are compared by name. A model can have several outputs with the same
name, such as "crane" and "maillot" in ImageNet: they are one class here.
"""

import typing

import numpy as np

# This many of the worst mistakes keep their image.
MOST_IMAGES = 25


class Mistake(typing.NamedTuple):
    """An image that was taken for another class."""

    image: int  # the number of the image, from 0, in the order of the batches
    true: str
    predicted: str
    probability: float  # of the predicted class
    true_probability: float
    pixels: np.ndarray | None  # only of the worst mistakes


class Confusion(typing.NamedTuple):
    """The predictions of a model for images with labels."""

    names: list  # of the classes of the images, then of other predicted classes
    num_classes: int  # of the images
    matrix: np.ndarray  # images of a true class (row) by predicted class
    mistakes: list  # of `Mistake`, the highest probability first

    @property
    def accuracy(self):
        """Float, the fraction of images whose class was predicted."""
        return float(np.trace(self.matrix) / self.matrix.sum())


def confusion_matrix(true, predicted, num_classes):
    """Counts the images of each true class (row) and predicted class (column).

    Args:
        true: Integer array, the classes of the images.
        predicted: Integer array of the same shape.
        num_classes: Positive integer.

    Returns:
        An integer array of shape `(num_classes, num_classes)`.

    Example:

    >>> from keras_mixer.commands.confusion import confusion_matrix
    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    cells = np.asarray(true) * num_classes + np.asarray(predicted)
    counts = np.bincount(cells, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def scores_per_class(matrix):
    """Returns the precision, the recall and the F1 score of each class.

    Args:
        matrix: A confusion matrix.

    Returns:
        Three float arrays. A value is NaN if it is not defined: the recall of a
        class without images, the precision of a class that was never predicted,
        and the F1 score of a class that has neither.

    Example:

    >>> from keras_mixer.commands.confusion import scores_per_class
    >>> [scores.tolist() for scores in scores_per_class([[1, 3], [0, 4]])]
    [[1.0, 0.5714285714285714], [0.25, 1.0], [0.4, 0.7272727272727273]]
    """
    matrix = np.asarray(matrix)
    correct = np.diag(matrix).astype("float64")
    images, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    with np.errstate(invalid="ignore"):
        precision, recall = correct / predicted, correct / images
        f1 = 2 * correct / (images + predicted)
    return precision, recall, f1


class Counter:
    """Counts predictions, batch by batch.

    Args:
        class_names: Names of the classes of the images.
        known: Names of the outputs of the model, with all of `class_names`.
    """

    def __init__(self, class_names, known):
        self._names = list(dict.fromkeys([*class_names, *known]))
        self._num_classes = len(set(class_names))
        number = {name: i for i, name in enumerate(self._names)}
        self._class_of_label = np.array([number[n] for n in class_names])
        self._class_of_output = np.array([number[name] for name in known])
        self._true, self._predicted, self._mistakes = [], [], []
        self._count = 0

    def add(self, images, labels, probabilities):
        """Adds a batch.

        Args:
            images: uint8 array of shape `(batch, height, width, channels)`.
            labels: One-hot array of shape `(batch, classes)`.
            probabilities: Array of shape `(batch, outputs)`.
        """
        true = self._class_of_label[np.argmax(labels, axis=1)]
        outputs = np.argmax(probabilities, axis=1)
        predicted = self._class_of_output[outputs]
        for i in np.flatnonzero(true != predicted):
            same = self._class_of_output == true[i]
            mistake = Mistake(
                self._count + int(i),
                self._names[true[i]],
                self._names[predicted[i]],
                float(probabilities[i, outputs[i]]),
                float(probabilities[i, same].sum()),
                np.array(images[i]),
            )
            self._mistakes.append(mistake)
        self._sort_mistakes()
        self._true.append(true)
        self._predicted.append(predicted)
        self._count += len(true)

    def _sort_mistakes(self):
        self._mistakes.sort(key=lambda mistake: -mistake.probability)
        self._mistakes[MOST_IMAGES:] = [
            mistake._replace(pixels=None)
            for mistake in self._mistakes[MOST_IMAGES:]
        ]

    def result(self):
        """Returns the `Confusion` of all batches."""
        true = np.concatenate(self._true)
        predicted = np.concatenate(self._predicted)
        # Leave out classes of the model that neither have images nor were
        # predicted.
        others = np.unique(predicted[predicted >= self._num_classes])
        kept = [*range(self._num_classes), *others.tolist()]
        new_number = np.full(len(self._names), -1)
        new_number[kept] = np.arange(len(kept))
        matrix = confusion_matrix(true, new_number[predicted], len(kept))
        names = [self._names[i] for i in kept]
        return Confusion(names, self._num_classes, matrix, self._mistakes)
