"""What is known about a model besides the model: its training, its accuracy."""

from typing import NamedTuple

from keras_mixer.data.photos import CROP_RATIO
from keras_mixer.data.photos import INTERPOLATION
from keras_mixer.training.finished import model_file
from keras_mixer.training.finished import report_of
from keras_mixer.training.log import read_log
from keras_mixer.training.runs import read_run
from keras_mixer.weights import catalog


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
        report = report_of(model_file(run, best)) or {}
        accuracy, images = report.get("accuracy"), report.get("images")
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
