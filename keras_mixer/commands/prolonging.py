"""Trains a finished training further.

The weights, the state of the optimizer and the stream of images go on from the
last checkpoint. The learning rate cannot: its decay has ended, so a warm-up and
a decay for the additional epochs follow (a warm restart). The result is
therefore not that of one training with all epochs. `run.json` lists the parts
that are finished as "parts", each with its epochs, recipe and results.
"""

from keras_mixer import training
from keras_mixer.training.best import is_over


def parts_of(folder, epochs, prolong):
    """Returns the finished parts of a training, the new one not included.

    Args:
        folder: Path of the folder of a training.
        epochs: Integer, the epochs that the user asks for; `None` for the
            default.
        prolong: Boolean, whether the user asks to prolong the training.

    Returns:
        A list of dicts with `epochs`, the number at the end of the part,
        `recipe` and `finished`. If it is longer than the one in `run.json`, the
        training is to be prolonged now.

    Raises:
        ValueError: If the training cannot be prolonged, or has another number
            of epochs.
    """
    if not (folder / training.RUN_FILE).exists():
        if prolong:
            raise ValueError(
                f"There is no training in '{folder}' to prolong. Omit "
                "`--prolong` to start one."
            )
        return []
    if prolong and epochs is None:
        raise ValueError(
            "`--prolong` needs `--epochs`, the number of epochs in total."
        )
    record = training.read_run(folder)
    parts = record.get("parts", [])
    planned = record["settings"]["epochs"]
    if epochs is None or epochs == planned:
        return parts
    _check_longer(folder, epochs, planned, prolong)
    if "finished" not in record:
        raise ValueError(
            f"Only a finished training can be prolonged. Repeat the command of "
            f"'{folder}' with `--epochs {planned}` first. "
            f"Received: epochs={epochs}"
        )
    log = training.read_log(folder)
    if is_over(log, record["settings"].get("patience")):
        raise ValueError(
            f"The training in '{folder}' stopped early (`--patience`), and "
            "would stop again at once. Start a new training from its model: "
            f"`--weights {folder / training.MODEL_FILE}` with another "
            "`--output`."
        )
    done = len(log)
    part = {key: record[key] for key in ("recipe", "finished")}
    return [*parts, {"epochs": done, **part}]


def _check_longer(folder, epochs, planned, prolong):
    if epochs < planned:
        raise ValueError(
            f"'{folder}' belongs to another training, of {planned} epochs. It "
            "cannot have fewer. Give another folder, or "
            f"`--epochs {planned}`. Received: epochs={epochs}"
        )
    if not prolong:
        raise ValueError(
            f"'{folder}' belongs to another training, of {planned} epochs. "
            "Give another folder, or add `--prolong` to train it further when "
            f"it is finished. Received: epochs={epochs}"
        )
