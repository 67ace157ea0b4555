"""The command `evaluate`: measures a model on images with labels."""

import dataclasses
import itertools
import pathlib
import typing

from keras_mixer.cli.models import ModelArguments
from keras_mixer.cli.models import load_published
from keras_mixer.cli.models import load_training
from keras_mixer.cli.models import published_record
from keras_mixer.cli.models import settings_of
from keras_mixer.cli.names import DEFAULT_MODEL
from keras_mixer.cli.names import check_images
from keras_mixer.cli.parsing import Command
from keras_mixer.cli.parsing import changed
from keras_mixer.cli.parsing import option
from keras_mixer.cli.program import start_keras
from keras_mixer.cli.settings import Settings
from keras_mixer.optional import check_installed
from keras_mixer.optional import require
from keras_mixer.weights import catalog


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateArguments(ModelArguments):
    """The arguments of `evaluate`."""

    data: str | None = changed(Settings, "data", None, "the images of the run")
    dataset: str | None = changed(Settings, "dataset", None)
    data_dir: str | None = changed(Settings, "data_dir", None)
    batch_size: int = changed(Settings, "batch_size", 64)
    few_shot: tuple = option(
        (),
        "also measure the accuracy of linear maps that are fitted to the "
        "features of N images per class",
        "not measured",
        type=int,
        nargs="+",
        metavar="N",
    )
    output: str | None = option(
        None,
        "folder for the confusion matrix, the scores of each class and the "
        "mistakes",
        "'evaluation' in the folder of --run, if the images are those of the "
        "run; else none",
        is_path=True,
        metavar="FOLDER",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.run is None or self.data or self.dataset:
            check_images(self.data, self.dataset)


class Source(typing.NamedTuple):
    """Where the images are from."""

    data: str | None
    dataset: str | None
    data_dir: str | None
    # Whether they are the images of the training that made the model.
    are_of_run: bool


def evaluate(arguments):
    """Prints the accuracy of a model on images, and writes a report."""
    check_installed("sklearn")
    start_keras(tensorflow=True)
    from keras_mixer.cli import measuring
    from keras_mixer.cli import reports

    source = _source_of(arguments)
    folder = _folder_of(arguments, source)
    about = _about(arguments, source, folder)
    if folder is not None:
        reports.check_folder(folder, about)
    loaded, images, digest = _load(arguments, source)
    parts = _parts_to_measure(images, source)
    print(f"images: {sum(part.count for part in parts)}")
    known = _check_classes(arguments, loaded, images)
    for shots, accuracy in _few_shot(arguments, loaded, images).items():
        print(f"accuracy with {shots} images per class: {accuracy:.2%}")
    if known is None:
        return
    batches = (_batches(arguments, loaded, images, part) for part in parts)
    measurement = measuring.measure(
        itertools.chain.from_iterable(batches),
        loaded.model,
        images.class_names,
        known,
    )
    print(f"accuracy: {measurement.accuracy:.6g}")
    print("\n".join(reports.class_lines(measurement)))
    if folder is not None:
        paths = tuple(path for part in parts for path in part.paths)
        report = reports.Report(folder, measurement, paths, about, digest)
        reports.write_report(report)
        print(f"See '{folder}'.")


def _source_of(arguments):
    given = arguments.data, arguments.dataset, arguments.data_dir
    if arguments.run is None:
        return Source(*given, are_of_run=False)
    settings = settings_of(arguments.run)
    own = settings.data, settings.dataset, settings.data_dir
    data, dataset, _ = given
    data = data and str(pathlib.Path(data).resolve())
    if (data, dataset) in ((None, None), own[:2]):
        return Source(*own, are_of_run=True)
    return Source(*given, are_of_run=False)


def _folder_of(arguments, source):
    """Returns the folder of the report, or `None`."""
    if arguments.output is not None or not source.are_of_run:
        return arguments.output and pathlib.Path(arguments.output)
    from keras_mixer.training.finished import model_file
    from keras_mixer.training.finished import report_folder

    return report_folder(model_file(arguments.run, arguments.best))


def _about(arguments, source, folder):
    """Returns a dict that names the model and the images of a report."""
    if arguments.run is None:
        record = _record_of(arguments)
        about = {"weights": record.name}
    else:
        from keras_mixer.training.finished import model_file

        run = pathlib.Path(arguments.run).resolve()
        # A folder of a training can be moved together with its report.
        is_inside = run in pathlib.Path(folder or ".").resolve().parents
        file = model_file(run, arguments.best)
        about = {"run": "this one" if is_inside else str(run)}
        about["file"] = file.name
    data = source.data and str(pathlib.Path(source.data).resolve())
    return {**about, "data": source.dataset or data}


def _record_of(arguments):
    model = arguments.model or DEFAULT_MODEL
    return published_record(model, arguments.weights)


def _load(arguments, source):
    """Returns a model, images for it, and the digest of the model's file."""
    from keras_mixer.training.finished import digest_of

    if arguments.run is None:
        record = _record_of(arguments)
        size = catalog.image_size(record.variant)
        images = _load_images(source, image_size=size)
        model = arguments.model or DEFAULT_MODEL
        loaded = load_published(model, record, images.image_shape[-1])
        return loaded, images, None
    loaded = load_training(pathlib.Path(arguments.run), arguments.best)
    *size, channels = shape = loaded.model.input_shape[1:]
    images = _load_images(
        source, loaded.run, image_size=size, channels=channels
    )
    if images.image_shape != shape:
        raise ValueError(
            f"The model takes images of shape {shape}. "
            f"Received: images of shape {images.image_shape}"
        )
    return loaded, images, digest_of(loaded.file)


def _load_images(source, run=None, **options):
    """Returns the `keras_mixer.data.Data` of a source.

    If it is that of the training in the folder `run`, the same images are held
    out as in the training.

    Raises:
        ValueError: If the images of the training have changed.
    """
    from keras_mixer.cli.images import load_images
    from keras_mixer.cli.trainer import IMAGES_FILE
    from keras_mixer.data import ImageIndex
    from keras_mixer.training.runs import read_run

    given = {"data": source.data, "dataset": source.dataset}
    given["data_dir"] = source.data_dir
    if not source.are_of_run:
        return load_images(**given, **options)
    index = ImageIndex.read(run / IMAGES_FILE)
    seed = settings_of(run).seed
    images = load_images(**given, **options, seed=seed, index=index)
    try:
        index.check_unchanged(images)
        _check_counts(images, read_run(run)["data"])
    except ValueError as error:
        # Another part would be held out, with images that were trained on.
        error.add_note(
            "To measure the model on other images, use `--data FOLDER`."
        )
        raise
    return images


def _check_counts(images, recorded):
    now = {
        "class_names": list(images.class_names),
        "train_count": images.train_count,
        "test_count": images.test_count,
    }
    differ = [
        f"{key}: {recorded[key]} in the training, {value} now"
        for key, value in now.items()
        if recorded[key] != value
    ]
    if differ:
        raise ValueError(
            f"The images of '{images.name}' are not those of the training. "
            "Restore them. Received: " + "; ".join(differ)
        )


def _parts_to_measure(images, source):
    """Returns a list of `keras_mixer.data.Images`.

    Other images than those of the training are all measured, unless they have
    a part for it: none was trained on, and none must be held out.
    """
    if source.are_of_run:
        return [images.test_images]
    if source.data is not None:
        from keras_mixer.data import finding

        has_parts = len(finding.find(source.data).parts) > 1
    else:
        tfds = require("tensorflow_datasets")
        builder = tfds.builder(source.dataset, data_dir=source.data_dir)
        has_parts = not {"validation", "test"}.isdisjoint(builder.info.splits)
    if has_parts:
        return [images.test_images]
    return [images.train_images, images.test_images]


def _batches(arguments, loaded, images, part):
    """Returns batches of a part of the images, prepared as for a test."""
    prepared = dataclasses.replace(images, test_images=part)
    return prepared.test(arguments.batch_size, **loaded.evaluation)


def _check_classes(arguments, loaded, images):
    """Returns the names of the outputs of the model, as the images use them.

    They are `None` if the model does not know all classes, and only its
    features are measured.
    """
    known = max(
        loaded.names, key=lambda names: len({*images.class_names} & {*names})
    )
    unknown = [name for name in images.class_names if name not in known]
    if not unknown:
        return known
    if arguments.few_shot and arguments.output is None:
        return None
    raise ValueError(
        f"The images have classes that the model does not know: {unknown}. "
        f"It knows {len(known)} classes, such as {known[:5]}. Remove or "
        "rename these folders; or use `--few-shot N`, without `--output`, to "
        "measure the model's features on them."
    )


def _few_shot(arguments, loaded, images):
    """Returns `{shots: accuracy}` of the features of the model."""
    if not arguments.few_shot:
        return {}
    import keras

    from keras_mixer.training.few_shot import few_shot

    model = loaded.model
    features = keras.Model(model.input, model.get_layer("avg_pool").output)
    train, test = (
        _batches(arguments, loaded, images, part)
        for part in (images.train_images, images.test_images)
    )
    return few_shot(features, train, test, arguments.few_shot)


COMMAND = Command(
    "evaluate",
    EvaluateArguments,
    evaluate,
    "Measure the accuracy on test images. The model is that of a training, or "
    "has published weights. If the images are not those of the training and "
    "have no part for a test, all are measured.",
    "--run runs/photos",
)
