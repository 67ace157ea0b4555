"""Writes a model to a repository on the Hugging Face hub, or to a folder.

The files are first written to a temporary folder. Then the folder is uploaded
in one commit, or renamed. So a repository or a folder is complete or unchanged.
"""

import contextlib
import json
import logging
import os
import pathlib
import re
import tempfile
from collections.abc import Sequence

import keras

from keras_mixer import atomic
from keras_mixer.arguments import check_call
from keras_mixer.arguments import check_model
from keras_mixer.exporting import checks
from keras_mixer.exporting import timm_config
from keras_mixer.exporting.card import CARD
from keras_mixer.exporting.card import CLASS_NAMES
from keras_mixer.exporting.card import CONFIG
from keras_mixer.exporting.card import FILES
from keras_mixer.exporting.card import MODEL
from keras_mixer.exporting.card import WEIGHTS
from keras_mixer.exporting.card import About
from keras_mixer.exporting.card import about_run
from keras_mixer.exporting.card import card
from keras_mixer.exporting.weights import export_weights
from keras_mixer.models.anatomy import check_holds_ours
from keras_mixer.optional import require
from keras_mixer.training.finished import model_file
from keras_mixer.types import Path
from keras_mixer.weights import downloads
from keras_mixer.weights.catalog import HUB
from keras_mixer.weights.hub import check_repository

logger = logging.getLogger("keras_mixer")

# The hub creates this file in each new repository.
CREATED_BY_HUB = ".gitattributes"


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
        target: `"hf://organization/name"`, a repository that is created if it
            is missing; or the path of a new folder. For a repository you must
            be logged in: `hf auth login`.
        best: Boolean, whether to use the model of the best epoch of a training.
        class_names: Optional list of the names of the classes. By default they
            are those of the training.
        license: Optional identifier of the license of the model, such as
            "apache-2.0", for the model card.
        private: Boolean, whether a new repository is private.
        overwrite: Boolean, whether to replace these files in an existing
            repository or folder. Other files in a repository are kept. A folder
            is only replaced if `push` wrote it and it has no other files.

    Returns:
        The address of the repository, or the path of the folder, as a string.

    Raises:
        ValueError: If an argument has a wrong value, the model is not one of
            this package's, or the training is not finished.
        TypeError: If an argument has a wrong type.
        FileExistsError: If the target exists and may not be replaced.
        PermissionError: If there is no token, or it has no write access.
        OSError: If the hub cannot be reached, or a file cannot be written.
        ImportError: If huggingface_hub, Jinja2 or safetensors is not installed.
            A local folder needs them, too.

    Example:

    >>> import pathlib, tempfile
    >>> import keras_mixer
    >>> model = keras_mixer.MixerNano(weights="cifar10")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = keras_mixer.push(model, pathlib.Path(folder, "nano"))
    ...     sorted(file.name for file in pathlib.Path(path).iterdir())
    ['README.md', 'model.keras', 'model.safetensors']
    """
    about = About()
    if isinstance(model, (str, os.PathLike)):
        file, about = model_file(model, best), about_run(model, best)
        model = keras.saving.load_model(file, compile=False)
    else:
        kinds = "a Keras model, or the path of the folder of a training"
        check_model(model, kinds)
        if best:
            raise ValueError(
                "`best=True` is only for the folder of a training. Received: "
                f"a Keras model and best={best}"
            )
    if class_names is not None:
        about = about._replace(class_names=class_names)
    return push_model(
        model,
        about,
        target,
        license=license,
        private=private,
        overwrite=overwrite,
    )


def push_model(
    model, about, target, *, license=None, private=False, overwrite=False
):
    """Writes a model and what is known about it; see `push`.

    Args:
        model: A Keras model.
        about: An `About`.
        target, license, private, overwrite: As for `push`.
    """
    for module in ("huggingface_hub", "jinja2", "safetensors"):
        require(module)
    check_holds_ours(model)
    names = checks.class_names(model, about.class_names)
    about = about._replace(class_names=names)
    _check_license(license)
    if not isinstance(target, (str, os.PathLike)):
        raise TypeError(
            "`target` must be 'hf://organization/name' or the path of a "
            f"folder. Received: target={target!r} (of type "
            f"{type(target).__name__})"
        )
    if str(target).startswith(HUB):
        repo = str(target).removeprefix(HUB)
        place = repo.rpartition("/")[2], repo
        _check_repository(repo, private, overwrite)
        with tempfile.TemporaryDirectory() as folder:
            _write(pathlib.Path(folder), model, about, place, license)
            return _upload(folder, repo, private)
    if private:
        raise ValueError(
            "`private=True` (`--private`) is only for a repository, "
            f"'hf://organization/name'. Received: target='{target}'"
        )
    folder = checks.local_path("target", target)
    kind = "a folder that `push` wrote, without other files"
    checks.check_target(folder, overwrite, _is_pushed, kind)
    with atomic.replacing(folder) as part:
        part.mkdir()
        _write(part, model, about, (folder.name, None), license)
    return str(folder)


def _check_license(license):
    is_text = isinstance(license, str)
    if license is None or (
        is_text and re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license)
    ):
        return
    raise (ValueError if is_text else TypeError)(
        "`license` must be an identifier of the Hugging Face hub, in lower "
        "case, such as 'apache-2.0', 'mit', 'cc-by-4.0' or 'other'. "
        f"Received: license={license!r}"
    )


def _is_pushed(folder):
    """Returns whether a folder has the files of `push`, and no others."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {}
    if not {CARD, MODEL} <= set(names) <= {CARD, *FILES}:
        return False
    text = (folder / CARD).read_text("utf-8", errors="replace")
    return "library_name: keras_mixer" in text


def _write(folder, model, about, place, license):
    """Writes all files to an empty folder."""
    _uncompiled(model).save(folder / MODEL)
    timm = _write_for_timm(folder, model, about)
    if about.class_names is not None:
        _write_json(folder / CLASS_NAMES, about.class_names)
    files = [file.name for file in folder.iterdir()]
    text = card(model, about, place, timm, files, license)
    (folder / CARD).write_text(text + "\n", "utf-8")


def _uncompiled(model):
    """Returns a model without the optimizer, which is larger than the model."""
    if not getattr(model, "compiled", False):
        return model
    check_call(model)
    inputs, outputs = model.inputs, model.outputs
    if not isinstance(model, keras.Sequential):
        inputs, outputs = model.input, model.output  # keeps dicts
    return keras.Model(inputs, outputs, name=model.name)


def _write_for_timm(folder, model, about):
    """Writes the files for timm; returns a `TimmConfig`."""
    try:
        export_weights(model, folder / WEIGHTS)
    except ValueError as error:
        logger.warning("%s is not written: %s", WEIGHTS, error)
        return timm_config.TimmConfig(reason="there are no weights for timm")
    evaluation = {
        "crop_ratio": about.crop_ratio,
        "interpolation": about.interpolation,
    }
    timm = timm_config.describe(model, evaluation, about.class_names)
    if timm.config is None:
        logger.info("%s is not written: %s", CONFIG, timm.reason)
    else:
        _write_json(folder / CONFIG, timm.config)
    return timm


def _write_json(path, content):
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, "utf-8")


def _check_repository(repo, private, overwrite):
    """Raises an error if a folder cannot be uploaded to a repository.

    Nothing is created or changed. Whether the user may write to the repository
    is not known before the upload.
    """
    check_repository(repo)
    if downloads.is_offline():
        raise OSError(
            f"Cannot push to '{repo}': KERAS_MIXER_OFFLINE is set. Unset it, "
            "or push to a local folder."
        )
    errors = require("huggingface_hub.errors")
    with _explained(repo):
        try:
            found = require("huggingface_hub").HfApi().model_info(repo)
        except errors.GatedRepoError:
            raise
        except errors.RepositoryNotFoundError:
            return
    files = {file.rfilename for file in found.siblings or ()}
    if files - {CREATED_BY_HUB} and not overwrite:
        raise FileExistsError(
            f"The repository '{repo}' exists and contains files. Use another "
            "name, or `overwrite=True` (`--overwrite` on the command line)."
        )
    if private and not found.private:
        raise ValueError(
            f"The repository '{repo}' exists and is public. Make it private in "
            "its settings on the hub, or use another name. "
            "Received: private=True"
        )


def _upload(folder, repo, private):
    """Uploads all files of a folder in one commit; returns the address."""
    api = require("huggingface_hub").HfApi(library_name="keras_mixer")
    with _explained(repo):
        # `None`: the default of the organization.
        address = api.create_repo(repo, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=folder,
            commit_message="Upload a model with keras_mixer",
            # Those that the folder does not have.
            delete_patterns=[CARD, *FILES],
        )
    logger.info("Uploaded to %s", address)
    return str(address)


@contextlib.contextmanager
def _explained(repo):
    """Explains the errors of huggingface_hub, as a context manager."""
    try:
        yield
    # The library raises its own errors, `OSError` and those of its HTTP client.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        text = f"Cannot push to '{repo}': {reason}\nThe files in the "
        text += "repository have not changed. "
        status = getattr(getattr(error, "response", None), "status_code", None)
        token = require("huggingface_hub").get_token()
        if status in (401, 403) or token is None:
            raise PermissionError(
                f"{text}Log in with `hf auth login`, or set HF_TOKEN. The "
                "token must have write access to the repository."
            ) from error
        raise OSError(f"{text}Try again, or push to a local folder.") from error
