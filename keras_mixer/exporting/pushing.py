"""Writes a model to a repository on the Hugging Face hub, or to a folder.

The files are first written to a temporary folder. Then the folder is uploaded
in one commit, or renamed. So a repository or a folder is complete or unchanged.
"""

import json
import logging
import os
import pathlib
import re
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_mixer.exporting import card_subject
from keras_mixer.exporting import cards
from keras_mixer.exporting import checks
from keras_mixer.exporting import timm_config
from keras_mixer.exporting import uploading
from keras_mixer.exporting.about import About
from keras_mixer.exporting.about import about_run
from keras_mixer.exporting.weights import export_weights
from keras_mixer.models.anatomy import check_holds_ours
from keras_mixer.optional import require
from keras_mixer.training.finished import model_file
from keras_mixer.types import Path
from keras_mixer.weights.hub import check_repository
from keras_mixer.weights.loading import HUB

logger = logging.getLogger("keras_mixer")

# All files that are written.
FILES = (
    card_subject.CARD,
    card_subject.CLASS_NAMES,
    card_subject.CONFIG,
    card_subject.MODEL,
    card_subject.WEIGHTS,
)


class Options(NamedTuple):
    """The options of `push` that do not describe the model."""

    license: str | None = None
    private: bool = False
    overwrite: bool = False


def push(
    model: keras.Model | Path,
    target: Path,
    *,
    best: bool = False,
    class_names: Sequence[str] | None = None,
    license: str | None = None,
    private: bool = False,
    overwrite: bool = False,
) -> str:
    """Writes a model to the Hugging Face hub, or to a local folder.

    The repository or folder contains:

    - `model.keras`, for `keras.saving.load_model`;
    - `model.safetensors` with timm's names, for `weights="hf://..."` and timm,
      if `export_weights` supports the model;
    - `config.json`, so that `timm.create_model("hf-hub:...")` and transformers
      load the model, if timm then computes the same as the model;
    - `class_names.json`, a list, if the names are known;
    - `README.md`, the model card: how to use the model, and, for the model of a
      training, its data, its recipe and its accuracy with the protocol.

    The files contain the name of the data and the names of the classes, but no
    paths and no names of image files. If an error occurs, the repository or
    folder is unchanged.

    Args:
        model: A Keras model that is or contains a model of this package, or the
            path of the folder of a finished training.
        target: `"hf://organisation/name"`, a repository that is created if it
            is missing; or the path of a new folder. For a repository you must
            be logged in: `hf auth login`.
        best: Boolean, whether to use the model of the best epoch of a training.
        class_names: Optional list of the names of the classes. By default they
            are those of the training.
        license: Optional identifier of the licence of the model, such as
            "apache-2.0", for the model card.
        private: Boolean, whether a new repository is private.
        overwrite: Boolean, whether to replace these files in an existing
            repository or folder. Other files in a repository are kept. A folder
            with other files is not replaced.

    Returns:
        The address of the repository, or the path of the folder, as a string.

    Raises:
        ValueError: If an argument has a wrong value, the model is not one of
            this package's, or the training is not finished.
        TypeError: If an argument has a wrong type.
        FileExistsError: If the target exists and `overwrite` is `False`.
        PermissionError: If there is no token, or it has no write access.
        OSError: If the hub cannot be reached, or a file cannot be written.
        ImportError: If huggingface_hub or safetensors is not installed.

    Example:

    >>> import pathlib, tempfile
    >>> import keras_mixer
    >>> model = keras_mixer.MixerNano(weights="cifar10")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = keras_mixer.push(model, pathlib.Path(folder, "nano"))
    ...     sorted(file.name for file in pathlib.Path(path).iterdir())
    ['README.md', 'model.keras', 'model.safetensors']
    """
    options = Options(license, private, overwrite)
    if isinstance(model, keras.Model):
        if best:
            raise ValueError(
                "`best=True` is only for the folder of a training. Received: "
                f"a Keras model and best={best}"
            )
        return push_described(model, About(), target, options, class_names)
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(
            "`model` must be a Keras model, or the path of the folder of a "
            f"training. Received: model={model!r} (of type "
            f"{type(model).__name__})"
        )
    file = model_file(model, best)
    about = about_run(model, best)
    return push_described(
        keras.saving.load_model(file, compile=False),
        about,
        target,
        options,
        class_names,
    )


def push_described(model, about, target, options, class_names=None):
    """Writes a model and what is known about it; see `push`.

    Args:
        model: A Keras model.
        about: An `About`.
        target, class_names: As for `push`.
        options: An `Options`.
    """
    require("huggingface_hub")
    require("safetensors")
    check_holds_ours(model)
    about = about._replace(class_names=_class_names(model, about, class_names))
    _check_license(options.license)
    if not isinstance(target, (str, os.PathLike)):
        raise TypeError(
            "`target` must be 'hf://organisation/name' or the path of a "
            f"folder. Received: target={target!r} (of type "
            f"{type(target).__name__})"
        )
    if str(target).startswith(HUB):
        return _to_hub(model, about, str(target).removeprefix(HUB), options)
    return _to_folder(model, about, target, options)


def _class_names(model, about, given):
    names = about.class_names if given is None else given
    if names is None:
        return None
    names = [str(name) for name in names]
    shape = model.outputs[0].shape if len(model.outputs) == 1 else ()
    if len(shape) != 2 or shape[-1] != len(names):
        raise ValueError(
            "`class_names` must have one name for each output of the model. "
            f"Received: {len(names)} names for an output of shape "
            f"{tuple(shape)}"
        )
    return names


def _check_license(license):
    if license is None:
        return
    if not isinstance(license, str):
        raise TypeError(
            "`license` must be a string. "
            f"Received: license={license!r} (of type {type(license).__name__})"
        )
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise ValueError(
            "`license` must be an identifier of the Hugging Face hub, in lower "
            "case, such as 'apache-2.0', 'mit', 'cc-by-4.0' or 'other'. "
            f"Received: license={license!r}"
        )


def _to_hub(model, about, repo, options):
    check_repository(repo)
    uploading.check(repo, options.private, options.overwrite)
    place = card_subject.Place(repo.rpartition("/")[2], repo)
    with tempfile.TemporaryDirectory() as folder:
        _write(pathlib.Path(folder), model, about, place, options)
        return uploading.upload(folder, repo, options.private, FILES)


def _to_folder(model, about, target, options):
    target = checks.local_path("target", target)
    _check_folder(target, options)
    place = card_subject.Place(target.name)
    # In the same folder, so that the finished folder is renamed, not copied.
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}.", dir=target.parent
    ) as folder:
        made, old = pathlib.Path(folder, "new"), pathlib.Path(folder, "old")
        made.mkdir()
        _write(made, model, about, place, options)
        if target.exists():
            target.rename(old)
        try:
            made.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    return str(target)


def _check_folder(target, options):
    if options.private:
        raise ValueError(
            "`private=True` is only for a repository, "
            f"'hf://organisation/name'. Received: target='{target}'"
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"The folder '{target.parent}' does not exist. Create it first. "
            f"Received: target='{target}'"
        )
    if not os.path.lexists(target):
        return
    if not options.overwrite:
        raise FileExistsError(
            f"'{target}' exists. Use another path, or `overwrite=True`."
        )
    if target.is_symlink() or not target.is_dir():
        raise FileExistsError(
            f"'{target}' is not a folder, so it is not replaced. Use another "
            "path."
        )
    others = sorted({file.name for file in target.iterdir()} - {*FILES})
    if others:
        raise FileExistsError(
            f"'{target}' contains other files, so it is not replaced. Use "
            f"another path. Received: {others[:5]}"
        )


def _write(folder, model, about, place, options):
    """Writes all files to an empty folder."""
    try:
        _save(model, folder / card_subject.MODEL)
        timm = _write_for_timm(folder, model, about)
        if about.class_names is not None:
            _write_json(folder / card_subject.CLASS_NAMES, about.class_names)
        files = [file.name for file in folder.iterdir()]
        subject = card_subject.subject_of(model, about, place, timm, files)
        text = cards.card(subject, options.license)
        (folder / card_subject.CARD).write_text(text, "utf-8")
    except OSError as error:
        raise OSError(
            f"The files could not be written to '{folder.parent}': {error}. "
            "Free disk space, or make the folder writable."
        ) from error


def _save(model, path):
    if getattr(model, "compiled", False):
        # The state of the optimizer is larger than the model.
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    model.save(path)


def _write_for_timm(folder, model, about):
    """Writes the files for timm; returns a `timm_config.Description`."""
    try:
        export_weights(model, folder / card_subject.WEIGHTS)
    except ValueError as error:
        reason = (
            "the model is fused or quantised, or has more weights than a Mixer "
            "or a ResMLP with one head"
        )
        logger.warning("%s is not written: %s", card_subject.WEIGHTS, error)
        return timm_config.Description(reason=reason)
    timm = timm_config.describe(model, about.evaluation, about.class_names)
    if timm.config is None:
        logger.info("%s is not written: %s", card_subject.CONFIG, timm.reason)
    else:
        _write_json(folder / card_subject.CONFIG, timm.config)
    return timm


def _write_json(path, content):
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, "utf-8")
