"""Callbacks that every training uses."""

import math
from typing import Any

import keras

from keras_mixer.training.runs import read_log


class SameMetrics(keras.callbacks.Callback):
    """Ends a resumed training that measures something else than its log.

    `CSVLogger` would append the values under the wrong names. Keras does not
    know the names of the metrics before the first epoch is over.
    """

    def __init__(self, folder):
        super().__init__()
        self._folder = folder

    def on_epoch_end(self, epoch, logs=None):
        rows = read_log(self._folder)
        if rows and rows[0].keys() - {"epoch"} != logs.keys():
            raise ValueError(
                "A training must be resumed with the same metrics: "
                f"{sorted(rows[0].keys() - {'epoch'})}. "
                f"Received: {sorted(logs)}"
            )


class StopOnLostLoss(keras.callbacks.Callback):
    """Ends a training whose loss is NaN or infinite, with an error.

    Keras's `TerminateOnNaN` ends it as if it were finished. The checkpoints of
    the epochs before stay.

    Source: this library.

    Raises:
        FloatingPointError: In `model.fit`, with the step and the learning rate.

    Example:

    >>> import keras
    >>> from keras_mixer.training import StopOnLostLoss
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(1e30), "mse")
    >>> x, y = keras.ops.ones((8, 1)), keras.ops.zeros((8, 1))
    >>> try:
    ...     model.fit(x, y, 2, 9, callbacks=[StopOnLostLoss()], verbose=0)
    ... except FloatingPointError as error:
    ...     print(str(error)[:22])
    The loss is not finite
    """

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self._epoch, self._step, self._loss = epoch, 0, 0.0

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        # One step late: to look at the loss of this step would wait for the
        # device. It is the mean of the epoch so far, so it stays not finite.
        self._check()
        self._step, self._loss = batch + 1, (logs or {})["loss"]

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self._check()

    def _check(self):
        loss = float(self._loss)
        if math.isfinite(loss):
            return
        # Counted here: an optimizer counts updates of the weights, which are
        # fewer than steps where gradients are accumulated.
        raise FloatingPointError(
            f"The loss is not finite ({loss}) at step {self._step} of epoch "
            f"{self._epoch + 1}, with a learning rate of "
            f"{learning_rate(self.model.optimizer):.3g}. Use a smaller "
            "learning rate, a longer warm-up or `clip_norm`. The training is "
            "resumed from its last checkpoint."
        )


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate of an optimizer; the largest of several.

    Args:
        optimizer: A Keras optimizer.

    Example:

    >>> import keras
    >>> from keras_mixer import training
    >>> training.learning_rate(keras.optimizers.SGD(0.5))
    0.5
    """
    return max(float(each.learning_rate) for each in optimizers_of(optimizer))


def optimizers_of(optimizer):
    """Those within an optimizer, of several or of scaled losses; or itself."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(optimizer, "optimizers", [optimizer])
