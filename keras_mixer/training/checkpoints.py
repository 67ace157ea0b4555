"""Checkpoints, from which a training that was killed is resumed.

Keras 3.15's `BackupAndRestore` is not safe enough for this. It has no checksum,
so damage that leaves a readable file is not detected. With
`double_checkpoint=True` it keeps a copy of the previous files, but the weights
and the epoch are in two files: if the process is killed between them, they are
of different epochs. It does not always report a full disk: h5py, which writes
the weights, ignores errors while it closes a file.

Here a checkpoint is one NumPy file. It is complete on the disk before it gets
its final name, and the name contains the epoch and a checksum of the content.
The file holds all variables of the model and of its optimizer: the weights and
their averages, the step (which determines the learning rate), and the state of
the random number generators.
"""

import hashlib
import logging
import os
import pathlib
import re

import keras
import numpy as np

from keras_mixer.arguments import check_positive_int

logger = logging.getLogger("keras_mixer")


_NAME = re.compile(r"epoch_(\d+)\.([0-9a-f]{16})\.npz")


_UNFINISHED = "unfinished.npz"


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
            _load(model, path)

    def last(self):
        """Finds the last undamaged checkpoint, by reading the whole file.

        Returns:
            The number of epochs that are done, and the path of the checkpoint;
            0 and `None` if there is no checkpoint.
        """
        saved = self._saved()
        for epoch, digest, path in reversed(saved):
            if _digest(path) == digest:
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
        unfinished = self.folder / _UNFINISHED
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _save(self.model, unfinished)
            name = f"epoch_{epoch + 1:05d}.{_digest(unfinished)}.npz"
            unfinished.replace(self.folder / name)
            _sync_names(self.folder)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise OSError(
                f"The checkpoint of epoch {epoch + 1} could not be written to "
                f"'{self.folder}': {error}. Earlier checkpoints are kept: free "
                "disk space, and start the training again to resume it."
            ) from error
        for _, _, path in self._saved()[: -self.keep]:
            path.unlink()

    def _saved(self):
        """Returns a list of `(epoch, digest, path)`, the oldest first."""
        found = []
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if match := _NAME.fullmatch(path.name):
                    found.append((int(match[1]), match[2], path))
        return sorted(found)


def _variables(model):
    """Returns `{name: variable}`.

    The names are numbered. Keras's own names of variables are not used: they
    can differ in another process.
    """
    metrics = {id(variable) for variable in model.metrics_variables}
    variables = [v for v in model.variables if id(v) not in metrics]
    return {
        f"{owner}_{i}": variable
        for owner, owned in (
            ("model", variables),
            ("optimizer", model.optimizer.variables),
        )
        for i, variable in enumerate(owned)
    }


def _save(model, path):
    arrays = {}
    for name, variable in _variables(model).items():
        array = keras.ops.convert_to_numpy(variable)
        # NumPy files do not support bfloat16. float32 holds it exactly.
        arrays[name] = array.astype("f4") if array.dtype.kind == "V" else array
    with path.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())


def _load(model, path):
    variables = _variables(model)
    with np.load(path) as arrays:
        shapes = {name: arrays[name].shape for name in arrays.files}
        if shapes != {name: tuple(v.shape) for name, v in variables.items()}:
            raise ValueError(
                f"'{path}' is the checkpoint of another model, or of a model "
                "with another optimizer. Use another folder."
            )
        for name, variable in variables.items():
            variable.assign(arrays[name])


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _sync_names(folder):
    """Waits until the names of the files in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
