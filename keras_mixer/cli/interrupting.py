"""Ends a training after Ctrl-C."""

import keras

from keras_mixer import program


class StopOnInterrupt(keras.callbacks.Callback):
    """Raises `KeyboardInterrupt` after a batch if Ctrl-C was pressed before.

    Usually the exception of Ctrl-C itself ends the training. But Keras 3.15
    ignores every exception while it waits for the values of the metrics
    (`pythonify_logs`), which is most of the time on JAX. We found no upstream
    issue. Delete this class when `test_stopped_training_prints_how_to_resume`
    passes without it.
    """

    def on_train_batch_end(self, batch, logs=None):
        self._stop()

    def on_test_batch_end(self, batch, logs=None):
        self._stop()

    def _stop(self):
        if program.interrupted.is_set():
            raise KeyboardInterrupt
