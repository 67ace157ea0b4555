"""The model of a command: that of a training, a file, or published weights.

The arguments are checked without Keras, which takes seconds to import. So it is
imported in the functions that load a model.
"""

import dataclasses
import os
import pathlib
import types
import typing

from keras_mixer.cli.names import DEFAULT_MODEL
from keras_mixer.cli.parsing import Arguments
from keras_mixer.cli.parsing import option
from keras_mixer.cli.settings import MODEL
from keras_mixer.cli.settings import Settings
from keras_mixer.variants import CONSTRUCTORS
from keras_mixer.weights import catalog

ANY_MODEL = (
    "folder of a training, .keras file, or name of published weights, such as "
    "MixerNano or mixer_b16.imagenet"
)

BEST = "use the model of the best epoch of a training, not of the last"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelArguments(Arguments):
    """The arguments that choose a model of a training, or a published one."""

    run: str | None = option(
        None,
        "folder of a training, instead of --model and --weights",
        is_path=True,
        metavar="FOLDER",
        group=MODEL,
    )
    best: bool = option(False, BEST, action="store_true", group=MODEL)
    model: str | None = option(
        None,
        "name of a model with published weights",
        f"{DEFAULT_MODEL}, if there is no --run",
        metavar="NAME",
        group=MODEL,
    )
    weights: str | None = option(
        None,
        "tag of the published weights",
        "imagenet, or cifar10 for MixerNano",
        metavar="TAG",
        group=MODEL,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.run is not None and (self.model or self.weights):
            raise ValueError(
                "Use either `--run`, or `--model` and `--weights`. Received: "
                f"run={self.run}, model={self.model}, weights={self.weights}"
            )
        _check_best(self.run, self.best)


class LoadedModel(typing.NamedTuple):
    """A trained model, and what is known about it."""

    model: typing.Any  # a `keras.Model`
    origin: str  # for people
    names: tuple = ()  # lists of class names; the first list is for people
    # `crop_ratio` and `interpolation` of its images, or nothing.
    evaluation: typing.Any = types.MappingProxyType({})
    file: pathlib.Path | None = None
    run: pathlib.Path | None = None  # the folder of its training
    record: catalog.Record | None = None  # of its published weights

    @property
    def class_names(self):
        """The names of the classes, a list; `None` if they are unknown."""
        return self.names[0] if self.names else None


def load(text, best=False):
    """Loads the model that a positional argument names.

    Args:
        text: The folder of a training; a `.keras` file; or the name of
            published weights, such as "MixerNano", "MixerNano.cifar10" or
            "mixer_nano.cifar10".
        best: Boolean, whether to load the model of the best epoch of the
            training.

    Returns:
        A `LoadedModel`.

    Raises:
        ValueError: If it is none of these, or the training is not finished.
    """
    path = pathlib.Path(text)
    if path.is_dir():
        return load_training(path, best)
    _check_best(None, best)
    if path.is_file():
        return _load_file(path)
    name, _, tag = os.fspath(text).partition(".")
    return load_published(*find_published(name, tag))


def load_chosen(arguments):
    """Loads the model that `ModelArguments` choose, as a `LoadedModel`."""
    if arguments.run is not None:
        return load_training(pathlib.Path(arguments.run), arguments.best)
    return load_published(*find_published(arguments.model, arguments.weights))


def load_training(run, best=False):
    """Loads a model of a training, as a `LoadedModel`.

    Args:
        run: `pathlib.Path` of the folder of the training.
        best: Boolean, whether to load the model of the best epoch.

    Raises:
        ValueError: If the training is not finished, or did not keep the model.
    """
    from keras_mixer.training.finished import model_file
    from keras_mixer.training.runs import read_run

    settings = settings_of(run)
    file = model_file(run, best)
    return LoadedModel(
        _keras_model(file),
        f"the training in '{run}'" + ", best epoch" * best,
        (read_run(run)["data"]["class_names"],),
        settings.evaluation,
        file,
        run,
    )


def load_published(model, record, channels=3):
    """Returns a model with published weights, as a `LoadedModel`.

    Args:
        model: Name of its constructor.
        record: Its `catalog.Record`, from `find_published`.
        channels: Integer, the channels of the images. The stem is adapted to
            them.
    """
    from keras_mixer.labels import class_names
    from keras_mixer.models import constructors

    size = catalog.image_size(record.variant)
    built = constructors.MODELS[model](
        weights=record.tag,
        classes=record.classes,
        input_shape=(size, size, channels),
    )
    wnids, names = map(list, zip(*class_names(record.classes), strict=True))
    # The ids of CIFAR-10 are numbers. They are not used as names, since they
    # would match the classes of MNIST.
    return LoadedModel(
        built,
        f"weights '{record.name}'",
        (names,) if wnids[0].isdecimal() else (names, wnids),
        {
            "crop_ratio": record.source.crop_ratio,
            "interpolation": record.source.interpolation,
        },
        record=record,
    )


def find_published(name=None, tag=None):
    """Finds published weights that have a head.

    Args:
        name: Name of a constructor or of its variant, such as "MixerB16" or
            "mixer_b16"; by default `DEFAULT_MODEL`.
        tag: Tag of its weights; by default that of its constructor.

    Returns:
        The name of the constructor, and the `catalog.Record`.

    Raises:
        ValueError: If the weights do not exist or have no head.
    """
    name = name or DEFAULT_MODEL
    for model, variant in CONSTRUCTORS.items():
        if name in (model, variant):
            record = catalog.find(variant, tag or catalog.default_tag(variant))
            if record is not None and record.classes is not None:
                return model, record
    known = ", ".join(
        record.name for record in catalog.RECORDS if record.classes
    )
    raise ValueError(
        "Expected the folder of a training, a `.keras` file, or the name of a "
        "model whose published weights have a head, such as MixerNano or one "
        f"of: {known}. Received: '{f'{name}.{tag}' if tag else name}'"
    )


def settings_of(run):
    """Returns the `Settings` of the training in a folder.

    Raises:
        ValueError: If `run` is not the folder of a training, or was written by
            another version with other settings.
    """
    from keras_mixer.training.runs import read_run

    return Settings.from_record(read_run(run), run)


def _check_best(run, best):
    if best and run is None:
        raise ValueError(
            "`--best` is for the model of a training. Use the folder of a "
            f"training too. Received: best={best}"
        )


def _load_file(path):
    if path.suffix != ".keras":
        raise ValueError(
            "A model file must be a `.keras` file: `model.save` writes it, and "
            "`python -m keras_mixer convert` makes it of other weight files. "
            f"Received: '{path}'"
        )
    return LoadedModel(_keras_model(path), f"the file '{path}'", file=path)


def _keras_model(file):
    import keras

    try:
        return keras.saving.load_model(file, compile=False)
    # On damaged files, Keras can raise almost any exception.
    except Exception as error:
        raise ValueError(f"Cannot load the model '{file}': {error}") from error
