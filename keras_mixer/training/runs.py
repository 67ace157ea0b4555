"""The folder of a training: settings, lock, curves and the model.

A folder belongs to one training. If the training is started again with the same
settings, it is resumed. Other settings raise an error. So `run.json`, which has
the settings, is written first, and the file is complete or does not exist.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import platform
import sys
from typing import Any

import keras

from keras_mixer import atomic
from keras_mixer.arguments import check_call
from keras_mixer.arguments import check_local_path
from keras_mixer.optional import is_installed
from keras_mixer.training.log import plot
from keras_mixer.training.log import read_log
from keras_mixer.training.losses import probabilities_of
from keras_mixer.types import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("keras_mixer")

RUN_FILE = "run.json"
CURVES_FILE = "curves.png"
MODEL_FILE = "model.keras"
BEST_FILE = "best.keras"

# Facts that do not change the weights.
NOT_COMPARED = ("skipped", "validation_count")


def open_run(
    folder: Path,
    settings: dict[str, Any],
    facts: dict[str, Any] | None = None,
    process: int = 0,
) -> pathlib.Path:
    """Creates the folder of a training, or checks an existing one.

    Args:
        folder: Path of a new or empty folder, or of a training with these
            settings.
        settings: Dict of JSON values, everything that the training depends on.
        facts: Dict of dicts that follow from the settings and from the data.
            To resume, they must be the same too, except "skipped" and
            "validation_count", which do not change the weights.
        process: Integer, the index of this process. Only process 0 writes.

    Returns:
        The path of the folder.

    Raises:
        ValueError: If the folder has other files, or a training with other
            settings, other data or another backend. Nothing is changed then.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_mixer import training
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = training.open_run(pathlib.Path(folder, "a"), {"seed": 0})
    ...     training.read_run(run)["settings"]
    {'seed': 0}
    """
    check_local_path("folder", folder)
    folder = pathlib.Path(folder)
    facts = facts or {}
    if (folder / RUN_FILE).exists():
        _check_same(folder, {"settings": settings, **facts})
        return folder
    if process != 0:
        return folder
    check_folder(folder)
    record = {"settings": settings, **facts, "environment": _environment()}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RUN_FILE, record)
    return folder


def check_folder(folder):
    """Raises an error if a folder has files, but not those of a training.

    Args:
        folder: Path of a folder, which may be missing.
    """
    folder = pathlib.Path(folder)
    if not folder.exists() or (folder / RUN_FILE).exists():
        return
    if not folder.is_dir() or not all(map(atomic.is_part, folder.iterdir())):
        raise ValueError(
            f"'{folder}' exists and is not the folder of a training. Use the "
            "path of a new or an empty folder."
        )


def _check_same(folder, asked):
    record, asked = read_run(folder), json.loads(json.dumps(asked))
    asked["environment"] = {"backend": keras.backend.backend()}
    differ = [
        f"{key}: {record.get(part, {}).get(key)!r} there, {value!r} now"
        for part, values in asked.items()
        for key, value in values.items()
        if key not in NOT_COMPARED and record.get(part, {}).get(key) != value
    ]
    if differ:
        raise ValueError(
            f"'{folder}' belongs to another training. Use another folder, or "
            "the settings of that training to resume it: " + "; ".join(differ)
        )


def _environment():
    packages = ("keras", "keras_mixer", "numpy", keras.backend.backend())
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "backend": keras.backend.backend(),
        "versions": {name: _version(name) for name in packages},
    }


def _version(name):
    """Returns the version of an imported package.

    The metadata of installed packages is not used: a checkout on `PYTHONPATH`
    has no metadata, or that of another version. TensorFlow's can have another
    name, such as `tensorflow-cpu`.
    """
    return getattr(sys.modules.get(name), "__version__", "unknown")


def read_run(folder: Path) -> dict[str, Any]:
    """Returns the content of `run.json`, a dict.

    The key `finished` has the results, if the training is finished.

    Args:
        folder: Path of the folder of a training.

    Raises:
        ValueError: If `folder` is not the folder of a training, or `run.json`
            is damaged.

    Example:

    >>> from keras_mixer import training
    >>> training.read_run("nowhere")
    Traceback (most recent call last):
    ValueError: 'nowhere' is not the folder of a training: it has no run.json.
    """
    check_local_path("folder", folder)
    path = pathlib.Path(folder, RUN_FILE)
    if not path.is_file():
        raise ValueError(
            f"'{folder}' is not the folder of a training: it has no {RUN_FILE}."
        )
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(
            f"'{path}' is damaged ({error}). The training cannot be resumed "
            "without it: restore the file, or use another folder."
        ) from error


def write_json(path, content):
    with atomic.replacing(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


@contextlib.contextmanager
def locked(folder):
    """Keeps other processes from training in a folder.

    The system releases the lock when a process ends, whatever ends it. So the
    file of a process that was killed is taken over.

    Args:
        folder: Path of the folder of a training.

    Raises:
        ValueError: If a process trains there. The message names it.
        OSError: If the folder cannot be written.
    """
    if fcntl is None:  # Windows
        yield
        return
    path = pathlib.Path(folder, "lock.txt")
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            # Without a buffer, which would be written again at the end.
            file = stack.enter_context(path.open("a+b", buffering=0))
            _lock(file, folder)
            # The process that trained before may have deleted it meanwhile.
            if path.exists() and os.path.samestat(
                path.stat(), os.fstat(file.fileno())
            ):
                break
        stack.callback(path.unlink, missing_ok=True)
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n".encode())
        except OSError as error:
            raise OSError(
                error.errno, f"'{path}' could not be written: {error.strerror}"
            ) from error
        yield


def _lock(file, folder):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().decode().strip()
        raise ValueError(
            f"Another process trains in '{folder}': {owner}. Wait until it has "
            "ended, or use another folder."
        ) from None
    except OSError:  # a file system without locks
        logger.warning("'%s' cannot be locked: do not train twice", folder)


def save_model(
    folder: Path, model: keras.Model, file: str = MODEL_FILE
) -> None:
    """Saves the model of a training. The file is complete or not written.

    The saved model returns the probabilities of the classes, and is not
    compiled. If the model returns logits, its loss determines how they become
    probabilities.

    Args:
        folder: Path of the folder of a training.
        model: The trained model. It has an output of shape `(batch, classes)`,
            and is compiled unless this output is that of a softmax.
        file: Name of the file in the folder.

    Raises:
        ValueError: If the last layer and the loss are not those of a
            classification with one label for each image, such as with several
            labels or a number, or the model has a `call` of its own.
        OSError: If the file cannot be written.

    Example:

    >>> import pathlib, tempfile
    >>> import keras_mixer
    >>> from keras_mixer import recipes, training
    >>> model = keras_mixer.MixerNano(
    ...     weights=None, classifier_activation=None)
    >>> recipe = recipes.RECIPES["nano.cifar10"]
    >>> model.compile(**recipes.compile_options(recipe, steps=100))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     training.save_model(folder, model)
    ...     [path.name for path in pathlib.Path(folder).iterdir()]
    ['model.keras']
    """
    check_local_path("folder", folder)
    check_call(model)
    # Keras 3.15 has no `Sequential.input`.
    is_sequential = isinstance(model, keras.Sequential)
    inputs = model.inputs[0] if is_sequential else model.input
    saved = keras.Model(inputs, probabilities_of(model), name=model.name)
    with atomic.replacing(pathlib.Path(folder, file)) as part:
        saved.save(part)


def finish(folder: Path, results: dict[str, Any]) -> None:
    """Plots the curves of a training, and saves its results.

    The results are those of the model that was saved by `save_model` before: if
    another model replaces it, its card and its page do not show them.

    Args:
        folder: Path of the folder of a training.
        results: Dict of JSON values, for `finished` in `run.json`.

    Raises:
        ValueError: If `folder` is not the folder of a training.
        OSError: If a file cannot be written.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_mixer import training
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = training.open_run(pathlib.Path(folder, "a"), {"seed": 0})
    ...     training.finish(run, {"accuracy": 0.9})
    ...     training.read_run(run)["finished"]
    {'accuracy': 0.9}
    """
    folder = pathlib.Path(folder)
    if is_installed("matplotlib"):
        plot(read_log(folder), folder / CURVES_FILE)
    record = {**read_run(folder), "finished": results}
    if (folder / MODEL_FILE).is_file():
        record["model_digest"] = digest_of(folder / MODEL_FILE)
    write_json(folder / RUN_FILE, record)


def digest_of(path):
    """Returns a checksum of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
