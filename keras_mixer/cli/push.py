"""The command `push`: a model on the Hugging Face hub, or in a folder."""

import dataclasses
import os

from keras_mixer.cli.models import ANY_MODEL
from keras_mixer.cli.models import BEST
from keras_mixer.cli.models import load
from keras_mixer.cli.parsing import Arguments
from keras_mixer.cli.parsing import Command
from keras_mixer.cli.parsing import option
from keras_mixer.cli.parsing import positional
from keras_mixer.cli.program import start_keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class PushArguments(Arguments):
    """The arguments of `push`."""

    model: str = positional("MODEL", ANY_MODEL, is_path=True)
    target: str = positional(
        "TARGET",
        "hf://organization/name, a repository that is created if it is "
        "missing; or a new folder",
    )
    best: bool = option(False, BEST, action="store_true")
    license: str | None = option(
        None,
        "license of the model for the card, such as apache-2.0",
        "none is stated",
        metavar="NAME",
    )
    private: bool = option(
        False, "make a new repository private", action="store_true"
    )
    overwrite: bool = option(
        False,
        "replace these files in an existing repository or folder",
        action="store_true",
    )


def push(arguments):
    """Writes a model to the Hugging Face hub, and prints its address."""
    start_keras()
    from keras_mixer import exporting
    from keras_mixer.exporting.card import About
    from keras_mixer.exporting.push import push_model

    model, target, best = arguments.model, arguments.target, arguments.best
    options = {
        "license": arguments.license,
        "private": arguments.private,
        "overwrite": arguments.overwrite,
    }
    if os.path.isdir(model):
        address = exporting.push(model, target, best=best, **options)
    else:
        loaded = load(model, best)
        about = About()
        if loaded.record is not None:
            about = About(
                class_names=loaded.class_names,
                record=loaded.record,
                **loaded.evaluation,
            )
        address = push_model(loaded.model, about, target, **options)
    print(f"See '{address}'.")


COMMAND = Command(
    "push",
    PushArguments,
    push,
    "Write a model to the Hugging Face hub or to a folder: for Keras, for "
    "timm, with a model card. Log in first: `hf auth login`.",
    "runs/photos hf://me/photos --license apache-2.0",
)
