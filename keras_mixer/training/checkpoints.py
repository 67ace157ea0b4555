"""Checkpoints from which a training that was killed goes on.

Keras's `BackupAndRestore` keeps the weights in one file and the epoch in
another, and writes both in place: killed in the middle, it leaves half a file
or two that do not belong together, and a file that is damaged without being
unreadable is not noticed. Nor is a full disk always: h5py, with which Keras
writes, drops errors that come up while a file is closed. Here a checkpoint is
one file of NumPy's, which is on the disk in full before it gets its name, and
the name holds the epoch and a checksum of the content. In it are all variables
of the model and of its optimizer: the weights and their averages, the step (and
so the learning rate), and the state of the random numbers.
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

    Source: this library; see `keras.callbacks.BackupAndRestore` for Keras's.

    Args:
        folder: Path of a folder of its own; made if it is not there.
        keep: Positive integer, how many of the last checkpoints are kept.
        writes: Boolean, whether this process saves: one of several does.

    Raises:
        OSError: In `model.fit`, if a checkpoint cannot be written, the disk
            being full, say. The ones before stay as they are.
        ValueError: In `restore` and `last`, if there are checkpoints but none
            is whole; in `restore` and `load`, if they are of another model.

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
        """Loads the last whole checkpoint into a compiled model.

        Args:
            model: A compiled Keras model.

        Returns:
            The number of epochs that are done: the `initial_epoch` of `fit`; 0
            if there is no checkpoint.
        """
        epoch, path = self.last()
        self.load(model, path)
        return epoch

    def load(self, model, path):
        """Loads a checkpoint that `last` has found.

        Args:
            model: A compiled Keras model.
            path: Path of the checkpoint, or `None`: nothing is loaded.
        """
        # Also where nothing is loaded: TensorFlow traces a step twice that has
        # to make the optimizer's variables, and tracing takes longest there.
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        if path is not None:
            _load(model, path)

    def last(self):
        """The last whole checkpoint; all of it is read, to see that.

        Returns:
            The number of epochs that were done, and its path; 0 and `None` if
            there is no checkpoint.
        """
        saved = self._saved()
        for epoch, digest, path in reversed(saved):
            if _digest(path) == digest:
                return epoch, path
            logger.warning("%s is damaged; trying the one before", path)
        if saved:
            raise ValueError(
                f"Every checkpoint in '{self.folder}' is damaged. Delete that "
                "folder to begin anew, or restore it from a backup."
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
                f"'{self.folder}': {error}. The ones before are whole: make "
                "room, and start the training again to go on from there."
            ) from error
        for _, _, path in self._saved()[: -self.keep]:
            path.unlink()

    def _saved(self):
        """`(epoch, digest, path)` of the checkpoints, the oldest first."""
        found = []
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if match := _NAME.fullmatch(path.name):
                    found.append((int(match[1]), match[2], path))
        return sorted(found)


def _variables(model):
    """`{name: variable}`, by number: Keras numbers layers in every process."""
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
        # NumPy's files do not know bfloat16; float32 holds it exactly.
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
                f"'{path}' is the checkpoint of another model, or of one with "
                "another optimizer. Give another folder."
            )
        for name, variable in variables.items():
            variable.assign(arrays[name])


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _sync_names(folder):
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
