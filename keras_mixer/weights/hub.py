"""Files and `config.json` of repositories on the Hugging Face hub.

huggingface_hub resumes, checks and stores the downloads. This module looks in
the cache and on the mirror first, and explains the errors of huggingface_hub.
"""

import json
import pathlib
import re
import urllib.error

from keras_mixer.optional import require
from keras_mixer.weights import downloads
from keras_mixer.weights import keras_config
from keras_mixer.weights import keras_files
from keras_mixer.weights.errors import DownloadError
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import ModelConfig
from keras_mixer.weights.formats import parse_scaling

_REPOSITORY = re.compile(r"\w([\w.-]*\w)?/\w([\w.-]*\w)?", re.ASCII)


def fetch(repo, names):
    """Returns the path of a weights file of a repository.

    A file that was put at `<cache>/<repo>/<name>` is used first, then the
    mirror, then the hub.

    Args:
        repo: String, `"organization/name"`.
        names: Tuple of file names, the preferred one first.

    Returns:
        `pathlib.Path` of the first of `names` that exists.

    Raises:
        DownloadError: If none of `names` exists, or if the repository does not
            exist, cannot be read or cannot be reached.
        ImportError: If huggingface_hub is needed but not installed.
        ValueError: If `repo` is not a valid name, or if one of `names` leads
            out of the cache.
    """
    path = _find(repo, names)
    if path is not None:
        return path
    files = [f"{repo}/{name}" for name in names]
    places = downloads.either(map(downloads.path_of, files))
    if downloads.mirrored(repo):
        raise DownloadError(
            "The mirror has none of "
            f"{', '.join(map(downloads.mirrored, files))}. Put the file there, "
            f"or at {places}."
        )
    raise DownloadError(
        f"The repository '{repo}' of the Hugging Face hub does not contain "
        f"{downloads.either(names)}. Use the name of another file, or put the "
        f"file at {places}."
    )


def fetch_config(repo):
    """Fetches `config.json` from the mirror, if there is a mirror.

    Call this before `fetch`. If it fails, no weights are left in the cache that
    look as if a user had put them there without it.
    """
    if downloads.mirrored(repo) and not downloads.is_offline():
        _find(repo, (keras_config.ARCHIVED,), _read_json)


def read_config(repo, weights):
    """Returns what `config.json` says about the weights of a repository.

    The file is that of timm, or that of Keras: `model.save("hf://...")` writes
    `config.json`, `metadata.json` and `model.weights.h5`, the members of a
    `.keras` file. The weights of Keras are read with the configuration of
    Keras. The file is only read as JSON, so code from the repository cannot
    run.

    Args:
        repo: String, `"organization/name"`.
        weights: Path of the weights file, from `fetch`.

    Returns:
        A `ModelConfig`. It is empty if the repository has no such file, or if
        its content is neither of timm nor of Keras.

    Raises:
        DownloadError: If it is not known whether the repository has the file.
        WeightsError: If the file is too large or is not JSON.
    """
    name = keras_config.ARCHIVED
    if (
        weights.is_relative_to(downloads.path_of(repo))
        and not downloads.mirrored(repo)
        and not downloads.is_cached(downloads.path_of(f"{repo}/{name}"))
    ):
        return ModelConfig()  # the user put only the weights there
    path = _find(repo, (name,), _read_json)
    if path is None:
        return ModelConfig()
    config = _read_json(path)
    if weights.name == keras_files.ARCHIVED:
        return keras_config.describe(config)
    try:
        config = config.get("pretrained_cfg", config)
        return ModelConfig(scaling=parse_scaling(config["mean"], config["std"]))
    except (AttributeError, LookupError, TypeError):
        return ModelConfig()


def _read_json(path):
    size = path.stat().st_size
    if size > keras_config.MAX_BYTES:
        raise WeightsError(
            f"Cannot load '{path}': it has {size} bytes. At most "
            f"{keras_config.MAX_BYTES} bytes are allowed"
        )
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"Cannot load '{path}': it is not JSON ({error}). Remove it, so "
            "that it is downloaded again"
        ) from error


def check_repository(repo):
    """Raises an error if `repo` is not `"organization/name"`."""
    if (
        not _REPOSITORY.fullmatch(repo)
        or "--" in repo
        or ".." in repo
        or repo.endswith(".git")
    ):
        raise ValueError(
            "A repository of the Hugging Face hub must be named as "
            f"'organization/name'. Received: {repo!r}"
        )


def _find(repo, names, *check):
    """Returns the first of `names` that exists; `None` if there is none.

    Args:
        repo, names: As for `fetch`.
        *check: As for `downloads.download`.
    """
    check_repository(repo)
    files = [f"{repo}/{name}" for name in names]
    for file in files:
        if downloads.is_cached(downloads.path_of(file)):
            return downloads.path_of(file)
    if not downloads.mirrored(repo) or downloads.is_offline():
        return _find_on_hub(repo, names)
    for file in files:
        try:
            url = downloads.mirrored(file)
            return downloads.download(file, url, None, None, *check)
        except DownloadError as error:
            if not _is_missing(error.__cause__):
                raise
    return None


def _is_missing(error):
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (404, 410)
    # A mirror can be a local folder (`file://`).
    return isinstance(getattr(error, "reason", None), FileNotFoundError)


def _find_on_hub(repo, names):
    hub = require("huggingface_hub")
    errors = require("huggingface_hub.errors")
    places = [downloads.path_of(f"{repo}/{name}") for name in names]
    what = f"{downloads.either(names)} from the repository '{repo}'"
    if (
        downloads.is_offline()
        or require("huggingface_hub.constants").HF_HUB_OFFLINE
    ):
        path, is_known = _find_in_cache(hub, repo, names)
        if path is None and not is_known:
            raise DownloadError(
                f"Cannot fetch {what}: KERAS_MIXER_OFFLINE or HF_HUB_OFFLINE "
                "is set, and none of these files is in "
                f"'{_hub_folder()}'. Put the file at "
                f"{downloads.either(places)}, or unset the variable."
            )
        return path
    downloads.make_folder(_hub_folder())
    try:
        return _download_first(hub, errors, repo, names)
    # The library raises its own errors, `OSError` and those of its HTTP client.
    except Exception as error:
        path, is_known = _find_in_cache(hub, repo, names)
        if path is None and not is_known:
            raise DownloadError(
                f"Cannot fetch {what} of the Hugging Face hub: "
                f"{_reason(errors, error)}\n"
                "Check that the repository exists and that you can read it "
                f"(`hf auth login`). {downloads.advice(*places)}"
            ) from error
        return path


def _download_first(hub, errors, repo, names):
    for name in names:
        try:
            path = hub.hf_hub_download(repo, name, cache_dir=_hub_folder())
            return pathlib.Path(path)
        except errors.EntryNotFoundError as error:
            # This error means that the hub could not be reached.
            if isinstance(error, errors.LocalEntryNotFoundError):
                raise
    return None


def _find_in_cache(hub, repo, names):
    """Looks for files in the cache of huggingface_hub.

    Returns:
        The path of the first of `names`, or `None`; and whether it is known
        that the repository has none of the others.
    """
    found = [
        hub.try_to_load_from_cache(repo, name, cache_dir=_hub_folder())
        for name in names
    ]
    paths = [pathlib.Path(each) for each in found if isinstance(each, str)]
    return next(iter(paths), None), None not in found


def _hub_folder():
    return downloads.folder() / "hub"


def _reason(errors, error):
    # If the hub cannot be reached, the reason is only in the cause.
    if isinstance(error, errors.LocalEntryNotFoundError):
        return downloads.reason(error.__cause__ or error)
    return downloads.reason(error)
