"""Writes the model card: the file `README.md` of a repository.

The prose is in the template `card.md`. huggingface_hub fills it in, and writes
the header in YAML. Paths are left out: of the folder of images only its name is
used, and a file of weights is not named.

Source: the documentation of the hub, "Model Cards".
"""

import importlib.resources
import json
import pathlib
import re
from typing import NamedTuple

import keras

from keras_mixer.data.photos import CROP_RATIO
from keras_mixer.data.photos import INTERPOLATION
from keras_mixer.exporting.timm_config import sizes_of
from keras_mixer.layers.output_activation import output_activation
from keras_mixer.models.anatomy import inner_models
from keras_mixer.models.constructors import FAMILIES
from keras_mixer.models.constructors import MODELS
from keras_mixer.models.contract import channels_behind
from keras_mixer.optional import require
from keras_mixer.training.finished import model_file
from keras_mixer.training.finished import report_of
from keras_mixer.training.log import read_log
from keras_mixer.training.runs import read_run
from keras_mixer.weights import catalog
from keras_mixer.weights.catalog import HUB

# The files that `push` writes, and what the card says about them.
CARD = "README.md"
MODEL = "model.keras"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CLASS_NAMES = "class_names.json"
FILES = {
    MODEL: "the model, for `keras.saving.load_model`",
    WEIGHTS: "the weights with the names of timm, for keras_mixer and timm",
    CONFIG: "how timm builds the model and prepares images",
    CLASS_NAMES: "the names of the classes, in the order of the outputs",
}

# Title and number in arXiv of the paper of each family.
PAPERS = {
    "mixer": ("MLP-Mixer", "2105.01601"),
    "resmlp": ("ResMLP", "2105.03404"),
}

OUTPUTS = {
    "softmax": "probabilities",
    "sigmoid": "probabilities of independent classes",
    "linear": "logits",
}

# The settings of `run.json` that the card names. The others can be paths.
SETTINGS = (
    *("epochs", "batch_size", "accumulate", "learning_rate", "layer_decay"),
    *("class_weights", "freeze", "precision", "seed"),
)

# The images that were used for each, in `run.json`.
PARTS = ("train", "validation", "test")

TEMPLATE = importlib.resources.files("keras_mixer") / "exporting" / "card.md"


class About(NamedTuple):
    """What is known about a model besides the model."""

    class_names: list | None = None
    crop_ratio: float = CROP_RATIO  # of evaluation
    interpolation: str = INTERPOLATION
    run: dict | None = None  # the content of `run.json`
    epochs: int | None = None  # that the model was trained for
    best: bool = False  # whether it is the model of the best epoch
    accuracy: float | None = None  # fraction of the test images
    images: int | None = None  # number of the test images
    record: catalog.Record | None = None  # of published weights


def about_run(run, best=False):
    """Returns what is known about the model of a finished training.

    Args:
        run: Path of the folder of the training.
        best: Boolean, whether the model is that of the best epoch.
    """
    record, log = read_run(run), read_log(run)
    settings, data, found = (
        record[k] for k in ("settings", "data", "finished")
    )
    accuracy, images = found["accuracy"], data["test_count"]
    epochs = log[-1]["epoch"] + 1 if log else settings["epochs"]
    if best:
        report = report_of(model_file(run, best)) or {}
        accuracy, images = report.get("accuracy"), report.get("images")
        epochs = found.get("best_epoch")
    return About(
        class_names=list(data["class_names"]),
        crop_ratio=settings["crop_ratio"],
        interpolation=settings["interpolation"],
        run=record,
        epochs=epochs,
        best=best,
        accuracy=accuracy,
        images=images,
    )


def card(model, about, place, timm, files, license):
    """Returns the text of the model card.

    Args:
        model: A Keras model that is or contains a model of this package.
        about: An `About`.
        place: Tuple of the name of the repository, and of its address
            `"organization/name"`, or `None` for a folder.
        timm: A `timm_config.TimmConfig`.
        files: Names of the files that were written.
        license: Identifier of the license, or `None`.
    """
    require("jinja2")
    name, repo = place
    # Without weights the model is fused, quantized or has other layers.
    sizes = sizes_of(model) if WEIGHTS in files else {}
    names = about.class_names
    classes = sizes.get("classes") if names is None else len(names)
    card_class = require("huggingface_hub").ModelCard
    return str(
        card_class.from_template(
            _header(about, name, timm, sizes, classes, license),
            template_str=TEMPLATE.read_text("utf-8"),
            **_about_model(model, sizes, classes),
            **_about_run(about),
            about=about,
            name=name,
            repo=repo,
            license=license,
            timm=timm,
            classes=classes,
            files=[(f"`{n}`", t) for n, t in FILES.items() if n in files],
            names=[escaped(each) for each in names or []],
            escaped=escaped,
            quoted=_quoted,
            table=_table,
        )
    )


def escaped(text):
    """Returns text of unknown origin for one line of Markdown."""
    text = "".join(c if c.isprintable() else " " for c in str(text))
    return re.sub(r"([\\`*_{}\[\]<>|~$&])", r"\\\1", text).strip()


def _quoted(text):
    return json.dumps(text, ensure_ascii=False)


def _table(header, rows):
    """Returns a table. Rows whose last cell is `None` are left out."""
    rows = [row for row in rows if row[-1] is not None]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _header(about, name, timm, sizes, classes, license):
    """Returns the `ModelCardData`, which becomes the header in YAML."""
    hub = require("huggingface_hub")
    task = (
        "image-feature-extraction" if classes == 0 else "image-classification"
    )
    tags = [task, "keras", "keras_mixer"]
    if sizes:
        title, number = PAPERS[sizes["family"]]
        tags += [title.lower(), f"arxiv:{number}"]
    results = None
    if about.run is not None and about.accuracy is not None:
        dataset = _dataset(about)
        result = hub.EvalResult(
            task_type=task,
            dataset_type=dataset or "imagefolder",
            dataset_name=_data_name(about),
            dataset_split="test",
            metric_type="accuracy",
            metric_name="top-1 accuracy",
            metric_value=round(about.accuracy, 6),
        )
        results = [result]
    return hub.ModelCardData(
        license=license,
        library_name="keras_mixer",
        pipeline_tag=task,
        tags=[*tags, "timm"] if timm.config else tags,
        datasets=[_dataset(about)] if _dataset(about) else None,
        metrics=results and ["accuracy"],
        model_name=results and name,
        eval_results=results,
    )


def _about_model(model, sizes, classes):
    """Returns what the template says about the model itself."""
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    is_image = (
        len(shapes) == 1 and len(shapes[0]) == 3 and None not in shapes[0]
    )
    image = channels_behind(shapes[0]) if is_image else None
    takes = f"arrays of the shapes {shapes}"
    if is_image:
        height, width, channels = image
        takes = f"images of {height} x {width} pixels, {channels} channels"
    output = f"{len(model.outputs)} outputs"
    if len(model.outputs) == 1:
        kind = OUTPUTS.get(output_activation(model), "numbers")
        sides = " x ".join(f"{n:,}" for n in model.outputs[0].shape[1:])
        output = f"{sides} {'features' if classes == 0 else kind}"
    constructor = _constructor(sizes)
    rows = [
        ("architecture", f"`{constructor[0]}`" if sizes else None),
        ("input", takes),
        ("output", output),
        ("parameters", f"{model.count_params():,}"),
        *((name.replace("_", " "), n) for name, n in sizes.items() if n),
    ]
    return {
        "sizes": rows,
        "image": image,
        # `load_image` makes such images.
        "photo": is_image and image[2] in (1, 3),
        "shape": tuple(inner_models(model)[0].inputs[0].shape[1:]),
        "constructor": constructor,
        "paper": PAPERS.get(sizes.get("family")),
        "has_weights": bool(sizes),
        "channels_first": keras.config.image_data_format() == "channels_first",
    }


def _constructor(sizes):
    """Returns the name of the constructor, and the sizes that it takes."""
    if not sizes:
        return None, []
    family, constructor = FAMILIES[sizes["family"]]
    variant = family.variant_of(sizes)
    if variant is None:
        # The initial LayerScale is not known; the weights replace it.
        return constructor.__name__, [sizes.get(n, 0.1) for n in family.sizes]
    names = {name.lower(): name for name in MODELS}
    return names[variant.replace("_", "")], []


def _dataset(about):
    """Returns the name of a data set without configuration and version."""
    name = about.run and about.run["settings"]["dataset"]
    return name and name.partition(":")[0].partition("/")[0]


def _data_name(about):
    settings = about.run["settings"]
    return settings["dataset"] or pathlib.PurePath(settings["data"]).name


def _about_run(about):
    """Returns what the template says about the training."""
    if about.run is None:
        return {"run": None, "start": about.record}
    settings, recipe, data = (
        about.run[k] for k in ("settings", "recipe", "data")
    )
    weights = settings["weights"]
    start = catalog.record_of(settings["model"], weights)
    text = "random weights" if weights is None else "a file of weights"
    if start is not None:
        text = f"`{start.name}`, trained on {start.trained_on}"
    elif str(weights).startswith(HUB):
        text = escaped(weights)
    values = {**recipe, **recipe["augmentation"]}
    values |= {name: settings.get(name) for name in SETTINGS}
    # The size of the images is that of the input.
    del values["augmentation"], values["image_size"]
    counts = {name: data.get(f"{name}_count") for name in PARTS}
    versions = about.run.get("environment", {}).get("versions", {})
    return {
        "run": about.run,
        "start": start,
        "data_name": _data_name(about),
        "counts": counts.items(),
        "tests_validate": counts["validation"] == counts["test"],
        "settings": [
            ("start", text),
            *(
                (
                    name.replace("_", " "),
                    None if value is None else escaped(value),
                )
                for name, value in values.items()
            ),
        ],
        "versions": ", ".join(
            f"{name} {each}" for name, each in versions.items()
        ),
    }
