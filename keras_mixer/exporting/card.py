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
from collections.abc import Sequence
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
from keras_mixer.training.finished import results_of
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

# The settings of `run.json` that the card names. The others can be paths.
SETTINGS = (
    *("epochs", "batch_size", "accumulate", "learning_rate", "layer_decay"),
    *("class_weights", "freeze", "precision", "seed"),
)

TEMPLATE = importlib.resources.files("keras_mixer") / "exporting" / "card.md"


class About(NamedTuple):
    """What is known about a model besides the model."""

    class_names: Sequence[str] | None = None
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
    epochs = log[-1]["epoch"] + 1 if log else settings["epochs"]
    if best:
        epochs = found.get("best_epoch")
    results = results_of(model_file(run, best))
    return About(
        class_names=list(data["class_names"]),
        crop_ratio=settings["crop_ratio"],
        interpolation=settings["interpolation"],
        run=record,
        epochs=epochs,
        best=best,
        accuracy=results.get("accuracy"),
        images=results.get("images"),
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
    name, repo = place
    # Without weights the model is fused, quantized or has other layers.
    sizes = sizes_of(model) if WEIGHTS in files else {}
    classes = sizes.get("classes")
    if about.class_names is not None:
        classes = len(about.class_names)
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    is_image = len(shapes) == 1 and len(shapes[0]) == 3 and all(shapes[0])
    facts = {
        **about._asdict(),
        "name": name,
        "repo": repo,
        "license": license,
        "timm": timm,
        "files": {key: FILES[key] for key in FILES if key in files},
        "sizes": sizes,
        "classes": classes,
        "model": model,
        # A `Sequential` model does not have the attribute `output`.
        "is_dict": isinstance(getattr(model, "output", None), dict),
        "paper": PAPERS.get(sizes.get("family")),
        "image": channels_behind(shapes[0]) if is_image else None,
        "shapes": shapes,
        "inner_shape": tuple(inner_models(model)[0].inputs[0].shape[1:]),
        "output": output_activation(model),
        "constructor": _constructor(sizes) if sizes else None,
        "data_format": keras.config.image_data_format(),
        "start": about.record,
        "escaped": escaped,
        "quoted": lambda text: json.dumps(text, ensure_ascii=False),
    }
    if about.run is not None:
        facts |= _of_run(about.run)
    data = _header(about, facts)
    template = TEMPLATE.read_text("utf-8")
    model_card = require("huggingface_hub").ModelCard
    require("jinja2")
    return str(model_card.from_template(data, template_str=template, **facts))


def escaped(text):
    """Returns text of unknown origin for one line of Markdown."""
    text = "".join(c if c.isprintable() else " " for c in str(text))
    return re.sub(r"([\\`*_{}\[\]<>|~$&])", r"\\\1", text).strip()


def _header(about, facts):
    """Returns the `ModelCardData`, which becomes the header in YAML."""
    hub = require("huggingface_hub")
    task = "image-classification"
    if facts["classes"] == 0:
        task = "image-feature-extraction"
    tags = [task, "keras", "keras_mixer"]
    if facts["paper"]:
        title, number = facts["paper"]
        tags += [title.lower(), f"arxiv:{number}"]
    if facts["timm"].config:
        tags.append("timm")
    measured = {}
    if about.run is not None and about.accuracy is not None:
        result = hub.EvalResult(
            task_type=task,
            dataset_type=facts["dataset"] or "imagefolder",
            dataset_name=facts["data_name"],
            dataset_split="test",
            metric_type="accuracy",
            metric_name="top-1 accuracy",
            metric_value=round(about.accuracy, 6),
        )
        measured = {
            "metrics": ["accuracy"],
            "model_name": facts["name"],
            "eval_results": [result],
        }
    return hub.ModelCardData(
        license=facts["license"],
        library_name="keras_mixer",
        pipeline_tag=task,
        tags=tags,
        datasets=[facts["dataset"]] if facts.get("dataset") else None,
        **measured,
    )


def _constructor(sizes):
    """Returns the name of the constructor, and the sizes that it takes."""
    family, constructor = FAMILIES[sizes["family"]]
    variant = family.variant_of(sizes)
    if variant is None:
        # The initial LayerScale is not known; the weights replace it.
        return constructor.__name__, [sizes.get(n, 0.1) for n in family.sizes]
    names = {name.lower(): name for name in MODELS}
    return names[variant.replace("_", "")], []


def _of_run(run):
    """Returns what the template says about a training, from `run.json`."""
    settings, recipe = run["settings"], run["recipe"]
    weights, dataset = settings["weights"], settings["dataset"]
    start = catalog.record_of(settings["model"], weights)
    source = "random weights" if weights is None else "a file of weights"
    if start is not None:
        source = f"`{start.name}`, trained on {start.trained_on}"
    elif str(weights).startswith(HUB):
        source = escaped(weights)
    values = {"recipe": "own values", **recipe, **recipe["augmentation"]}
    if isinstance(settings["recipe"], str):
        values["recipe"] = f"{settings['recipe']} ({recipe['source']})"
    values |= {name: settings.get(name) for name in SETTINGS}
    # The size of the images is that of the input.
    for name in ("source", "augmentation", "image_size"):
        del values[name]
    versions = run.get("environment", {}).get("versions", {})
    return {
        "start": start,
        "source": source,
        "values": values,
        "data_name": dataset or pathlib.PurePath(settings["data"]).name,
        # Without the configuration and the version.
        "dataset": dataset and re.split("[:/]", dataset)[0],
        "versions": ", ".join(f"{n} {each}" for n, each in versions.items()),
    }
