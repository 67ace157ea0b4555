"""Downloads files from repositories on the Hugging Face hub.

huggingface_hub resumes, checks and stores the downloads. This module looks in
the cache and on the mirror first, and explains the errors of huggingface_hub.
"""

import pathlib
import re
import urllib.error

from keras_mixer.optional import require
from keras_mixer.weights import cache
from keras_mixer.weights import fetching
from keras_mixer.weights.errors import DownloadError

NOT_THERE = (404, 410)

_REPOSITORY = re.compile(r"\w([\w.-]*\w)?/\w([\w.-]*\w)?", re.ASCII)


def fetch(repo, names):
    """Returns the path of a file of a repository of the Hugging Face hub.

    A file that was put at `<cache>/<repo>/<name>` is used first, then the
    mirror, then the hub.

    Args:
        repo: String, `"organisation/name"`.
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
    check_repository(repo)
    files = [f"{repo}/{name}" for name in names]
    for file in files:
        if cache.is_cached(cache.path_of(file)):
            return cache.path_of(file)
    if cache.mirrored(repo) and not cache.is_offline():
        return _mirrored_first(files)
    return _download_first(repo, names, files)


def check_repository(repo):
    """Raises an error if `repo` is not `"organisation/name"`."""
    if (
        not _REPOSITORY.fullmatch(repo)
        or "--" in repo
        or ".." in repo
        or repo.endswith(".git")
    ):
        raise ValueError(
            "A repository of the Hugging Face hub must be given as "
            f"'organisation/name'. Received: {repo!r}"
        )


def _mirrored_first(files):
    """Downloads the first of `files` that the mirror has."""
    for file in files:
        try:
            return fetching.fetch(file, cache.mirrored(file))
        except DownloadError as error:
            if not _is_missing(error.__cause__):
                raise
    raise DownloadError(
        f"The mirror has none of {', '.join(map(cache.mirrored, files))}. "
        f"{cache.advice(*map(cache.path_of, files))}"
    )


def _is_missing(error):
    if isinstance(error, urllib.error.HTTPError):
        return error.code in NOT_THERE
    # A mirror can be a local folder (`file://`).
    return isinstance(getattr(error, "reason", None), FileNotFoundError)


def _download_first(repo, names, files):
    hub = require("huggingface_hub")
    require("huggingface_hub.constants")
    require("huggingface_hub.errors")
    offline = cache.is_offline() or hub.constants.HF_HUB_OFFLINE
    try:
        path = _first_of_hub(hub, repo, names, offline)
    # The library raises its own errors, `OSError` and those of its HTTP client.
    except Exception as error:
        # The library has looked in its cache for the name that failed, but not
        # for the other names.
        path = _first_of_hub(hub, repo, names, offline=True)
        if path is None:
            cache.reserve(_hub_folder() / "file").unlink()
            raise DownloadError(
                f"Cannot fetch {cache.either(names)} from the repository "
                f"'{repo}' of the Hugging Face hub: {_hub_reason(hub, error)}\n"
                "Check that the repository exists and that you can read it "
                f"(`hf auth login`). {cache.advice(*map(cache.path_of, files))}"
            ) from error
    if path is None:
        raise DownloadError(_none_there(repo, names, files, offline))
    return path


def _hub_folder():
    return cache.folder() / "hub"


def _hub_reason(hub, error):
    # If the hub cannot be reached, the reason is only in the cause.
    if isinstance(error, hub.errors.LocalEntryNotFoundError):
        return fetching.reason(error.__cause__ or error)
    return fetching.reason(error)


def _first_of_hub(hub, repo, names, offline):
    """Returns the first of `names` that exists in the repository, or `None`.

    If `offline`, it looks only in the cache of huggingface_hub.
    """
    for name in names:
        try:
            path = hub.hf_hub_download(
                repo,
                name,
                cache_dir=_hub_folder(),
                local_files_only=offline,
            )
            return pathlib.Path(path)
        except hub.errors.EntryNotFoundError as error:
            # Online, this error means that the hub could not be reached.
            is_local = isinstance(error, hub.errors.LocalEntryNotFoundError)
            if is_local and not offline:
                raise
    return None


def _none_there(repo, names, files, offline):
    places = cache.either(map(cache.path_of, files))
    if offline:
        return (
            f"Cannot fetch {cache.either(names)} from the repository '{repo}': "
            "KERAS_MIXER_OFFLINE or HF_HUB_OFFLINE is set, and none of these "
            f"files is in '{_hub_folder()}'. Put the file at {places}, or "
            "unset the variable."
        )
    return (
        f"The repository '{repo}' of the Hugging Face hub does not contain "
        f"{cache.either(names)}. Give the name of another file, or put the "
        f"file at {places}."
    )
