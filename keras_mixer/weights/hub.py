"""Files of repositories on the Hugging Face hub, to files on this disk.

huggingface_hub resumes, checks and keeps them; here are the places that go
before it (the cache, a mirror), and what its errors mean.
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

    A file that somebody has put at `<cache>/<repo>/<name>` goes first, then a
    mirror, then the hub.

    Args:
        repo: String, `"organisation/name"`.
        names: Tuple of names of files, the preferred one first.

    Returns:
        `pathlib.Path` of the first of `names` that is there.

    Raises:
        DownloadError: If none of `names` is there, or the repository is not, or
            may not be read, or cannot be reached.
        ImportError: If it takes huggingface_hub, which is not installed.
        ValueError: If `repo` is no name of a repository, or a name leads out of
            the cache.
    """
    _check_repository(repo)
    files = [f"{repo}/{name}" for name in names]
    for file in files:
        if cache.is_cached(cache.path_of(file)):
            return cache.path_of(file)
    if cache.mirrored(repo) and not cache.is_offline():
        return _mirrored_first(files)
    return _download_first(repo, names, files)


def _check_repository(repo):
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
    """The first of `files` that the mirror has."""
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
    # A mirror may be a folder, as `file://`.
    return isinstance(getattr(error, "reason", None), FileNotFoundError)


def _download_first(repo, names, files):
    hub = require("huggingface_hub")
    require("huggingface_hub.constants")
    require("huggingface_hub.errors")
    offline = cache.is_offline() or hub.constants.HF_HUB_OFFLINE
    try:
        path = _first_of_hub(hub, repo, names, offline)
    # It raises errors of its own, of its HTTP client and of files.
    except Exception as error:
        # It has looked into its cache for the name that failed, but not for
        # those after it.
        path = _first_of_hub(hub, repo, names, offline=True)
        if path is None:
            cache.reserve(_hub_folder() / "file").unlink()
            raise DownloadError(
                f"Cannot fetch {cache.either(names)} from the repository "
                f"'{repo}' of the Hugging Face hub: {_hub_reason(hub, error)}\n"
                "Check that the repository exists and that you may read it "
                f"(`hf auth login`). {cache.advice(*map(cache.path_of, files))}"
            ) from error
    if path is None:
        raise DownloadError(_none_there(repo, names, files, offline))
    return path


def _hub_folder():
    return cache.folder() / "hub"


def _hub_reason(hub, error):
    # Out of reach: why is in the cause only.
    if isinstance(error, hub.errors.LocalEntryNotFoundError):
        return fetching.reason(error.__cause__ or error)
    return fetching.reason(error)


def _first_of_hub(hub, repo, names, offline):
    """The first of `names` in the repository, or offline in the hub's cache.

    Returns `None` if none is there.
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
            # Online, one that is missing here was out of reach there.
            is_local = isinstance(error, hub.errors.LocalEntryNotFoundError)
            if is_local and not offline:
                raise
    return None


def _none_there(repo, names, files, offline):
    places = cache.either(map(cache.path_of, files))
    if offline:
        return (
            f"Cannot fetch {cache.either(names)} of the repository '{repo}': "
            "KERAS_MIXER_OFFLINE or HF_HUB_OFFLINE is set, and none of them is "
            f"in '{_hub_folder()}'. Put the file at {places}, or unset "
            "the variable."
        )
    return (
        f"The repository '{repo}' of the Hugging Face hub has none of "
        f"{cache.either(names)}. Give the name of another one, or put the "
        f"file at {places}."
    )
