"""Callbacks that `fit` adds to each training, and checks of those of users."""

import ast
import functools
import inspect
import math
from typing import Any

import keras

from keras_mixer.training.log import read_log


class Averages(keras.callbacks.SwapEMAWeights):
    """Validates the averages of the weights, and leaves them in the model.

    Callbacks that follow see at the end of an epoch what was validated: for
    example, `EarlyStopping` can restore it. With `swap_on_epoch=True`, Keras's
    own callback leaves the averages in the model when a training stops early,
    and at the end of each training it overwrites the weights, which a resumed
    training needs.
    """

    def on_test_end(self, logs=None):
        """Does nothing: `WithoutAverages` puts the weights back."""

    def put_weights_back(self):
        super().on_test_end()


class WithoutAverages(keras.callbacks.Callback):
    """Puts the weights back into the model at the end of an epoch.

    Args:
        averages: The `Averages` of the same training.
    """

    def __init__(self, averages):
        super().__init__()
        self._averages = averages

    def on_epoch_end(self, epoch, logs=None):
        self._averages.put_weights_back()


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


def check_callbacks(callbacks, optimizer, epochs):
    """Raises an error if a callback would fail in the training.

    Args:
        callbacks: The callbacks of the user.
        optimizer: The optimizer of the model.
        epochs: Integer, the number of epochs.

    Raises:
        TypeError: If one is not a Keras callback.
        ValueError: If one sets the learning rate, which a schedule determines.
    """
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(
                "`callbacks` must be a list of Keras callbacks. "
                f"Received: {callback!r} (of type {type(callback).__name__})"
            )
        has_schedule = any(
            isinstance(each.get_config()["learning_rate"], dict)
            for each in optimizers_of(optimizer)
        )
        if has_schedule and _sets_rate(callback, epochs):
            raise ValueError(
                "A callback cannot set the learning rate of an optimizer with "
                "a schedule, such as that of a recipe. Leave it out, or "
                "compile the model with an optimizer whose learning rate is a "
                f"number. Received: {type(callback).__name__}"
            )


def _sets_rate(callback, epochs):
    """Returns whether a function of a callback sets the learning rate."""
    is_reduced = isinstance(callback, keras.callbacks.ReduceLROnPlateau)
    if is_reduced and callback.patience >= epochs:
        return False  # it only logs the rate
    # Those of a `LambdaCallback` are its attributes. In a notebook, functions
    # have a source, but classes do not.
    return any(
        inspect.isroutine(value) and _has_assignment(value)
        for owner in (callback, *type(callback).__mro__[:-1])
        for value in vars(owner).values()
    )


def _has_assignment(function):
    try:
        lines, first = inspect.getsourcelines(function)
        # The lines of a `lambda` cannot be parsed without those around them.
        tree = _parsed("".join(inspect.findsource(function)[0]))
    except (OSError, SyntaxError, TypeError):  # a function without a source
        return False
    span = range(first, first + len(lines))
    return any(
        _assigns_rate(node)
        for node in ast.walk(tree)
        if getattr(node, "lineno", None) in span
    )


_parsed = functools.lru_cache(8)(ast.parse)


def _assigns_rate(node):
    """Returns whether a node of a syntax tree sets the rate of an optimizer."""
    match node:
        case (
            ast.Attribute(owner, "learning_rate", ast.Store())
            | ast.Call(
                ast.Attribute(ast.Attribute(owner, "learning_rate"), "assign")
            )
            | ast.Call(
                ast.Name("setattr"), [owner, ast.Constant("learning_rate"), _]
            )
        ):
            return ast.unparse(owner).endswith(("optimizer", "opt"))
    return False
