"""What `train`, `finetune`, `evaluate` and `predict` do, step by step.

Settings are a flat dict: what `run.json` keeps, and what a training is compared
by when it is started again. Whatever the command line leaves open is decided
before they are written, so that a later version with other defaults repeats the
same training. The steps are functions of the other modules; whoever wants
another loop calls them from a script.
"""

import dataclasses
import inspect
import logging
import math
import mimetypes
import pathlib
import time

import keras
import numpy as np

from keras_mixer import data
from keras_mixer import distributing
from keras_mixer import folders
from keras_mixer import mixer
from keras_mixer import recipes
from keras_mixer import resmlp
from keras_mixer import training
from keras_mixer.checking import check_positive_int
from keras_mixer.evaluation import few_shot
from keras_mixer.labels import class_names
from keras_mixer.preprocessing import CROP_RATIO
from keras_mixer.preprocessing import INTERPOLATION
from keras_mixer.preprocessing import at_least_float32
from keras_mixer.preprocessing import load_image
from keras_mixer.weights import catalog

MODELS = {
    name: getattr(module, name)
    for module in (mixer, resmlp)
    for name in module.__all__
    if name.startswith(("Mixer", "ResMLP")) and name not in ("Mixer", "ResMLP")
}

logger = logging.getLogger("keras_mixer")

# How many of the files that were skipped; `run.json` has them all.
MOST_NAMED = 10


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
    _check(settings)
    if distributing.is_one_of_several():
        distributing.join(seed=settings["seed"])
    keras.utils.set_random_seed(settings["seed"])
    keras.config.set_dtype_policy(settings["precision"])
    settings = _with_size(_with_whole_paths({**ADDED_SETTINGS, **settings}))
    images = load_images(settings)
    settings, recipe = _with_recipe(settings, images)
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
    results = {"accuracy": _accuracy(model, batches), "seconds": seconds}
    training.finish(folder, results)
    return results


def _check(settings):
    """Refuses what would otherwise be noticed late, or never."""
    if settings["recipe"] not in recipes.RECIPES:
        raise ValueError(
            f"There is no recipe '{settings['recipe']}'. There are: "
            + ", ".join(recipes.RECIPES)
        )
    for name in ("epochs", "batch_size", "accumulate"):
        if settings.get(name) is not None:
            check_positive_int(name, settings[name])
    rate = settings["learning_rate"]
    if rate is not None and not rate > 0:
        raise ValueError(
            f"`learning_rate` must be positive. Received: learning_rate={rate}"
        )
    if settings["dataset"] is not None and settings.get("channels", 3) != 3:
        raise ValueError(
            "`channels` is for images in folders: those of TFDS keep the "
            "channels that they have. Received: "
            f"channels={settings['channels']}, dataset={settings['dataset']}"
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Images are read as (height, width, channels). Set "
            '`"image_data_format": "channels_last"` in keras.json.'
        )


# Settings that records of earlier versions do not have, and the values that
# those trainings had.
ADDED_SETTINGS = {"accumulate": 1, "channels": 3, "class_weights": None}


def _class_weights(settings, images):
    if settings["class_weights"] is None:
        return None
    return training.balanced_class_weights(images)


def load_images(settings):
    """The images that settings name: of a folder, or of TFDS.

    Args:
        settings: Dict with `data` or `dataset`, `data_dir`, `image_size` and
            `seed`; and `channels` of the images in a folder, by default 3.

    Returns:
        A `keras_mixer.pipeline.Data`. The first files that are not used are
        named in the log.

    Raises:
        ValueError: If settings name neither or both.
    """
    if (settings["data"] is None) == (settings["dataset"] is None):
        raise ValueError(
            "Give the images: `--data FOLDER`, or `--dataset NAME` of TFDS. "
            f"Received: data={settings['data']}, dataset={settings['dataset']}"
        )
    size, seed = settings["image_size"], settings["seed"]
    if settings["data"] is not None:
        channels = settings.get("channels", ADDED_SETTINGS["channels"])
        images = data.load_folder(
            settings["data"], size, channels=channels, seed=seed
        )
    else:
        images = data.load_tfds(
            settings["dataset"],
            size,
            data_dir=settings["data_dir"],
            seed=seed,
        )
    for path, reason in images.skipped[:MOST_NAMED]:
        logger.warning("Skipped '%s': %s", path, reason)
    if len(images.skipped) > MOST_NAMED:
        logger.warning("Skipped %d files in all", len(images.skipped))
    return images


def _record(settings):
    """The record of published weights that settings name, or `None`."""
    return catalog.find(_variant(settings["model"]), settings["weights"])


def _variant(model):
    return inspect.signature(MODELS[model]).parameters["name"].default


def _with_whole_paths(settings):
    """Settings that mean the same in every folder they are used from."""
    paths = {
        key: str(pathlib.Path(settings[key]).resolve())
        for key in ("data", "data_dir", "weights")
        if settings[key] is not None
        and (key != "weights" or pathlib.Path(settings[key]).is_file())
    }
    return settings | paths


def _with_size(settings):
    """Settings with the size of the images."""
    size = settings["image_size"]
    size = size or catalog.image_size(_variant(settings["model"]))
    return {**settings, "image_size": size}


def _with_recipe(settings, images):
    """Settings with nothing left open, and the recipe as it will be used.

    The published recipes are for long trainings: in a shorter one the warm-up
    and the average of weights are shorter too.
    """
    recipe = recipes.RECIPES[settings["recipe"]]
    steps_per_epoch = images.steps_per_epoch(settings["batch_size"])
    epochs = settings["epochs"] or recipe.epochs
    if epochs is None:
        batches = recipe.steps * settings["accumulate"]
        epochs = math.ceil(batches / steps_per_epoch)
    steps = _updates(epochs * steps_per_epoch, settings["accumulate"])
    flip = recipe.augmentation.flip and not settings["no_flip"]
    recipe = dataclasses.replace(
        recipes.shortened(recipe, steps),
        learning_rate=settings["learning_rate"] or recipe.learning_rate,
        augmentation=dataclasses.replace(recipe.augmentation, flip=flip),
    )
    record = _record(settings)
    whole = recipe.augmentation.crop != "inception"
    crop_ratio = settings["crop_ratio"]
    if crop_ratio is None:
        crop_ratio = 1.0 if whole else CROP_RATIO
        crop_ratio = record.source.crop_ratio if record else crop_ratio
    interpolation = record.source.interpolation if record else INTERPOLATION
    settings = {
        **settings,
        "epochs": epochs,
        "learning_rate": recipe.learning_rate,
        "crop_ratio": crop_ratio,
        "interpolation": interpolation,
    }
    return settings, recipe


def _updates(batches, accumulate):
    """How often the weights are updated in a training of so many batches."""
    if accumulate > batches:
        raise ValueError(
            "The weights would never be updated. Use a smaller `accumulate`, a "
            "smaller `batch_size` or more `epochs`. Received: "
            f"accumulate={accumulate}, in a training of {batches} batches"
        )
    return batches // accumulate


def _compiled(settings, recipe, images, devices):
    """The model to train, compiled as the recipe says for these devices."""
    model = _model(settings, recipe, images)
    steps_per_epoch = images.steps_per_epoch(settings["batch_size"])
    options = recipes.compile_options(
        recipe,
        _updates(settings["epochs"] * steps_per_epoch, settings["accumulate"]),
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


def _accuracy(model, batches):
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    return model.evaluate(batches, verbose=0, return_dict=True)["accuracy"]


def default_weights(model):
    """The tag of the weights that a model is fine-tuned from by default.

    Raises:
        ValueError: If the model has no default; the error lists its tags.
    """
    tag = catalog.default_tag(_variant(model))
    if tag is None:
        tags = [r.tag for r in catalog.list_weights(f"{_variant(model)}.*")]
        raise ValueError(
            f"{model} has no default weights. Give `--weights`: "
            + (f"one of {tags}, or a file." if tags else "a file.")
        )
    return tag


def trained(run, model=None, weights=None, channels=3):
    """A model to evaluate or to predict with, and how to feed it.

    Args:
        run: Path of the folder of a training, or `None`.
        model: Otherwise the name of a constructor, by default "MixerNano".
        weights: Tag of its weights, by default as in `default_weights`.
        channels: Integer, of the images; published weights are brought to it.

    Returns:
        The model, which gives probabilities; the lists of names that its
        classes go by, the one to show first; and a dict with `crop_ratio` and
        `interpolation`.

    Raises:
        ValueError: If the training is not finished, or there are no such
            weights, or none with a head.
    """
    if run is not None:
        if (model, weights) != (None, None):
            raise ValueError(
                "Give `--run`, or `--model` and `--weights`, not both. "
                f"Received: run={run}, model={model}, weights={weights}"
            )
        record = training.read_run(run)
        file = pathlib.Path(run, training.MODEL_FILE)
        if not file.exists():
            raise ValueError(
                f"The training in '{run}' is not finished: there is no "
                f"{training.MODEL_FILE}. Start it again to go on with it."
            )
        settings = record["settings"]
        feeding = {k: settings[k] for k in ("crop_ratio", "interpolation")}
        names = [record["data"]["class_names"]]
        return keras.saving.load_model(file), names, feeding
    model = model or "MixerNano"
    weights = weights or default_weights(model)
    record = _record({"model": model, "weights": weights})
    if record is None:
        raise ValueError(
            f"There are no published weights '{weights}' of {model}. "
            "`python -m keras_mixer weights` lists them; models that you have "
            "trained are the folder of their training."
        )
    feeding = {
        "crop_ratio": record.source.crop_ratio,
        "interpolation": record.source.interpolation,
    }
    if record.classes is None:
        raise ValueError(f"The weights '{record.name}' have no trained head.")
    size = catalog.image_size(_variant(model))
    built = MODELS[model](
        weights=weights,
        classes=record.classes,
        input_shape=(size, size, channels),
    )
    wnids, names = map(list, zip(*class_names(record.classes), strict=True))
    # Numbers, which CIFAR-10 has for ids, would fit the digits of MNIST.
    known = [names] if wnids[0].isdecimal() else [names, wnids]
    return built, known, feeding


def evaluate(settings, shots=()):
    """Accuracy of a model on the images to test on, and few-shot accuracies.

    Args:
        settings: Dict with `run`, or `model` and `weights`; and with `data` or
            `dataset`, else the images of the training are taken.
        shots: Integers, of how many images per class to fit a linear map.

    Returns:
        A dict: `accuracy`, where the classes are those of the model, and
        `few_shot` for each of the shots.

    Raises:
        ValueError: If there is nothing to evaluate on, or the images have other
            classes and no shots are asked for.
    """
    model, names, feeding = trained(
        settings["run"], settings["model"], settings["weights"]
    )
    source = {"seed": 0, **settings}
    if settings["run"] is not None:
        # With the seed of the training, what was held out is held out again.
        source = training.read_run(settings["run"])["settings"]
        if (settings["data"], settings["dataset"]) != (None, None):
            source = {**source, **settings}
    *size, channels = model.input_shape[1:]
    images = load_images({**source, "image_size": size, "channels": channels})
    if images.image_shape != model.input_shape[1:]:
        if settings["run"] is not None:
            raise ValueError(
                f"The model takes images of shape {model.input_shape[1:]}. "
                f"Received: images of shape {images.image_shape}"
            )
        model, *_ = trained(
            None,
            settings["model"],
            settings["weights"],
            channels=images.image_shape[-1],
        )
    batches = images.test(settings["batch_size"], **feeding)
    results = {"images": images.test_count}
    known = _names_of(images.class_names, names)
    unknown = [name for name in images.class_names if name not in known]
    if not unknown:
        results["accuracy"] = _accuracy_by_name(
            model, batches, images.class_names, known
        )
    elif not shots:
        raise ValueError(
            f"The images have classes that the model does not know: {unknown}. "
            f"It knows {len(known)} classes, such as {known[:5]}. Remove or "
            "rename these folders, or use `--few-shot N` to measure the "
            "model's features on them."
        )
    if shots:
        features = keras.Model(model.input, model.get_layer("avg_pool").output)
        train = dataclasses.replace(images, test_images=images.train_images)
        train = train.test(settings["batch_size"], **feeding)
        results["few_shot"] = few_shot(features, train, batches, shots)
    return results


def _names_of(class_names, names):
    """The one of several lists of class names that fits best."""
    return max(names, key=lambda known: len(set(class_names) & set(known)))


def _accuracy_by_name(model, batches, class_names, known):
    """The share of images whose most probable class has their class's name.

    Args:
        model: A model that gives a score for each of `known`.
        batches: Batches of images and of one-hot labels of `class_names`.
        class_names: Names of the classes of the images, in any order.
        known: Names of the classes of the model. Those that have the same
            name, as two cranes and two maillots of ImageNet, count as one.
    """
    known, class_names = np.array(known), np.array(class_names)
    correct = []
    for images, labels in batches:
        predicted = known[np.argmax(model.predict_on_batch(images), axis=1)]
        correct.append(predicted == class_names[np.argmax(labels, axis=1)])
    return float(np.concatenate(correct).mean())


def predict(settings, files, top=5):
    """The most probable classes of photos, one photo after the other.

    Args:
        settings: Dict with `run`, or `model` and `weights`.
        files: Paths of photos, or of folders: all images below them. Other
            files in a folder are passed over, unless they have the name of an
            image.
        top: Integer, the number of classes for each photo.

    Returns:
        An iterator over `(path, result)`. The result is a list of `(name,
        probability)`; or a string, the reason why a file could not be read or
        a folder has no images.

    Raises:
        ValueError: As in `trained`, before the first photo is read.
    """
    model, names, feeding = trained(
        settings["run"], settings["model"], settings["weights"]
    )

    def result(file, reason):
        if reason:
            return reason
        try:
            image = load_image(file, model, **feeding)
        except (OSError, ValueError) as error:
            return str(error)
        scores = keras.ops.convert_to_numpy(model(image))[0]
        order = np.argsort(-scores, kind="stable")[:top]
        return [(names[0][i], float(scores[i])) for i in order]

    return ((file, result(file, reason)) for file, reason in _photos(files))


def _photos(files):
    """Files, and the images below folders, each with a reason to skip it.

    The reason is `None` for files to read. Images are sorted within a folder.
    """
    for file in files:
        if not pathlib.Path(file).is_dir():
            yield file, None
            continue
        skipped = []
        found = folders.files_below(pathlib.Path(file), skipped)
        photos = [(path, None) for path in found if _is_image(path)]
        photos += [each for each in skipped if _has_name_of_image(each[0])]
        for path, reason in photos:
            yield str(path), reason
        if not photos:
            yield file, "there is no image in this folder"


def _has_name_of_image(path):
    return (mimetypes.guess_type(path.name)[0] or "").startswith("image/")


def _is_image(path):
    """Whether a file has the name of an image, or Pillow can open it."""
    from PIL import Image

    if _has_name_of_image(path):
        return True
    try:
        with Image.open(path):
            return True
    # Pillow's formats raise nearly anything on files of another kind.
    except Exception:
        return False
