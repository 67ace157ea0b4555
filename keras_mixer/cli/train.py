"""The commands `finetune` and `train`."""

import dataclasses
import sys

from keras_mixer.cli import checks
from keras_mixer.cli import recipe_files
from keras_mixer.cli.names import default_weights
from keras_mixer.cli.parsing import REQUIRED
from keras_mixer.cli.parsing import Command
from keras_mixer.cli.parsing import changed
from keras_mixer.cli.parsing import option
from keras_mixer.cli.settings import Settings
from keras_mixer.cli.starting import start_keras

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
        False, "do not show progress bars", action="store_true"
    )

    def __post_init__(self):
        if str(self.recipe).endswith(recipe_files.SUFFIX):
            recipe = recipe_files.load(self.recipe, self.output)
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
    checks.check_training(settings)
    start_keras(tensorflow=True)
    from keras_mixer.cli import trainer

    bars = 1 if sys.stdout.isatty() else 2
    results = trainer.train(
        settings, arguments.output, verbose=0 if arguments.quiet else bars
    )
    if results:
        print(trainer.summary(results, arguments.output))


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
