"""The commands `train` and `finetune`.

Their steps are functions of the other packages. To write another training
loop, call these functions in a script.
"""

import dataclasses
import importlib
import logging
import os
import pathlib
import sys
import time

import keras

from keras_mixer import distributing
from keras_mixer import recipes
from keras_mixer import training
from keras_mixer.cli.images import hint_at_size
from keras_mixer.cli.images import load_images
from keras_mixer.cli.interrupting import StopOnInterrupt
from keras_mixer.cli.names import is_own
from keras_mixer.cli.plan import Plan
from keras_mixer.cli.plan import check_backend
from keras_mixer.cli.plan import recipe_of
from keras_mixer.cli.plan import resolved
from keras_mixer.cli.settings import Settings
from keras_mixer.data import ImageIndex
from keras_mixer.data import finding
from keras_mixer.models.constructors import MODELS
from keras_mixer.models.freezing import freeze
from keras_mixer.models.heads import new_head
from keras_mixer.optional import check_installed
from keras_mixer.training.runs import BEST_FILE
from keras_mixer.training.runs import MODEL_FILE
from keras_mixer.training.runs import RUN_FILE
from keras_mixer.training.runs import check_folder

logger = logging.getLogger("keras_mixer")

IMAGES_FILE = "images.json"


def train(settings, folder, verbose="auto"):
    """Trains a model in a folder, or resumes the training there.

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
    check_backend()
    folder = pathlib.Path(folder)
    recorded = _recorded(folder)
    if distributing.is_one_of_several():
        distributing.join(seed=settings.seed)
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy(settings.precision)
    constructor_of(settings.model)  # raises an error if it does not exist
    size_is_open = settings.image_size is None and recorded is None
    settings = resolved(settings, recorded)
    found = _check_before_decoding(settings, folder)
    index = ImageIndex.read(folder / IMAGES_FILE)
    images = _images(settings, found, index)
    if recorded is not None and recorded.data == settings.data:
        index.check_unchanged(images)
    if size_is_open:
        hint_at_size(index.shapes(), images.image_shape[:2])
    plan = Plan.of(settings, images)
    settings = plan.settings
    with distributing.devices(
        settings.distribute, settings.jit_compile
    ) as devices:
        devices.local_batch_size(settings.batch_size)
        model = _compiled(plan, images, devices)
        options = {
            "validation_data": _validation_batches(plan, images, devices),
            "class_weights": _class_weights(plan, images),
            "devices": devices,
            "verbose": verbose,
        }
        # Raises an error if a package for the augmentation is missing. This
        # must come before the folder is created.
        images.train(plan.recipe.augmentation, settings.batch_size)
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


def _recorded(folder):
    """Returns the `Settings` of the training in a folder; `None` if none is.

    Raises an error if the folder has other files, or unknown settings.
    """
    check_folder(folder)
    if (folder / RUN_FILE).exists():
        return Settings.from_record(training.read_run(folder), folder)
    return None


def _check_before_decoding(settings, folder):
    """Raises errors that would otherwise come after minutes of decoding.

    Returns the files in the folder of the images, if they are in one.
    """
    recipe = recipe_of(settings)
    if recipe.augmentation.randaugment:
        check_installed("keras_cv")
    if settings.remat and recipe.dropout_rate > 0:
        raise ValueError(
            "`--remat` cannot be used with dropout, because a second "
            "computation would draw other random numbers. Use a recipe "
            "without dropout. Received: "
            f"dropout_rate={recipe.dropout_rate}"
        )
    if settings.data is None:
        return None
    finding.check_output(settings.data, folder)
    found = finding.find(settings.data)
    most = sum(map(len, found.parts["train"].values()))
    if settings.batch_size is not None and settings.batch_size > most:
        raise ValueError(
            "A batch must not be larger than the training set. Received: "
            f"batch_size={settings.batch_size} for at most {most} images"
        )
    return found


def _images(settings, found, index):
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


def _compiled(plan, images, devices):
    """Returns the model to train, compiled with the recipe."""
    model = _model(plan, images)
    options = recipes.compile_options(
        plan.recipe,
        plan.updates,
        layer_decay=plan.settings.layer_decay,
        model=model,
        accumulate=plan.settings.accumulate,
    )
    model.compile(**devices.compile_options(**options))
    return model


def _model(plan, images):
    """Returns the model to train. Its outputs are logits."""
    options = {
        "input_shape": images.image_shape,
        "weights": plan.settings.weights,
        "stochastic_depth_rate": plan.recipe.stochastic_depth_rate,
        "dropout_rate": plan.recipe.dropout_rate,
    }
    classes = len(images.class_names)
    if plan.settings.weights is None:
        options |= {"classes": classes, "classifier_activation": None}
    else:
        options |= {"include_top": False, "pooling": "avg"}
        options["resize"] = plan.settings.resize
    with keras.RematScope("full" if plan.settings.remat else None):
        model = constructor_of(plan.settings.model)(**options)
    if plan.settings.weights is not None:
        model = new_head(model, classes, activation=None)
    return freeze(model, plan.settings.last_frozen)


def constructor_of(model):
    """Returns the function that builds a model.

    Args:
        model: Name of a constructor, or `"module:function"`. The module is
            imported, from the current folder too.

    Raises:
        ValueError: If there is no such function.
    """
    if not is_own(model):
        return MODELS[model]
    module, _, function = model.partition(":")
    if os.getcwd() not in sys.path:  # `python -m` has it, a console command not
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # An error within the module is reported as it is.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            "`--model module:function` needs a module in the current folder, "
            f"or an installed one. Received: {model!r}"
        ) from error
    if not callable(getattr(found, function, None)):
        raise ValueError(
            f"There is no function '{function}' in '{found.__file__}'. "
            f"Received: --model {model}"
        )
    return getattr(found, function)


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
        drop_remainder=settings.drop_remainder,
        callbacks=[StopOnInterrupt()],
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
    # Earlier versions did not record the best epoch.
    if "best_epoch" in finished:
        text += _about_best(finished, pathlib.Path(folder, BEST_FILE))
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
