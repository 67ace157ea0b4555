"""Checks that `export` and `push` share."""

import os
import pathlib
from collections.abc import Mapping
from collections.abc import Set

from keras_mixer.arguments import check_local_path


def local_path(name, path):
    """Returns the absolute path of a target on this machine."""
    check_local_path(name, path)
    return pathlib.Path(os.path.abspath(path))


def check_target(path, overwrite, is_replaceable, kind):
    """Raises an error if nothing may be written to a path.

    Args:
        path: An absolute `pathlib.Path`.
        overwrite: Boolean, whether the user allows to replace what is there.
        is_replaceable: Function that takes the path and returns whether this
            package wrote what is there. Everything else is kept.
        kind: What may be replaced, for the message.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The folder '{path.parent}' does not exist. Create it first. "
            f"Received: '{path}'"
        )
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise FileExistsError(
            f"'{path}' exists. Use another path, or `overwrite=True` "
            "(`--overwrite` on the command line)."
        )
    if path.is_symlink() or not is_replaceable(path):
        raise FileExistsError(
            f"'{path}' is not {kind}, so it is not replaced. Use another path, "
            "or delete it yourself."
        )


def class_names(model, names):
    """Returns the names of the classes as a list of strings, or `None`.

    Raises:
        ValueError: If there is not one name for each output of the model.
        TypeError: If `names` has no order, or is one string.
    """
    if names is None:
        return None
    if isinstance(names, (str, bytes, Mapping, Set)):
        raise TypeError(
            "`class_names` must be a list of strings. Received: "
            f"class_names={names!r} (of type {type(names).__name__})"
        )
    names = [str(name) for name in names]
    shapes = [tuple(output.shape) for output in model.outputs]
    if len(shapes) != 1 or shapes[0][1:] != (len(names),):
        raise ValueError(
            "`class_names` must have one name for each output of the model. "
            f"Received: {len(names)} names for outputs of the shapes {shapes}"
        )
    return names
