"""The best epoch of a training: its weights, and when to stop after it.

Everything is derived from the log. Keras's `EarlyStopping` keeps the best value
in Python, so its patience starts again when the process is killed.
`ModelCheckpoint` takes the best value so far as an argument, but it needs the
name of the metric before the first epoch, it keeps an epoch whose loss is NaN
for ever if that was the first, and it overwrites the weights that a damaged
checkpoint may still need.
"""

import logging
import math
import pathlib

import keras

from keras_mixer.training.checkpoints import CHECKPOINTS
from keras_mixer.training.checkpoints import is_undamaged
from keras_mixer.training.checkpoints import load_variables
from keras_mixer.training.checkpoints import model_variables
from keras_mixer.training.checkpoints import save_epoch
from keras_mixer.training.checkpoints import saved_epochs
from keras_mixer.training.log import read_log
from keras_mixer.types import Path

logger = logging.getLogger("keras_mixer")

# The best epoch after each of the checkpoints from which the training could be
# resumed: the last two, and the next one.
KEPT = 3


def best_epoch(log: list[dict[str, float]]) -> dict[str, float] | None:
    """Returns the best epoch of a training.

    It has the highest accuracy on the validation images, or, if the log has no
    `val_accuracy`, the lowest `val_loss`. Of equal epochs, it is the first.

    Args:
        log: The list that `read_log` returns: a dict for each epoch.

    Returns:
        The dict of the best epoch, or `None` if no epoch has such a value that
        is finite.

    Example:

    >>> from keras_mixer import training
    >>> accuracies = [0.5, 0.75, 0.625]
    >>> log = [
    ...     {"epoch": i, "val_accuracy": a} for i, a in enumerate(accuracies)]
    >>> training.best_epoch(log)
    {'epoch': 1, 'val_accuracy': 0.75}
    """
    key = compared_by(log)
    rows = [row for row in log if math.isfinite(row.get(key, math.nan))]
    if not rows:
        return None
    best = max if key == "val_accuracy" else min
    return best(rows, key=lambda row: row[key])


def compared_by(log):
    """Returns the quantity by which epochs are compared."""
    has_accuracy = any("val_accuracy" in row for row in log)
    return "val_accuracy" if has_accuracy else "val_loss"


def is_over(log, patience):
    """Returns whether a training stops early after the last epoch of a log.

    Args:
        log: A list of dicts, as `read_log` returns.
        patience: Positive integer, the number of epochs without a better one
            after which the training stops, or `None`.
    """
    if patience is None or not log:
        return False
    best = best_epoch(log)
    # If no epoch has a finite value, all of them are without improvement.
    last_better = log[0]["epoch"] - 1 if best is None else best["epoch"]
    return log[-1]["epoch"] - last_better >= patience


def load_best(folder: Path, model: keras.Model) -> dict[str, float] | None:
    """Loads the weights of the best epoch of a training into its model.

    Args:
        folder: Path of the folder of a training by `fit(keep_best=True)`.
        model: The model that was trained. Its weights are replaced.

    Returns:
        The row of the log of that epoch, from `best_epoch`; or `None` if the
        weights of the best epoch do not exist or are damaged. The model is not
        changed then, and the reason is logged.

    Raises:
        ValueError: If the weights are those of another model.

    Example:

    >>> import keras
    >>> from keras_mixer import training
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> training.load_best("nowhere", model) is None
    True
    """
    best = best_epoch(read_log(folder))
    number = None if best is None else best["epoch"] + 1
    folder = pathlib.Path(folder, CHECKPOINTS)
    path = saved_epochs(folder, "best").get(number)
    if path is None or not is_undamaged(path):
        logger.warning(
            "'%s' has no undamaged weights of the best epoch (%s)",
            folder,
            number,
        )
        return None
    load_variables(model_variables(model), path)
    return best


class _FromLog(keras.callbacks.Callback):
    """Base class of callbacks that know all epochs of the training."""

    def __init__(self, log):
        super().__init__()
        self._log = list(log)

    def on_epoch_end(self, epoch, logs=None):
        self._log.append({"epoch": epoch, **logs})


class KeepBest(_FromLog):
    """Saves the weights of the best epoch, as they are validated.

    Args:
        folder: Path of the folder of the training.
        log: List of dicts, the epochs that are done.

    Raises:
        OSError: In `model.fit`, if the weights cannot be written.
    """

    def __init__(self, folder, log):
        super().__init__(log)
        self._folder = pathlib.Path(folder, CHECKPOINTS)

    def on_epoch_begin(self, epoch, logs=None):
        # Remove those of epochs that are repeated after a kill: on a GPU, they
        # can have another result now.
        self._remove(lambda number: number > epoch)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if best_epoch(self._log) is self._log[-1]:
            what = f"The weights of epoch {epoch + 1}, the best so far,"
            variables = model_variables(self.model)
            save_epoch(self._folder, "best", epoch, variables, what)
        ends = range(max(len(self._log) - KEPT, 0) + 1, len(self._log) + 1)
        bests = [best_epoch(self._log[:end]) for end in ends]
        kept = {best["epoch"] + 1 for best in bests if best is not None}
        self._remove(lambda number: number not in kept)

    def _remove(self, is_old):
        for number, path in saved_epochs(self._folder, "best").items():
            if is_old(number):
                path.unlink()


class StopEarly(_FromLog):
    """Stops the training if there was no better epoch for some epochs.

    Args:
        log: List of dicts, the epochs that are done.
        patience: Positive integer, the number of epochs to wait.
    """

    def __init__(self, log, patience):
        super().__init__(log)
        self._patience = patience

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if is_over(self._log, self._patience):
            self.model.stop_training = True
