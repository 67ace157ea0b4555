"""The folder of a training: settings, log, curves and the model.

A folder belongs to one training. If the training is started again with the same
settings, it is resumed. Other settings raise an error. So `run.json`, which has
the settings, is written first, and the file is complete or does not exist.
"""

import csv
import json
import os
import pathlib
import platform
import sys
from typing import Any

import keras

from keras_mixer.optional import is_installed
from keras_mixer.optional import require
from keras_mixer.types import Path

RUN_FILE = "run.json"


LOG_FILE = "log.csv"


CURVES_FILE = "curves.png"


MODEL_FILE = "model.keras"


CHECKPOINTS = "checkpoints"


# Facts that do not change the weights, and that differ between versions of
# this library.
NOT_COMPARED = ("skipped", "validation_count")


def open_run(
    folder: Path,
    settings: dict[str, Any],
    facts: dict[str, Any] | None = None,
    process: int = 0,
    defaults: dict[str, Any] | None = None,
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
        defaults: Dict of values for settings that are missing in `run.json`,
            because an earlier version wrote it.

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
    folder = pathlib.Path(folder)
    facts = facts or {}
    if (folder / RUN_FILE).exists():
        _check_same(folder, {"settings": settings, **facts}, defaults or {})
        return folder
    if process != 0:
        return folder
    if folder.exists() and (not folder.is_dir() or _files_of_others(folder)):
        raise ValueError(
            f"'{folder}' exists and is not the folder of a training. Give the "
            "path of a new or an empty folder."
        )
    record = {"settings": settings, **facts, "environment": _environment()}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RUN_FILE, record)
    return folder


def _files_of_others(folder):
    """Returns the files in a folder, except an unfinished `run.json`."""
    return [f for f in folder.iterdir() if f.name != _part(RUN_FILE).name]


def _check_same(folder, asked, defaults):
    record, asked = read_run(folder), json.loads(json.dumps(asked))
    record["settings"] = {**defaults, **record.get("settings", {})}
    asked["environment"] = {"backend": keras.backend.backend()}
    differ = [
        f"{key}: {record.get(part, {}).get(key)!r} there, {value!r} now"
        for part, values in asked.items()
        for key, value in values.items()
        if key not in NOT_COMPARED and record.get(part, {}).get(key) != value
    ]
    if differ:
        raise ValueError(
            f"'{folder}' belongs to another training. Give another folder, or "
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
    part = _part(path)
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _part(path):
    """Returns the name of a file until it is complete."""
    return pathlib.Path(path).with_suffix(".part")


def read_log(folder: Path) -> list[dict[str, float]]:
    """Returns the loss and the metrics of each epoch.

    Args:
        folder: Path of the folder of a training.

    Returns:
        A list of dicts with `epoch`, from 0, `loss`, `val_loss` and the
        metrics, such as `accuracy` and `val_accuracy`. The list is empty
        before the end of the first epoch.

    Example:

    >>> from keras_mixer import training
    >>> training.read_log("nowhere")
    []
    """
    path = pathlib.Path(folder, LOG_FILE)
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {"epoch": int(row.pop("epoch"))}
            | {key: float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def trim_log(path, epochs):
    """Removes the epochs after the first `epochs` from the log."""
    if not epochs or not path.exists():
        path.unlink(missing_ok=True)
        return
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    # A process that was killed may leave an incomplete line.
    whole = [line for line in lines if len(line) == len(lines[0])]
    kept = [line for line in whole[1:] if int(line[0]) < epochs]
    part = _part(path)
    with part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([lines[0], *kept])
    part.replace(path)


def save_model(folder: Path, model: keras.Model) -> None:
    """Saves the model of a training. The file is complete or not written.

    Args:
        folder: Path of the folder of a training.
        model: The trained model, which returns logits of shape `(batch,
            classes)`. The saved model returns probabilities and is not
            compiled.

    Raises:
        OSError: If the file cannot be written.

    Example:

    >>> import pathlib, tempfile
    >>> import keras_mixer
    >>> from keras_mixer import training
    >>> model = keras_mixer.MixerNano(
    ...     weights=None, classifier_activation=None)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     training.save_model(folder, model)
    ...     [path.name for path in pathlib.Path(folder).iterdir()]
    ['model.keras']
    """
    folder = pathlib.Path(folder)
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")
    saved = keras.Model(
        model.input, probabilities(model.output), name=model.name
    )
    part = folder / f"unfinished_{MODEL_FILE}"
    saved.save(part)
    part.replace(folder / MODEL_FILE)


def finish(folder: Path, results: dict[str, Any]) -> None:
    """Plots the curves of a training, and saves its results.

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
    write_json(folder / RUN_FILE, record)


def plot(log: list[dict[str, float]], path: Path) -> None:
    """Plots the loss, and the accuracy if it is in the log, over the epochs.

    Args:
        log: The list that `read_log` returns: a dict for each epoch.
        path: Path of the PNG file to write.

    Raises:
        ImportError: If Matplotlib is not installed.
        OSError: If the file cannot be written.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_mixer import training
    >>> row = {"loss": 1, "val_loss": 1, "accuracy": 0, "val_accuracy": 0}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "curves.png")
    ...     training.plot([{"epoch": epoch, **row} for epoch in (0, 1)], path)
    ...     path.exists()
    True
    """
    curves = [("loss", "loss: cross-entropy [nats]", 1)]
    if log and "accuracy" in log[0]:
        curves.append(("accuracy", "accuracy [%]", 100))
    figure = require("matplotlib.figure").Figure(
        (4.5 * len(curves), 4), layout="constrained"
    )
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    epochs = [row["epoch"] + 1 for row in log]
    for axes, (key, label, unit) in zip(panels, curves, strict=True):
        for prefix, name in (("", "training"), ("val_", "validation")):
            values = [unit * row[prefix + key] for row in log]
            axes.plot(epochs, values, ".-", label=name)
        axes.set(xlabel="epoch", ylabel=label, xlim=(0, len(epochs) + 1))
        axes.locator_params(axis="x", integer=True)
        axes.legend()
    figure.savefig(path, dpi=120)
