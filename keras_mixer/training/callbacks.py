"""Callbacks that `fit` adds to each training."""

import math
from typing import Any

import keras

from keras_mixer.training.runs import read_log


class SameMetrics(keras.callbacks.Callback):
    """Stops a resumed training whose metrics differ from those of its log.

    `CSVLogger` would append the values to the wrong columns. The check is at
    the end of an epoch, since Keras does not know the names of the metrics
    before.
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
    """Raises an error if the loss is NaN or infinite.

    Keras's `TerminateOnNaN(raise_error=True)` raises an error too, but it reads
    the loss of each step at once, which waits for the device, and its error has
    no learning rate. The checkpoints of the previous epochs are kept.

    Raises:
        FloatingPointError: In `model.fit`. The message has the step and the
            learning rate.

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
        # Check the loss of the previous step: reading the loss of this step
        # would wait for the device. The loss is the mean over the epoch so
        # far, so it does not become finite again.
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
        # `optimizer.iterations` is not used for the step: it counts updates,
        # and with gradient accumulation there are fewer updates than steps.
        raise FloatingPointError(
            f"The loss is not finite ({loss}) at step {self._step} of epoch "
            f"{self._epoch + 1}, with a learning rate of "
            f"{learning_rate(self.model.optimizer):.3g}. Use a smaller "
            "learning rate, a longer warm-up or `clip_norm`. The checkpoints "
            "of the previous epochs are kept."
        )


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Returns the learning rate of an optimizer.

    If there are several inner optimizers, returns the largest of their rates.

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
    """Returns a list of the inner optimizers, or of the optimizer itself."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(optimizer, "optimizers", [optimizer])
