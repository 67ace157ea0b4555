"""Checkpoints, from which a training that was killed is resumed.

Keras 3.15's `BackupAndRestore` is not safe enough for this. It has no checksum,
so damage that leaves a readable file is not detected. With
`double_checkpoint=True` it keeps a copy of the previous files, but the weights
and the epoch are in two files: if the process is killed between them, they are
of different epochs. It does not always report a full disk: h5py, which writes
the weights, ignores errors while it closes a file.

Here a checkpoint is one file, with a checksum (see `states`). It holds all
variables of the model and of its optimizer: the weights and their averages, the
step (which determines the learning rate), and the state of the random number
generators.
"""

import logging
import pathlib

import keras

from keras_mixer.arguments import check_positive_int
from keras_mixer.training import states

logger = logging.getLogger("keras_mixer")


class Checkpoints(keras.callbacks.Callback):
    """Saves the state of a training after each epoch, and restores it.

    Args:
        folder: Path of a folder for the checkpoints only. It is created if it
            does not exist.
        keep: Positive integer, the number of last checkpoints to keep.
        writes: Boolean, whether this process saves. If several processes train
            together, only one of them saves.

    Raises:
        OSError: In `model.fit`, if a checkpoint cannot be written, for example
            because the disk is full. Earlier checkpoints are kept.
        ValueError: In `restore` and `last`, if all checkpoints are damaged; in
            `restore` and `load`, if the checkpoint is of another model.

    Example:

    >>> import tempfile
    >>> import keras, keras_mixer
    >>> from keras_mixer.training.checkpoints import Checkpoints
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder)
    ...     epoch = checkpoints.restore(model)
    ...     _ = model.fit(
    ...         keras.ops.ones((4, 2)), keras.ops.ones((4, 1)), epochs=3,
    ...         initial_epoch=epoch, callbacks=[checkpoints], verbose=0)
    ...     print(epoch, Checkpoints(folder).restore(model))
    0 3
    """

    def __init__(self, folder, keep=2, writes=True):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self._files = states.StateFiles(folder, "epoch")
        self.keep = check_positive_int("keep", keep)
        self.writes = writes

    def restore(self, model):
        """Loads the last undamaged checkpoint into a compiled model.

        Args:
            model: A compiled Keras model.

        Returns:
            The number of epochs that are done, for `initial_epoch` of `fit`; 0
            if there is no checkpoint.
        """
        epoch, path = self.last()
        self.load(model, path)
        return epoch

    def load(self, model, path):
        """Loads a checkpoint that `last` returned.

        Args:
            model: A compiled Keras model.
            path: Path of the checkpoint. If `None`, nothing is loaded.
        """
        # Build the optimizer even if nothing is loaded: if the first step has
        # to create its variables, TensorFlow traces the step twice, which is
        # slow.
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        if path is not None:
            states.load(_variables(model), path)

    def last(self):
        """Finds the last undamaged checkpoint, by reading the whole file.

        Returns:
            The number of epochs that are done, and the path of the checkpoint;
            0 and `None` if there is no checkpoint.
        """
        saved = self._files.saved()
        for epoch, digest, path in reversed(saved):
            if states.digest_of(path) == digest:
                return epoch, path
            logger.warning("%s is damaged; trying the one before it", path)
        if saved:
            raise ValueError(
                f"Every checkpoint in '{self.folder}' is damaged. Delete this "
                "folder to start again, or restore it from a backup."
            )
        return 0, None

    def on_epoch_end(self, epoch, logs=None):
        if not self.writes:
            return
        try:
            self._files.write(epoch + 1, _variables(self.model))
        except OSError as error:
            raise OSError(
                f"The checkpoint of epoch {epoch + 1} could not be written to "
                f"'{self.folder}': {error}. Earlier checkpoints are kept: free "
                "disk space, and start the training again to resume it."
            ) from error
        for _, _, path in self._files.saved()[: -self.keep]:
            path.unlink()


def _variables(model):
    """Returns `{name: variable}` of a model and of its optimizer."""
    optimizer = states.numbered("optimizer", model.optimizer.variables)
    return {**states.model_variables(model), **optimizer}
