"""What a finished training left in its folder: its models and their reports.

A report of `evaluate` names the model that it measured by a digest of the file.
After the training was continued, the file is another one, and the report is not
used any more.
"""

import json
import pathlib

from keras_mixer.training.runs import BEST_FILE
from keras_mixer.training.runs import MODEL_FILE
from keras_mixer.training.runs import digest_of
from keras_mixer.training.runs import read_run

# The folder of the report of each model, in the folder of the training.
REPORTS = {MODEL_FILE: "evaluation", BEST_FILE: "evaluation_best"}

REPORT_FILE = "evaluation.json"


def model_file(run, best=False):
    """Returns the path of a model of a finished training.

    Args:
        run: Path of the folder of the training.
        best: Boolean, whether to return the model of the best epoch.

    Raises:
        ValueError: If `run` is not the folder of a training, the training is
            not finished, or did not keep the model of the best epoch.
    """
    name = BEST_FILE if best else MODEL_FILE
    file = pathlib.Path(run, name)
    if "finished" not in read_run(run):
        raise ValueError(
            f"The training in '{run}' is not finished: repeat its command to "
            "resume it."
        )
    if file.is_file():
        return file
    advice = "Restore this file."
    if best:
        advice = (
            "A training keeps it if it is started with `--keep-best`. Leave "
            "out `best` to use the model of the last epoch."
        )
    raise ValueError(f"The training in '{run}' has no {name}. {advice}")


def report_folder(file):
    """Returns the folder of the report of a model file of a training."""
    return file.parent / REPORTS[file.name]


def results_of(file):
    """Returns the results of a model on the test images of its training.

    Args:
        file: Path of the model, from `model_file`.

    Returns:
        A dict with `accuracy` and `images`, the number of images. It is empty
        if this model was not measured, for example because it replaced the one
        that was.
    """
    record = read_run(file.parent)
    accuracy = record["finished"].get("accuracy")
    is_last = file.name == MODEL_FILE and accuracy is not None
    if is_last and record.get("model_digest") == digest_of(file):
        return {"accuracy": accuracy, "images": record["data"]["test_count"]}
    return report_of(file) or {}


def report_of(file):
    """Returns the report of a model on the test images of its training.

    Args:
        file: Path of the model, from `model_file`.

    Returns:
        The content of `evaluation.json`, a dict. `None` if there is no report,
        or it is of another model or of other images.
    """
    try:
        text = (report_folder(file) / REPORT_FILE).read_text("utf-8")
        report = json.loads(text)
        digest, data = report["model_digest"], report["about"]["data"]
    except (OSError, LookupError, TypeError, ValueError):
        return None
    settings = read_run(file.parent)["settings"]
    is_same = data == (settings["dataset"] or settings["data"])
    return report if is_same and digest == digest_of(file) else None
