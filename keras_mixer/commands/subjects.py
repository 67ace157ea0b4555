"""Finds the model that one argument of the command line names."""

import pathlib
import typing

import keras

from keras_mixer.commands.models import Trained
from keras_mixer.commands.models import published
from keras_mixer.commands.models import variant_name
from keras_mixer.commands.trained import load_trained
from keras_mixer.models.constructors import MODELS
from keras_mixer.weights import catalog


class Subject(typing.NamedTuple):
    """A model, and where it is from."""

    trained: Trained
    origin: str  # for people
    run: pathlib.Path | None = None  # the folder of its training
    record: catalog.Record | None = None  # of its published weights


def load_subject(text):
    """Loads the model that an argument names.

    Args:
        text: The folder of a training; a `.keras` file; or the name of
            published weights, such as "MixerNano", "MixerNano.cifar10" or
            "mixer_nano.cifar10".

    Returns:
        A `Subject`.

    Raises:
        ValueError: If it is none of these, or the training is not finished.
    """
    path = pathlib.Path(text)
    if path.is_dir():
        return Subject(load_trained(path), f"the training in '{path}'", path)
    if path.is_file():
        return Subject(_load_file(path), f"the file '{path}'")
    model, record = _named(text)
    origin = f"weights '{record.name}'"
    return Subject(published(model, record), origin, record=record)


def _named(text):
    """Returns the constructor's name and the record of published weights."""
    name, _, tag = text.partition(".")
    names = {variant_name(model): model for model in MODELS}
    names |= {model: model for model in MODELS}
    if name in names:
        variant = variant_name(names[name])
        record = catalog.find(variant, tag or catalog.default_tag(variant))
        if record is not None and record.classes is not None:
            return names[name], record
    known = ", ".join(
        record.name for record in catalog.RECORDS if record.classes
    )
    raise ValueError(
        "Expected the folder of a training, a `.keras` file, or the name of a "
        f"model with published weights, such as MixerNano or one of: {known}. "
        f"Received: '{text}'"
    )


def _load_file(path):
    if path.suffix != ".keras":
        raise ValueError(
            "A model file must be a `.keras` file: `model.save` writes it, and "
            "`python -m keras_mixer convert` makes it of other weight files. "
            f"Received: '{path}'"
        )
    try:
        model = keras.saving.load_model(path, compile=False)
    # On damaged files, Keras can raise almost any exception.
    except Exception as error:
        raise ValueError(f"Cannot load the model '{path}': {error}") from error
    shape = getattr(model, "output_shape", None)
    classes = shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else 0
    return Trained(model, [[f"class {i}" for i in range(classes)]], {})
