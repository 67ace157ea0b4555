"""Uploads a folder to a repository on the Hugging Face hub, in one commit."""

import contextlib
import logging

from keras_mixer.optional import require
from keras_mixer.weights import cache
from keras_mixer.weights.hub import check_repository

logger = logging.getLogger("keras_mixer")

# The hub creates this file in each new repository.
CREATED_BY_HUB = ".gitattributes"


def check(repo, private, overwrite):
    """Raises an error if a folder cannot be uploaded to a repository.

    Nothing is created or changed. Whether the user may write to the repository
    is not known before `upload`.

    Args:
        repo: String, `"organisation/name"`.
        private: Boolean, whether the repository must be private.
        overwrite: Boolean, whether it may contain files.

    Raises:
        ValueError: If `repo` is not a valid name, or `private` is `True` for an
            existing public repository.
        FileExistsError: If the repository contains files.
        PermissionError: If there is no token, or it has no access.
        OSError: If the hub cannot be reached.
        ImportError: If huggingface_hub is not installed.
    """
    check_repository(repo)
    hub = _hub()
    if cache.is_offline() or hub.constants.HF_HUB_OFFLINE:
        raise OSError(
            f"Cannot push to '{repo}': KERAS_MIXER_OFFLINE or HF_HUB_OFFLINE "
            "is set. Unset it, or push to a local folder."
        )
    if hub.get_token() is None:
        raise PermissionError(
            f"Cannot push to '{repo}': there is no token of the Hugging Face "
            f"hub. {_LOG_IN}"
        )
    with _explained(hub, repo):
        found = _find(hub, repo)
    if found is None:
        return
    files = {file.rfilename for file in found.siblings or ()}
    if files - {CREATED_BY_HUB} and not overwrite:
        raise FileExistsError(
            f"The repository '{repo}' exists and contains files. Use another "
            "name, or `overwrite=True`."
        )
    if private and not found.private:
        raise ValueError(
            f"The repository '{repo}' exists and is public. Make it private in "
            "its settings on the hub, or use another name. "
            "Received: private=True"
        )


def upload(folder, repo, private, names):
    """Uploads all files of a folder in one commit.

    Args:
        folder: Path of the folder.
        repo: String, `"organisation/name"`. It is created if it is missing.
        private: Boolean, whether a new repository is private.
        names: Names of files that are deleted from the repository if the folder
            does not have them.

    Returns:
        The address of the repository.

    Raises:
        PermissionError: If the token may not write to the repository.
        OSError: If the upload fails. The files of the repository have not
            changed then.
    """
    hub = _hub()
    with _explained(hub, repo):
        api = _api(hub)
        # `None`: the default of the organisation.
        address = api.create_repo(repo, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=folder,
            commit_message="Upload a model with keras_mixer",
            delete_patterns=list(names),
        )
    logger.info("Uploaded to %s", address)
    return str(address)


def _hub():
    hub = require("huggingface_hub")
    require("huggingface_hub.constants")
    require("huggingface_hub.errors")
    return hub


def _api(hub):
    return hub.HfApi(library_name="keras_mixer")


def _find(hub, repo):
    """Returns what the hub knows about a repository, or `None`."""
    try:
        return _api(hub).model_info(repo)
    except hub.errors.GatedRepoError:
        raise
    except hub.errors.RepositoryNotFoundError:
        return None


_LOG_IN = (
    "Log in with `hf auth login`, or set HF_TOKEN. The token must have write "
    "access."
)


@contextlib.contextmanager
def _explained(hub, repo):
    """Explains the errors of huggingface_hub, as a context manager."""
    try:
        yield
    # The library raises its own errors, `OSError` and those of its HTTP client.
    except Exception as error:
        text = f"Cannot push to '{repo}': {_first_line(error)}"
        response = getattr(error, "response", None)
        if getattr(response, "status_code", None) in (401, 403):
            raise PermissionError(
                f"{text}\nYour token has no write access to this repository, "
                f"or you may not create it. {_LOG_IN}"
            ) from error
        raise OSError(
            f"{text}\nThe files in the repository have not changed. Try again, "
            "or push to a local folder."
        ) from error


def _first_line(error):
    line = str(error).strip().partition("\n")[0]
    return line or type(error).__name__
