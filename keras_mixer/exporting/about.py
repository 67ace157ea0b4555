"""What is known about a model besides the model: its training, its accuracy."""

import json
import pathlib
from typing import NamedTuple

from keras_mixer.data.photos import CROP_RATIO
from keras_mixer.data.photos import INTERPOLATION
from keras_mixer.training.runs import BEST_FILE
from keras_mixer.training.runs import MODEL_FILE
from keras_mixer.training.runs import read_log
from keras_mixer.training.runs import read_run
from keras_mixer.weights import catalog

# The report that `evaluate --best` writes into the folder of a training.
BEST_REPORT = ("evaluation_best", "evaluation.json")


class About(NamedTuple):
    """Facts about a model, for its model card."""

    class_names: list | None = None
    crop_ratio: float = CROP_RATIO  # of evaluation
    interpolation: str = INTERPOLATION
    run: dict | None = None  # the content of `run.json`
    epochs: int | None = None  # that the model was trained for
    best: bool = False  # whether it is the model of the best epoch
    accuracy: float | None = None  # fraction of the test images
    images: int | None = None  # number of the test images
    record: catalog.Record | None = None  # of published weights

    @property
    def evaluation(self):
        """A dict: how to crop and resize images."""
        return {
            "crop_ratio": self.crop_ratio,
            "interpolation": self.interpolation,
        }


def model_file(run, best):
    """Returns the path of the model of a finished training.

    Raises:
        ValueError: If `run` is not the folder of a finished training, or the
            model was not kept.
    """
    record = read_run(run)
    file = pathlib.Path(run, BEST_FILE if best else MODEL_FILE)
    if "finished" not in record:
        raise ValueError(
            f"The training in '{run}' is not finished: repeat its command to "
            f"resume it. Received: '{run}'"
        )
    if not file.is_file():
        raise ValueError(
            f"The training in '{run}' has no {file.name}. "
            + (
                "A training keeps the model of the best epoch if it is started "
                "with `--keep-best`. Use `best=False` for the model of the "
                "last epoch."
                if best
                else "Restore this file."
            )
            + f" Received: '{run}'"
        )
    return file


def about_run(run, best=False):
    """Returns what is known about the model of a finished training.

    Args:
        run: Path of the folder of the training.
        best: Boolean, whether the model is that of the best epoch.
    """
    record, log = read_run(run), read_log(run)
    settings, data = record["settings"], record["data"]
    finished = record["finished"]
    accuracy, images = finished["accuracy"], data["test_count"]
    epochs = log[-1]["epoch"] + 1 if log else settings["epochs"]
    if best:
        accuracy, images = _accuracy_of_best(run, settings)
        epochs = finished.get("best_epoch")
    return About(
        class_names=list(data["class_names"]),
        crop_ratio=settings["crop_ratio"],
        interpolation=settings["interpolation"],
        run=record,
        epochs=epochs,
        best=best,
        accuracy=accuracy,
        images=images,
    )


def _accuracy_of_best(run, settings):
    """Returns accuracy and number of images in the report of `evaluate`.

    Both are `None` if there is no report on the test images of the training.
    """
    try:
        text = pathlib.Path(run, *BEST_REPORT).read_text("utf-8")
        report = json.loads(text)
        about = report["about"]
        result = float(report["accuracy"]), int(report["images"])
    except (OSError, LookupError, TypeError, ValueError):
        return None, None
    data = settings["dataset"] or settings["data"]
    expected = {"run": "this one", "file": BEST_FILE, "data": data}
    return result if about == expected else (None, None)
