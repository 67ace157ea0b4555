"""The sections of a model card about the data, the training and the accuracy.

They come from `run.json`. Paths are left out: of the folder of images only its
name is used, and a file of weights is not named.
"""

import pathlib

from keras_mixer.exporting.markdown import escaped
from keras_mixer.exporting.markdown import table
from keras_mixer.weights import catalog
from keras_mixer.weights.loading import HUB


def dataset_of(about):
    """Returns the identifier and the name of the data of a training.

    The identifier is "imagefolder" for a folder of images.
    """
    settings = about.run["settings"]
    if settings["dataset"] is not None:
        # Without the configuration and the version.
        name = settings["dataset"].partition(":")[0].partition("/")[0]
        return name, settings["dataset"]
    return "imagefolder", pathlib.PurePath(settings["data"]).name


def data_section(about):
    """Returns the lines of the section."""
    if about.record is not None:
        return ["## Data", "", f"Trained on {about.record.trained_on}."]
    if about.run is None:
        return ["## Data", "", "The training data are not known here."]
    settings, data = about.run["settings"], about.run["data"]
    _, name = dataset_of(about)
    kind = "A folder of images"
    if settings["dataset"] is not None:
        kind = "A data set of TensorFlow Datasets"
    rows = [
        ("training", data["train_count"]),
        ("validation, after each epoch", data.get("validation_count")),
        ("test", data["test_count"]),
    ]
    lines = [
        "## Data",
        "",
        f"{kind}: {escaped(name)}.",
        "",
        *table(["used for", "images"], rows),
    ]
    if data.get("validation_count") == data["test_count"]:
        lines += [
            "",
            "If the data have no validation images, the test images are used "
            "for validation too.",
        ]
    return lines


def training_section(about):
    """Returns the lines of the section; none if nothing is known."""
    if about.run is None:
        return []
    versions = about.run.get("environment", {}).get("versions", {})
    used = ", ".join(f"{name} {each}" for name, each in versions.items())
    return [
        "## Training",
        "",
        *table(["setting", "value"], _settings(about)),
        "",
        f"Trained with the command line of keras_mixer ({escaped(used)}).",
    ]


def _settings(about):
    settings, recipe = about.run["settings"], about.run["recipe"]
    warmup = [f"{recipe['warmup_steps']} steps", None]
    if recipe["warmup_steps"] is None:
        warmup = [f"{recipe['warmup_epochs']} epochs", None]
    return [
        ("start", _start(about)),
        ("recipe", _recipe(settings["recipe"], recipe["source"])),
        ("epochs", _epochs(about)),
        ("images per update", _batch(settings)),
        ("optimizer", recipe["optimizer"]),
        (
            "learning rate",
            f"{settings['learning_rate']:g} at its peak, warm-up of "
            f"{warmup[0]}, then {recipe['decay']} decay",
        ),
        (
            "learning rate of a block / of the next",
            _unless(settings, "layer_decay", 1),
        ),
        ("weight decay", _unless(recipe, "weight_decay", 0)),
        ("clipped norm of the gradients", recipe["clip_norm"]),
        ("loss", f"{recipe['loss']} cross-entropy"),
        ("label smoothing", _unless(recipe, "label_smoothing", 0)),
        ("dropout", _unless(recipe, "dropout_rate", 0)),
        ("stochastic depth", _unless(recipe, "stochastic_depth_rate", 0)),
        ("average of the weights", _average(recipe)),
        ("augmentation", _augmentation(recipe["augmentation"])),
        ("class weights", settings.get("class_weights")),
        ("not trained up to", _escaped(settings.get("freeze"))),
        ("dtype policy", escaped(settings["precision"])),
        ("seed", settings["seed"]),
    ]


def _unless(values, name, usual):
    value = values.get(name, usual)
    return None if value == usual else f"{value:g}"


def _escaped(value):
    return None if value is None else escaped(value)


def start_of(about):
    """Returns the record of the published weights at the start, or `None`."""
    if about.run is None:
        return None
    settings = about.run["settings"]
    for record in catalog.RECORDS:
        model = record.variant.replace("_", "")
        if (settings["model"].lower(), settings["weights"]) == (
            model,
            record.tag,
        ):
            return record
    return None


def _start(about):
    weights, record = about.run["settings"]["weights"], start_of(about)
    if weights is None:
        return "random weights"
    if record is not None:
        return (
            f"published weights `{record.name}`, trained on {record.trained_on}"
        )
    if weights.startswith(HUB):
        return escaped(weights)
    return "a file of weights"


def _recipe(recipe, source):
    if isinstance(recipe, str):
        return f"{escaped(recipe)} ({escaped(source)})"
    return "own values"


def _epochs(about):
    total = about.run["settings"]["epochs"]
    if about.epochs in (total, None):
        return total
    return f"{about.epochs} of {total}"


def _batch(settings):
    size, times = settings["batch_size"], settings.get("accumulate", 1)
    return size if times == 1 else f"{size * times}, in {times} batches"


def _average(recipe):
    ema = recipe["ema"]
    return None if ema is None else f"exponential, momentum {ema:g}"


def _augmentation(values):
    crops = {
        "inception": "boxes of random size and aspect ratio",
        "pad": "random shifts by up to an eighth of the sides",
        "resize": "no random crop",
    }
    parts = [crops.get(values["crop"], escaped(values["crop"]))]
    if values["flip"]:
        parts.append("horizontal flips")
    if values["randaugment"]:
        layers, magnitude = values["randaugment"]
        parts.append(f"RandAugment ({layers} layers, magnitude {magnitude:g})")
    for name, title in (("mixup", "MixUp"), ("cutmix", "CutMix")):
        if values[name]:
            parts.append(f"{title} (alpha {values[name]:g})")
    if values["erasing"]:
        parts.append(f"random erasing (probability {values['erasing']:g})")
    return ", ".join(parts)


def accuracy_section(subject):
    """Returns the lines of the section."""
    about, lines = subject.about, ["## Accuracy", ""]
    if about.record is not None:
        return [*lines, *_published(about.record)]
    if about.run is None:
        return [*lines, "It was not measured."]
    if about.accuracy is None:
        lines += ["It was not measured on the test images."]
    else:
        right = round(about.accuracy * about.images)
        lines += [
            f"**{100 * about.accuracy:.2f} %** top-1 on the test images "
            f"({right:,} of {about.images:,} are right)."
        ]
    return [*lines, "", *_protocol(subject)]


def _published(record):
    if record.top1 is None:
        return [f"Published accuracy: {record.protocol}."]
    text = f"**{record.top1:.6g} %** top-1. Protocol: {record.protocol}."
    if record.source.url is not None:
        text += " It was not measured again for this card."
    return [text]


def _protocol(subject):
    about = subject.about
    height, width, _ = subject.image
    recipe, finished = about.run["recipe"], about.run["finished"]
    crop = f"the largest box of the shape {height} x {width} in its centre"
    if about.crop_ratio != 1:
        crop += f", reduced to {about.crop_ratio:.4g} of its sides"
    weights = "The weights are those of the training, not averages."
    if recipe["ema"] is not None:
        weights = "The weights are exponential averages over the training."
    title = "Protocol"
    if about.accuracy is None:
        title = "Protocol of the accuracy on the validation images"
    return [
        f"{title}:",
        "",
        "- A prediction is right if the class with the highest probability is "
        "that of the image.",
        f"- Each image is used once, without augmentation: {crop}, resized "
        f"to {height} x {width} pixels ({about.interpolation}, with "
        "antialiasing).",
        f"- {_epoch(about, finished)}",
        f"- {weights}",
        "- The test images were not used to train. One training with seed "
        f"{about.run['settings']['seed']} was measured.",
    ]


def _epoch(about, finished):
    if not about.best:
        return f"The model is that of the last epoch, {about.epochs}."
    text = f"The model is that of epoch {about.epochs}"
    if "best_val_accuracy" in finished:
        text += (
            ", which has the highest accuracy on the validation images "
            f"({100 * finished['best_val_accuracy']:.2f} %)"
        )
    data = about.run["data"]
    if data.get("validation_count") == data["test_count"]:
        return (
            f"{text}. If these are also the test images, the accuracy on them "
            "is too high, because the epoch was chosen with them."
        )
    return f"{text}."
