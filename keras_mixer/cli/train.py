"""The commands `finetune` and `train`."""

import dataclasses
import os
import pathlib
import sys

from keras_mixer.cli import names
from keras_mixer.cli import recipe_files
from keras_mixer.cli.names import default_weights
from keras_mixer.cli.parsing import REQUIRED
from keras_mixer.cli.parsing import Command
from keras_mixer.cli.parsing import changed
from keras_mixer.cli.parsing import option
from keras_mixer.cli.program import start_keras
from keras_mixer.cli.settings import Settings

# The epochs of a training from scratch by default.
EPOCHS = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments(Settings):
    """The arguments of `train`."""

    epochs: int | None = changed(Settings, "epochs", EPOCHS)
    output: str = option(
        REQUIRED,
        "folder of the training: a new folder, or one to resume",
        is_path=True,
        metavar="FOLDER",
    )
    quiet: bool = option(
        False, "show neither progress bars nor notes", action="store_true"
    )

    def __post_init__(self):
        if str(self.recipe).endswith(recipe_files.SUFFIX):
            paths = map(os.path.expanduser, (self.recipe, self.output))
            recipe = recipe_files.load(*paths)
            object.__setattr__(self, "recipe", recipe)
        super().__post_init__()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneArguments(TrainArguments):
    """The arguments of `finetune`."""

    epochs: int | None = changed(Settings, "epochs", None)
    recipe: str = changed(Settings, "recipe", "finetune.pets")
    weights: str | None = changed(
        Settings, "weights", None, "imagenet, or cifar10 for MixerNano"
    )


def finetune(arguments):
    weights = arguments.weights or default_weights(arguments.model)
    train(dataclasses.replace(arguments, weights=weights))


def train(arguments):
    given = {
        field.name: getattr(arguments, field.name)
        for field in dataclasses.fields(Settings)
    }
    settings = Settings(**given)
    names.check_training(settings)
    start_keras(tensorflow=True)
    from keras_mixer.cli import trainer

    bars = 1 if sys.stdout.isatty() else 2
    results = trainer.train(
        settings, arguments.output, verbose=0 if arguments.quiet else bars
    )
    if results:
        print(summary(results, arguments.output))


# A best epoch is named "much better" than the last if its accuracy on the
# validation images is higher by at least this.
MUCH_BETTER = 0.02


def summary(finished, folder):
    """Returns the text about a finished training to print.

    Args:
        finished: What `train` returns.
        folder: Path of the folder of the training.
    """
    text = (
        "Accuracy on the test images: "
        f"{100 * finished['accuracy']:.2f} % ({finished['seconds']:.0f} s). "
    )
    text += _about_best(finished, pathlib.Path(folder, "best.keras"))
    return f"{text}See '{folder}'."


def _about_best(finished, file):
    best, last = finished["best_epoch"], finished["last_epoch"]
    accuracies = [finished[f"{w}_val_accuracy"] for w in ("best", "last")]
    first, second = (f"{100 * accuracy:.2f} %" for accuracy in accuracies)
    if best == last:
        return f"The last epoch, {last}, was the best ({first} validation). "
    text = (
        f"Best epoch on the validation images: {best} ({first}); last epoch: "
        f"{last} ({second}). "
    )
    if file.exists():
        return text + f"'{file.name}' is the model of the best epoch. "
    if accuracies[0] - accuracies[1] >= MUCH_BETTER:
        text += "The best was much better: `--keep-best` keeps its model. "
    return text


def stopped(arguments):
    """Returns the message for a training that the user stopped."""
    # Not there if Keras was being imported.
    training = sys.modules.get("keras_mixer.training")
    if training is None:
        return "stopped. Repeat this command to start or resume the training."
    epochs = len(training.read_log(arguments.output))
    return f"stopped after {epochs} epochs. Repeat this command to resume it."


COMMANDS = (
    Command(
        "finetune",
        FinetuneArguments,
        finetune,
        "Train published weights on your images. The result is a folder with "
        "the model, its curves and all settings. The same command resumes a "
        "training that was stopped.",
        "--data photos --output runs/photos",
        stopped,
    ),
    Command(
        "train",
        TrainArguments,
        train,
        "Train a model from scratch. The result is a folder with the model, "
        "its curves and all settings. The same command resumes a training "
        "that was stopped.",
        "--data photos --image-size 64 --output runs/scratch",
        stopped,
    ),
)
