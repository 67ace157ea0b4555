"""The log of a training: a row for each epoch, in `log.csv`."""

import csv
import io
import pathlib
from typing import Any

from keras_mixer import atomic
from keras_mixer.arguments import check_local_path
from keras_mixer.optional import require
from keras_mixer.types import Path

LOG_FILE = "log.csv"


def read_log(folder: Path) -> list[dict[str, Any]]:
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
    check_local_path("folder", folder)
    header, *rows = _whole_lines(pathlib.Path(folder, LOG_FILE))
    named = [dict(zip(header, row, strict=True)) for row in rows]
    return [
        {"epoch": int(row.pop("epoch"))}
        | {key: float(value) for key, value in row.items()}
        for row in named
    ]


def _whole_lines(path):
    """Returns the header of a log and its complete lines, as lists of cells.

    A process that was killed may leave an incomplete last line. It can have all
    cells, with only a part of the last number.
    """
    if not path.exists():
        return [[]]
    # With the ends of lines as they are in the file.
    with path.open(newline="", encoding="utf-8") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]
    return list(csv.reader(io.StringIO(whole, newline=""))) or [[]]


def trim_log(folder, epochs):
    """Removes the epochs after the first `epochs` from the log."""
    path = pathlib.Path(folder, LOG_FILE)
    header, *rows = _whole_lines(path)
    if not epochs or not header:
        path.unlink(missing_ok=True)
        return
    kept = [line for line in rows if int(line[0]) < epochs]
    with (
        atomic.replacing(path) as part,
        part.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([header, *kept])


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
    check_local_path("path", path)
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
    with atomic.replacing(path) as part:
        figure.savefig(part, dpi=120)
