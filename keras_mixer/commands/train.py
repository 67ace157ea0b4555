"""What `train` and `finetune` do, step by step.

The steps are functions of the other rooms; whoever wants another loop calls
them from a script.
"""

import dataclasses
import time

import keras

from keras_mixer import distributing
from keras_mixer import recipes
from keras_mixer import training
from keras_mixer.commands.evaluate import accuracy
from keras_mixer.commands.images import load_images
from keras_mixer.commands.images import logger
from keras_mixer.commands.models import trained
from keras_mixer.commands.settings import ADDED_SETTINGS
from keras_mixer.commands.settings import check
from keras_mixer.commands.settings import updates
from keras_mixer.commands.settings import with_recipe
from keras_mixer.commands.settings import with_size
from keras_mixer.commands.settings import with_whole_paths
from keras_mixer.models.constructors import MODELS
from keras_mixer.models.scaling import at_least_float32


def train(settings, folder, verbose="auto"):
    """Trains in a folder, or goes on there.

    Args:
        settings: Dict of the options of `python -m keras_mixer train`.
        folder: Path of a new folder, or of a training with these settings.
        verbose: What Keras takes: 0 for silence.

    Returns:
        A dict: the accuracy on the images to test on, and the seconds it took;
        an empty one in all processes but the first.

    Raises:
        ValueError: If a setting has a value it cannot have, or the folder
            belongs to something else. Nothing was written then.
        FloatingPointError: If the loss is lost.
        OSError: If images cannot be read, or the folder cannot be written.
        ImportError: If something of the extra `train` is not installed.
    """
    check(settings)
    if distributing.is_one_of_several():
        distributing.join(seed=settings["seed"])
    keras.utils.set_random_seed(settings["seed"])
    keras.config.set_dtype_policy(settings["precision"])
    settings = with_size(with_whole_paths({**ADDED_SETTINGS, **settings}))
    images = load_images(settings)
    settings, recipe = with_recipe(settings, images)
    class_weights = _class_weights(settings, images)
    with distributing.devices(
        settings["distribute"], settings["jit_compile"]
    ) as devices:
        devices.local_batch_size(settings["batch_size"])
        model = _compiled(settings, recipe, images, devices)
        validation = _validation_batches(images, settings, devices)
        # Raises what is missing for the augmentation, before there is a folder.
        images.train(recipe.augmentation, settings["batch_size"])
        folder = training.open_run(
            folder,
            settings,
            _facts(images, recipe),
            devices.process,
            ADDED_SETTINGS,
        )
        logger.info(
            "Training on %d images, validating on %d after each epoch, testing "
            "on %d at the end",
            images.train_count,
            images.validation_count,
            images.test_count,
        )
        start = time.perf_counter()
        training.fit(
            model,
            images,
            recipe.augmentation,
            folder,
            batch_size=settings["batch_size"],
            epochs=settings["epochs"],
            seed=settings["seed"],
            validation_data=validation,
            devices=devices,
            class_weights=class_weights,
            verbose=verbose,
        )
        seconds = round(time.perf_counter() - start, 1)
    if devices.process != 0:
        return {}
    finished = training.read_run(folder).get("finished")
    if finished is not None:
        return finished
    training.save_model(folder, model)
    model, _, feeding = trained(folder)
    batches = images.test(settings["batch_size"], **feeding)
    results = {"accuracy": accuracy(model, batches), "seconds": seconds}
    training.finish(folder, results)
    return results


def _class_weights(settings, images):
    if settings["class_weights"] is None:
        return None
    return training.balanced_class_weights(images)


def _compiled(settings, recipe, images, devices):
    """The model to train, compiled as the recipe says for these devices."""
    model = _model(settings, recipe, images)
    steps_per_epoch = images.steps_per_epoch(settings["batch_size"])
    options = recipes.compile_options(
        recipe,
        updates(settings["epochs"] * steps_per_epoch, settings["accumulate"]),
        layer_decay=settings["layer_decay"],
        model=model,
        accumulate=settings["accumulate"],
    )
    model.compile(**devices.compile_options(**options))
    return model


def _model(settings, recipe, images):
    """The model to train, which gives logits."""
    options = {
        "input_shape": images.image_shape,
        "weights": settings["weights"],
        "stochastic_depth_rate": recipe.stochastic_depth_rate,
        "dropout_rate": recipe.dropout_rate,
    }
    build, classes = MODELS[settings["model"]], len(images.class_names)
    if settings["weights"] is None:
        return build(classes=classes, classifier_activation=None, **options)
    backbone = build(include_top=False, pooling="avg", **options)
    head = keras.layers.Dense(
        classes,
        kernel_initializer="zeros",
        dtype=at_least_float32(),
        name="predictions",
    )
    return keras.Model(
        backbone.input, head(backbone.output), name=backbone.name
    )


def _validation_batches(images, settings, devices):
    """The images to validate on after each epoch.

    On many devices a last, smaller batch is left out: it cannot be divided
    equally. The final accuracy is measured on all test images, on one device.
    """
    options = {key: settings[key] for key in ("crop_ratio", "interpolation")}
    if devices.replicas == 1:
        return images.validation(settings["batch_size"], **options)
    most = images.validation_count // devices.replicas * devices.replicas
    if not most:
        raise ValueError(
            "There are too few images to validate on, "
            f"{images.validation_count}, for {devices.replicas} replicas. "
            "Train on fewer devices."
        )
    batch_size = min(settings["batch_size"], most)
    return images.validation(batch_size, drop_remainder=True, **options)


def _facts(images, recipe):
    """What is worth knowing later, and follows from the settings."""
    return {
        "data": {
            "name": images.name,
            "class_names": list(images.class_names),
            "train_count": images.train_count,
            "validation_count": images.validation_count,
            "test_count": images.test_count,
            "skipped": [list(map(str, skipped)) for skipped in images.skipped],
        },
        "recipe": dataclasses.asdict(recipe),
    }
