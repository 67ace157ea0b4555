"""Trains a model with the settings of the commands `train` and `finetune`.

Its steps are functions of the other rooms. To write another training loop, call
these functions in a script.
"""

import dataclasses
import logging
import pathlib
import time

import keras

from keras_mixer import distributing
from keras_mixer import recipes
from keras_mixer import training
from keras_mixer.cli import program
from keras_mixer.cli.building import build
from keras_mixer.cli.building import constructor_of
from keras_mixer.cli.images import load_images
from keras_mixer.cli.plan import TrainingPlan
from keras_mixer.cli.plan import resolved
from keras_mixer.cli.settings import Settings
from keras_mixer.data import ImageIndex
from keras_mixer.data import finding
from keras_mixer.data import tfds
from keras_mixer.models.anatomy import block_name
from keras_mixer.models.anatomy import inner_model
from keras_mixer.optional import check_installed
from keras_mixer.training.runs import BEST_FILE
from keras_mixer.training.runs import MODEL_FILE
from keras_mixer.training.runs import RUN_FILE
from keras_mixer.training.runs import check_folder

logger = logging.getLogger("keras_mixer")

IMAGES_FILE = "images.json"

# The others of Keras, OpenVINO and NumPy, only predict.
BACKENDS = ("tensorflow", "jax", "torch")


def train(settings, folder, verbose="auto"):
    """Trains a model in a folder, or resumes the training there.

    What can be wrong without looking into the images raises an error before
    they are decoded, which takes minutes.

    Args:
        settings: The `Settings`.
        folder: Path of a new folder, or of a training with these settings.
        verbose: As in Keras; 0 prints nothing.

    Returns:
        A dict with `accuracy`, on the test images, `seconds`, and what
        `_best` returns. If several processes train together, it is empty in all
        except the first.

    Raises:
        ValueError: If a setting has a wrong value, or the folder has other
            files or another training. Nothing is written then.
        FloatingPointError: If the loss becomes NaN or infinite.
        OSError: If images cannot be read, or the folder cannot be written.
        ImportError: If a package of the extra `train` is not installed.
    """
    _check_backend()
    folder = pathlib.Path(folder)
    recorded = _recorded(folder)
    constructor_of(settings.model)  # raises an error if it does not exist
    if distributing.is_one_of_several():
        distributing.join(seed=settings.seed)
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy(settings.precision)
    settings = resolved(settings)
    index = ImageIndex.read(folder / IMAGES_FILE)
    found = None
    if settings.data is not None:
        finding.check_output(settings.data, folder)
        found = finding.find(settings.data)
    with distributing.devices(
        settings.distribute, settings.jit_compile
    ) as devices:
        model = _model(settings, found, devices)
        settings = _with_frozen_name(settings, model)
        images = _load(settings, found, index)
        if recorded is not None and recorded.data == settings.data:
            index.check_unchanged(images)
        plan = TrainingPlan.of(settings, images.train_count)
        devices.local_batch_size(plan.settings.batch_size)
        model.compile(**_compile_options(plan, model, devices))
        options = {
            "validation_data": _validation_batches(plan, images, devices),
            "class_weights": _class_weights(plan, images),
            "devices": devices,
            "verbose": verbose,
        }
        training.open_run(
            folder,
            dataclasses.asdict(plan.settings),
            _facts(plan, images),
            devices.process,
        )
        if devices.process == 0 and settings.data is not None:
            index.write(folder / IMAGES_FILE)
        seconds = _fit(model, plan, images, folder, **options)
    if devices.process != 0:
        return {}
    return _finished(folder, model, plan, images, seconds)


def _check_backend():
    """Raises an error if the backend cannot train, or has "channels_first"."""
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise ValueError(
            f"The backend of Keras must be one of {list(BACKENDS)} to train. "
            f"Set KERAS_BACKEND. Received: backend '{backend}'"
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Images are read as (height, width, channels). Set "
            '`"image_data_format": "channels_last"` in keras.json.'
        )


def _recorded(folder):
    """Returns the `Settings` of the training in a folder; `None` if none is.

    Raises an error if the folder has other files, or unknown settings.
    """
    check_folder(folder)
    if (folder / RUN_FILE).exists():
        return Settings.from_record(training.read_run(folder), folder)
    return None


def _load(settings, found, index):
    return load_images(
        settings.data,
        settings.dataset,
        settings.image_size,
        data_dir=settings.data_dir,
        channels=settings.channels,
        seed=settings.seed,
        index=index,
        found=found,
    )


def _expected(settings, found):
    """Returns the classes, the images to train on, and the shape of an image.

    Args:
        settings: Resolved `Settings`.
        found: What `finding.find` returned, if the images are in a folder. Some
            of the files may be unreadable or held out, so the number of images
            is the most there can be.
    """
    if found is None:
        name, folder = settings.dataset, settings.data_dir
        classes, count, channels = tfds.expected(name, folder)
        return classes, count, (*settings.image_size, channels)
    files = found.parts["train"]
    count = sum(map(len, files.values()))
    return len(files), count, (*settings.image_size, settings.channels)


def _model(settings, found, devices):
    """Returns the model, after checks that need no decoded images."""
    classes, count, shape = _expected(settings, found)
    plan = TrainingPlan.of(settings, count)
    if settings.batch_size is not None:
        devices.local_batch_size(settings.batch_size)
    _check_recipe(plan, shape)
    model = build(settings, plan.recipe, shape, classes)
    _compile_options(plan, model, devices)  # raises errors
    return model


def _with_frozen_name(settings, model):
    """Returns settings in which `freeze` is a name: 5 becomes "block_5"."""
    if settings.freeze is None:
        return settings
    inner, others = inner_model(model), ("stem", "norm")
    name = block_name(inner, settings.last_frozen, others)
    return dataclasses.replace(settings, freeze=name)


def _check_recipe(plan, image_shape):
    """Raises an error if the recipe fits neither images nor settings."""
    recipe = plan.recipe
    if recipe.augmentation.randaugment:
        check_installed("keras_cv")
        if image_shape[-1] != 3:
            raise ValueError(
                "RandAugment is only for RGB images. Use a `--recipe` without "
                f"it. Received: images with {image_shape[-1]} channels and "
                f"randaugment={recipe.augmentation.randaugment}"
            )
    if plan.settings.remat and recipe.dropout_rate > 0:
        raise ValueError(
            "`--remat` cannot be used with dropout, because a second "
            "computation would draw other random numbers. Use a recipe "
            "without dropout. Received: "
            f"dropout_rate={recipe.dropout_rate}"
        )


def _compile_options(plan, model, devices):
    options = recipes.compile_options(
        plan.recipe,
        plan.updates,
        layer_decay=plan.settings.layer_decay,
        model=model,
        accumulate=plan.settings.accumulate,
    )
    return devices.compile_options(**options)


def _class_weights(plan, images):
    if plan.settings.class_weights is None:
        return None
    return training.balanced_class_weights(images)


def _validation_batches(plan, images, devices):
    """Returns batches of the images to validate on after each epoch.

    On several devices a smaller last batch is left out, since it cannot be
    split equally. The final accuracy is measured on all test images, on one
    device.
    """
    options, batch_size = plan.settings.evaluation, plan.settings.batch_size
    if devices.replicas == 1:
        return images.validation(batch_size, **options)
    most = images.validation_count // devices.replicas * devices.replicas
    if not most:
        raise ValueError(
            f"There are {images.validation_count} images to validate on, "
            f"fewer than the {devices.replicas} replicas. Use more images or "
            "fewer devices."
        )
    batch_size = min(batch_size, most)
    return images.validation(batch_size, drop_remainder=True, **options)


def _facts(plan, images):
    """Returns facts that follow from the settings, for `run.json`."""
    return {
        "data": {
            "name": images.name,
            "class_names": list(images.class_names),
            "train_count": images.train_count,
            "validation_count": images.validation_count,
            "test_count": images.test_count,
            "skipped": [list(map(str, skipped)) for skipped in images.skipped],
        },
        "recipe": dataclasses.asdict(plan.recipe),
    }


def _fit(model, plan, images, folder, **options):
    """Trains the model, and returns the time in seconds."""
    logger.info(
        "Training on %d images, validating on %d after each epoch, testing on "
        "%d at the end",
        images.train_count,
        images.validation_count,
        images.test_count,
    )
    settings = plan.settings
    start = time.perf_counter()
    training.fit(
        model,
        images,
        plan.recipe.augmentation,
        folder,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        keep_best=settings.keep_best,
        patience=settings.patience,
        drop_remainder=False,
        callbacks=[_StopOnInterrupt()],
        **options,
    )
    return round(time.perf_counter() - start, 1)


def _finished(folder, model, plan, images, seconds):
    """Saves the model, and returns its results, unless this was done before."""
    finished = training.read_run(folder).get("finished")
    if finished is None:
        training.save_model(folder, model)
        accuracy = _accuracy(folder, plan, images)
        if plan.settings.keep_best and training.load_best(folder, model):
            training.save_model(folder, model, BEST_FILE)
        finished = {"accuracy": accuracy, "seconds": seconds, **_best(folder)}
        training.finish(folder, finished)
    return finished


class _StopOnInterrupt(keras.callbacks.Callback):
    """Raises `KeyboardInterrupt` after a batch if Ctrl-C was pressed before.

    Usually the exception of Ctrl-C itself ends the training. But Keras 3.15
    ignores every exception while it waits for the values of the metrics
    (`pythonify_logs`), which is most of the time on JAX. We found no upstream
    issue. Delete this class when `test_stopped_training_prints_how_to_resume`
    passes without it.
    """

    def on_train_batch_end(self, batch, logs=None):
        self._stop()

    def on_test_batch_end(self, batch, logs=None):
        self._stop()

    def _stop(self):
        if program.interrupted.is_set():
            raise KeyboardInterrupt


def _accuracy(folder, plan, images):
    """Returns the accuracy of the saved model, on one device."""
    model = keras.saving.load_model(folder / MODEL_FILE)
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    batches = images.test(plan.settings.batch_size, **plan.settings.evaluation)
    return model.evaluate(batches, verbose=0, return_dict=True)["accuracy"]


def _best(folder):
    """Returns facts about the best epoch of a training, for `run.json`.

    They are the numbers of the best and of the last epoch, from 1, and their
    accuracies on the validation images.
    """
    log = training.read_log(folder)
    best = training.best_epoch(log)
    if best is None:
        return {}
    return {
        "best_epoch": best["epoch"] + 1,
        "best_val_accuracy": best["val_accuracy"],
        "last_epoch": log[-1]["epoch"] + 1,
        "last_val_accuracy": log[-1]["val_accuracy"],
    }
