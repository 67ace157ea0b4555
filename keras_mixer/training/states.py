"""Files with the variables of a training, which survive a kill and damage.

A file is one NumPy archive. It is complete on the disk before it gets its final
name, and the name contains the number of the epoch and a checksum of the
content.
"""

import hashlib
import os
import pathlib
import re

import keras
import numpy as np


class StateFiles:
    """The files of one kind in a folder.

    Args:
        folder: Path of the folder. It is created for the first file.
        kind: String, the beginning of the names of the files.
    """

    def __init__(self, folder, kind):
        self.folder = pathlib.Path(folder)
        self.kind = kind
        self._name = re.compile(rf"{kind}_(\d+)\.([0-9a-f]{{16}})\.npz")

    def saved(self):
        """Returns a list of `(epoch, digest, path)`, the oldest first."""
        found = []
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if match := self._name.fullmatch(path.name):
                    found.append((int(match[1]), match[2], path))
        return sorted(found)

    def write(self, epoch, variables):
        """Writes a file. If that fails, the folder is left as it was.

        Args:
            epoch: Integer, the number of epochs that are done.
            variables: Dict of Keras variables.

        Raises:
            OSError: If the file cannot be written.
        """
        unfinished = self.folder / "unfinished.npz"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _save(variables, unfinished)
            name = f"{self.kind}_{epoch:05d}.{digest_of(unfinished)}.npz"
            unfinished.replace(self.folder / name)
            _sync_names(self.folder)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise


def model_variables(model):
    """Returns `{name: variable}` of a model, without its metrics.

    The names are numbered. Keras's own names of variables are not used: they
    can differ in another process.
    """
    metrics = {id(variable) for variable in model.metrics_variables}
    variables = [v for v in model.variables if id(v) not in metrics]
    return numbered("model", variables)


def numbered(owner, variables):
    """Returns `{name: variable}` with numbered names."""
    return {f"{owner}_{i}": variable for i, variable in enumerate(variables)}


def _save(variables, path):
    arrays = {}
    for name, variable in variables.items():
        array = keras.ops.convert_to_numpy(variable)
        # NumPy files do not support bfloat16. float32 holds it exactly.
        arrays[name] = array.astype("f4") if array.dtype.kind == "V" else array
    with path.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())


def load(variables, path):
    """Assigns the arrays of a file to variables.

    Args:
        variables: Dict of Keras variables.
        path: Path of a file that was written from the same variables.

    Raises:
        ValueError: If the file is of other variables. Nothing is changed then.
    """
    with np.load(path) as arrays:
        shapes = {name: arrays[name].shape for name in arrays.files}
        if shapes != {name: tuple(v.shape) for name, v in variables.items()}:
            raise ValueError(
                f"'{path}' is the checkpoint of another model, or of a model "
                "with another optimizer. Use another folder."
            )
        for name, variable in variables.items():
            variable.assign(arrays[name])


def digest_of(path):
    """Returns a checksum of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _sync_names(folder):
    """Waits until the names of the files in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
