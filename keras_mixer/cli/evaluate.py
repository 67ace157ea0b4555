"""The command `evaluate`: measures a model on images with labels."""

import dataclasses
import itertools
import pathlib

from keras_mixer.arguments import check_positive_int
from keras_mixer.cli.models import ModelArguments
from keras_mixer.cli.models import find_published
from keras_mixer.cli.models import load_chosen
from keras_mixer.cli.models import load_published
from keras_mixer.cli.models import settings_of
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
        check_positive_int("batch_size", self.batch_size)
        for shots in self.few_shot:
            check_positive_int("few_shot", shots)
        if self.run is None or self.data or self.dataset:
            check_images(self.data, self.dataset)


def evaluate(arguments):
    """Prints the accuracy of a model on images, and writes a report."""
    check_installed("sklearn")
    start_keras(tensorflow=True)
    from keras_mixer.cli import measuring
    from keras_mixer.cli import reports
    from keras_mixer.training.finished import digest_of

    source, are_of_run = _source_of(arguments)
    folder, about = _report_of(arguments, source, are_of_run)
    if folder is not None:
        reports.check_folder(folder, about)
    loaded, images = _load(arguments, source, are_of_run)
    parts = [images.test_images]
    if arguments.few_shot and not are_of_run and not _has_test(source):
        parts.insert(0, images.train_images)
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
        digest = loaded.file and digest_of(loaded.file)
        report = reports.Report(folder, measurement, paths, about, digest)
        reports.write_report(report)
        print(f"See '{folder}'.")


def _source_of(arguments):
    """Returns the source of the images, and whether it is that of the run."""
    names = ("data", "dataset", "data_dir")
    given = {name: getattr(arguments, name) for name in names}
    if arguments.run is None:
        return given, False
    settings = settings_of(arguments.run)
    own = {name: getattr(settings, name) for name in names}
    data = arguments.data and str(pathlib.Path(arguments.data).resolve())
    asked = data, arguments.dataset
    if asked in ((None, None), (own["data"], own["dataset"])):
        return own, True
    return given, False


def _report_of(arguments, source, are_of_run):
    """Returns the folder of the report or `None`, and what it is about.

    The latter is a dict that names the model and the images.
    """
    from keras_mixer.training.finished import model_file
    from keras_mixer.training.finished import report_folder

    folder = arguments.output
    images = source["dataset"] or str(pathlib.Path(source["data"]).resolve())
    if arguments.run is None:
        _, record = find_published(arguments.model, arguments.weights)
        return folder, {"weights": record.name, "data": images}
    file = model_file(arguments.run, arguments.best)
    if folder is None and are_of_run:
        folder = report_folder(file)
    run = file.parent.resolve()
    # A folder of a training can be moved together with its report.
    is_inside = run in pathlib.Path(folder or ".").resolve().parents
    about = {"run": "this one" if is_inside else str(run), "file": file.name}
    return folder, {**about, "data": images}


def _load(arguments, source, are_of_run):
    """Returns a `LoadedModel`, and a `keras_mixer.data.Data` for it."""
    from keras_mixer.cli.images import load_images

    # Features need other images than those that they are measured on.
    held_out = 0.2 if arguments.few_shot else None
    if arguments.run is None:
        model, record = find_published(arguments.model, arguments.weights)
        size = catalog.image_size(record.variant)
        images = load_images(**source, image_size=size, held_out=held_out)
        return load_published(model, record, images.image_shape[-1]), images
    loaded = load_chosen(arguments)
    *size, channels = shape = loaded.model.input_shape[1:]
    options = {**source, "image_size": size, "channels": channels}
    if are_of_run:
        images = _images_of_run(arguments.run, options)
    else:
        images = load_images(**options, held_out=held_out)
    if images.image_shape != shape:
        raise ValueError(
            f"The model takes images of shape {shape}. "
            f"Received: images of shape {images.image_shape}"
        )
    return loaded, images


def _images_of_run(run, options):
    """Returns the images of a training. The same are held out as there.

    Raises:
        ValueError: If the images have changed. Others would then be held out,
            and the model was trained on some of them.
    """
    from keras_mixer.cli.images import load_images
    from keras_mixer.cli.trainer import IMAGES_FILE
    from keras_mixer.data import ImageIndex
    from keras_mixer.training.runs import read_run

    index = ImageIndex.read(pathlib.Path(run, IMAGES_FILE))
    seed = settings_of(run).seed
    images = load_images(**options, seed=seed, index=index)
    recorded = read_run(run)["data"]
    then = recorded["train_count"], recorded["test_count"]
    now = images.train_count, images.test_count
    try:
        index.check_unchanged(images)
        if then != now:
            raise ValueError(
                f"The images of '{images.name}' are not those of the training. "
                f"Restore them. Received: {now} images for training and test; "
                f"there were {then}"
            )
    except ValueError as error:
        error.add_note(
            "To measure the model on other images, use `--data FOLDER`."
        )
        raise
    return images


def _has_test(source):
    """Returns whether a source has images to validate or to test on.

    If it has none, a part of its images is held out. If the model was not
    trained on the others, they can be measured too.
    """
    if source["data"] is not None:
        from keras_mixer.data import finding

        return len(finding.find(source["data"]).parts) > 1
    tfds = require("tensorflow_datasets")
    builder = tfds.builder(source["dataset"], data_dir=source["data_dir"])
    return not {"validation", "test"}.isdisjoint(builder.info.splits)


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

    from keras_mixer.models.features import features
    from keras_mixer.training.few_shot import few_shot

    pooled = features(loaded.model, blocks=-1, form="pooled")
    (output,) = pooled.output.values()
    model = keras.Model(pooled.input, output)
    train, test = (
        _batches(arguments, loaded, images, part)
        for part in (images.train_images, images.test_images)
    )
    return few_shot(model, train, test, arguments.few_shot)


COMMAND = Command(
    "evaluate",
    EvaluateArguments,
    evaluate,
    "Measure the accuracy on test images. The model is that of a training, or "
    "has published weights. If the images are not those of the training and "
    "have no part for a test, all are measured.",
    "--run runs/photos",
)
