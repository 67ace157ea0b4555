"""Checkpoints, from which a training that was killed is resumed.

Keras 3.15's `BackupAndRestore` is not safe enough for this. It has no checksum,
so damage that leaves a readable file is not detected. With
`double_checkpoint=True` it keeps a copy of the previous files, but the weights
and the epoch are in two files: if the process is killed between them, they are
of different epochs. It does not always report a full disk: h5py, which writes
the weights, ignores errors while it closes a file.

Here a checkpoint is one NumPy archive with a checksum, and its name has the
number of the epoch. It holds all variables of the model and of its optimizer:
the weights and their averages, the step (which determines the learning rate),
and the state of the random number generators.
"""

import hashlib
import logging
import pathlib
import re

import keras
import numpy as np

from keras_mixer import atomic
from keras_mixer.arguments import check_local_path
from keras_mixer.arguments import check_positive_int

logger = logging.getLogger("keras_mixer")

CHECKPOINTS = "checkpoints"  # the folder in the folder of a training


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
        check_local_path("folder", folder)
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
            load_variables(_variables(model), path)

    def last(self):
        """Finds the last undamaged checkpoint, by reading the whole file.

        Returns:
            The number of epochs that are done, and the path of the checkpoint;
            0 and `None` if there is no checkpoint.
        """
        saved = saved_epochs(self.folder, "epoch")
        for epoch, path in reversed(saved.items()):
            if is_undamaged(path):
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
        what = f"The checkpoint of epoch {epoch + 1}"
        save_epoch(self.folder, "epoch", epoch, _variables(self.model), what)
        for path in [*saved_epochs(self.folder, "epoch").values()][
            : -self.keep
        ]:
            path.unlink()


def _variables(model):
    """Returns `{name: variable}` of a model and of its optimizer."""
    optimizer = _numbered("optimizer", model.optimizer.variables)
    return {**model_variables(model), **optimizer}


def model_variables(model):
    """Returns `{name: variable}` of a model, without its metrics.

    The names are numbered. Keras's own names of variables are not used: they
    can differ in another process.
    """
    metrics = {id(variable) for variable in model.metrics_variables}
    variables = [v for v in model.variables if id(v) not in metrics]
    return _numbered("model", variables)


def _numbered(owner, variables):
    return {f"{owner}_{i}": variable for i, variable in enumerate(variables)}


def saved_epochs(folder, kind):
    """Returns `{epoch: path}` of the files of a kind, the oldest first.

    Args:
        folder: Path of a folder, which may be missing.
        kind: String, the beginning of the names of the files.
    """
    name = re.compile(rf"{kind}_(\d+)\.npz")
    folder = pathlib.Path(folder)
    files = folder.iterdir() if folder.is_dir() else ()
    found = ((name.fullmatch(path.name), path) for path in files)
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def save_epoch(folder, kind, epoch, variables, what):
    """Saves variables after an epoch. If that fails, no file is changed.

    Args:
        folder: Path of the folder. It is created if it does not exist.
        kind: String, the beginning of the name of the file.
        epoch: Integer, the epoch, from 0. In the name, it counts from 1.
        variables: Dict of Keras variables.
        what: String, the name of the variables for the error message.

    Raises:
        OSError: If the file cannot be written.
    """
    arrays = {}
    for name, variable in variables.items():
        array = keras.ops.convert_to_numpy(variable)
        # NumPy files do not support bfloat16. float32 holds it exactly.
        arrays[name] = array.astype("f4") if array.dtype.kind == "V" else array
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(folder / f"{kind}_{epoch + 1:05d}.npz") as part:
            np.savez(part, checksum=_checksum(arrays.items()), **arrays)
    except OSError as error:
        raise OSError(
            f"{what} could not be saved: {error}. Earlier checkpoints are "
            "kept: start the training again to resume it."
        ) from error


def _checksum(arrays):
    """Returns a checksum of pairs of a name and an array."""
    digest = hashlib.sha256()
    for name, array in arrays:
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array))
    return np.frombuffer(digest.digest(), "uint8")


def is_undamaged(path):
    """Reads a file, and returns whether its checksum is right."""
    try:
        # NumPy leaves a file that it cannot read open.
        with path.open("rb") as file, np.load(file) as arrays:
            names = _names(arrays)
            read = _checksum((name, arrays[name]) for name in names)
            return (arrays["checksum"] == read).all()
    except Exception:  # NumPy raises errors of many types
        return False


def _names(arrays):
    return [name for name in arrays.files if name != "checksum"]


def load_variables(variables, path):
    """Assigns the arrays of a file to variables.

    Args:
        variables: Dict of Keras variables.
        path: Path of a file that was written from the same variables.

    Raises:
        ValueError: If the file is of other variables. Nothing is changed then.
    """
    with np.load(path) as arrays:
        shapes = {name: arrays[name].shape for name in _names(arrays)}
        if shapes != {name: tuple(v.shape) for name, v in variables.items()}:
            raise ValueError(
                f"'{path}' is the checkpoint of another model, or of a model "
                "with another optimizer. Use another folder."
            )
        for name, variable in variables.items():
            variable.assign(arrays[name])
