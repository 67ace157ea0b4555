"""What tests of `train` and `finetune` share: commands, a model, a recipe."""

import functools
import json
import re

import keras
import pytest

import keras_mixer
from keras_mixer import cli
from keras_mixer import training
from keras_mixer.models.anatomy import weights_of

# A recipe with all kinds of state: LAMB, averages, random depth, mixed images.
RECIPE = {
    "optimizer": "lamb",
    "learning_rate": 0.02,
    "ema": 0.9,
    "stochastic_depth_rate": 0.1,
    "label_smoothing": 0.1,
    "batch_size": 30,
    "augmentation": {"crop": "pad", "flip": False, "mixup": 0.2},
}

# Six steps an epoch, accumulated by four: an update of one and a half epochs.
STATE = {"accumulate": 4, "batch_size": None, "epochs": 3}

two_blocks = functools.partial(keras_mixer.Mixer, 4, 2, 10, 7, 11)


def options(photos, output, *others, **changed):
    """Returns the arguments of a short training; `None` omits one."""
    given = {
        "data": photos,
        "output": output,
        "model": "support.training:two_blocks",
        "image_size": 8,
        "epochs": 2,
        "batch_size": 32,
        **changed,
    }
    return [
        "train",
        "--quiet",
        *others,
        *(
            f"--{key.replace('_', '-')}={value}"
            for key, value in given.items()
            if value is not None
        ),
    ]


def with_state(photos, run, recipe, *others, **changed):
    """Returns the arguments of a training with all kinds of state."""
    given = {**STATE, "recipe": recipe, **changed}
    return options(photos, run, "--keep-best", *others, **given)


def refused(*arguments):
    """Returns the error message of a command."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    assert caught.value.code.startswith("keras_mixer: ")
    return caught.value.code


def weights_of_run(run):
    return weights_of(keras.saving.load_model(run / "model.keras"))


def stop_after(run, epochs):
    """Changes a finished training to one that was killed after an epoch."""
    for path in (run / "checkpoints").iterdir():
        if int(re.search(r"\d+", path.name)[0]) > epochs:
            path.unlink()
    (run / "model.keras").unlink()
    record = training.read_run(run)
    del record["finished"]
    (run / "run.json").write_text(json.dumps(record))


def snapshot(folder):
    """Returns `{path: bytes}` of all files in a folder."""
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
