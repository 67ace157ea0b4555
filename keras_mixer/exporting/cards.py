"""Writes the model card: the file `README.md` of a repository.

The card is a Markdown file with a header in YAML, which the Hugging Face hub
reads. Source: the documentation of the hub, "Model Cards".
"""

from keras_mixer.exporting import card_training
from keras_mixer.exporting.card_subject import CLASS_NAMES
from keras_mixer.exporting.card_subject import CONFIG
from keras_mixer.exporting.card_subject import MODEL
from keras_mixer.exporting.card_subject import WEIGHTS
from keras_mixer.exporting.card_usage import usage_section
from keras_mixer.exporting.markdown import escaped
from keras_mixer.exporting.markdown import table
from keras_mixer.optional import require

# At most this many names of classes are in the card.
MOST_NAMES = 30

# Title and number in arXiv of the paper of each family.
PAPERS = {
    "mixer": ("MLP-Mixer", "2105.01601"),
    "resmlp": ("ResMLP", "2105.03404"),
}


def card(subject, license):
    """Returns the text of the model card.

    Args:
        subject: A `card_subject.Subject`.
        license: Identifier of the licence, or `None`.
    """
    sections = [
        _model_section(subject),
        _files_section(subject),
        usage_section(subject),
        _classes_section(subject),
        card_training.data_section(subject.about),
        card_training.training_section(subject.about),
        card_training.accuracy_section(subject),
        _limits_section(subject),
        _license_section(subject, license),
    ]
    body = "\n\n".join("\n".join(section) for section in sections if section)
    return f"---\n{_header(subject, license)}\n---\n\n{body}\n"


def _header(subject, license):
    """Returns the YAML header."""
    hub = require("huggingface_hub")
    family = subject.sizes.get("family")
    is_classifier = subject.classes != 0
    task = (
        "image-classification" if is_classifier else "image-feature-extraction"
    )
    tags = [task, "keras", "keras_mixer"]
    if family is not None:
        tags += [PAPERS[family][0].lower(), f"arxiv:{PAPERS[family][1]}"]
    if subject.timm.config is not None:
        tags.append("timm")
    results = _results(hub, subject, task)
    data = hub.ModelCardData(
        license=license,
        library_name="keras_mixer",
        pipeline_tag=task,
        tags=tags,
        datasets=_datasets(subject.about),
        metrics=None if results is None else ["accuracy"],
        model_name=None if results is None else subject.place.name,
        eval_results=results,
    )
    return data.to_yaml()


def _datasets(about):
    if about.run is None or about.run["settings"]["dataset"] is None:
        return None
    return [card_training.dataset_of(about)[0]]


def _results(hub, subject, task):
    about = subject.about
    if about.run is None or about.accuracy is None:
        return None
    kind, name = card_training.dataset_of(about)
    return [
        hub.EvalResult(
            task_type=task,
            dataset_type=kind,
            dataset_name=name,
            dataset_split="test",
            metric_type="accuracy",
            metric_name="top-1 accuracy",
            metric_value=round(about.accuracy, 6),
        )
    ]


def _model_section(subject):
    model, sizes = subject.model, subject.sizes
    height, width, channels = subject.image
    rows = [
        ("architecture", f"`{subject.constructor[0]}`" if sizes else None),
        ("input", f"images of {height} x {width} pixels, {channels} channels"),
        ("output", _output(subject)),
    ]
    if sizes:
        rows += [
            ("patches", f"{sizes['patch']} x {sizes['patch']} pixels"),
            ("blocks", sizes["num_blocks"]),
            ("channels of a token", sizes["hidden"]),
            ("width of the MLP over tokens", sizes.get("tokens_mlp")),
            ("width of the MLP over channels", sizes["channels_mlp"]),
        ]
    rows.append(("parameters", f"{model.count_params():,}"))
    return [
        f"# {escaped(subject.place.name)}",
        "",
        _what(subject),
        "",
        *table(["", ""], rows),
    ]


def _what(subject):
    kind = "An all-MLP model"
    if subject.sizes:
        title, number = PAPERS[subject.sizes["family"]]
        article = "An" if title.startswith("M") else "A"
        kind = f"{article} [{title}](https://arxiv.org/abs/{number})"
    does = "that classifies images"
    if subject.classes == 0:
        does = "that computes features of images"
    return (
        f"{kind} {does}. It was built with keras_mixer, for Keras 3 on "
        "TensorFlow, JAX and PyTorch."
    )


def _output(subject):
    if len(subject.model.outputs) > 1:
        return f"{len(subject.model.outputs)} outputs"
    sides = " x ".join(f"{n:,}" for n in subject.model.outputs[0].shape[1:])
    if subject.classes == 0:
        return f"{sides} features"
    kinds = {
        "softmax": "probabilities",
        "sigmoid": "probabilities of independent classes",
        "linear": "logits",
    }
    return f"{sides} {kinds.get(subject.timm.output, 'numbers')}"


def _files_section(subject):
    purposes = {
        MODEL: "the model, for `keras.saving.load_model`",
        WEIGHTS: "the weights with the names of timm, for keras_mixer and timm",
        CONFIG: "how timm builds the model and prepares images",
        CLASS_NAMES: "the names of the classes, in the order of the outputs",
    }
    rows = [
        (f"`{name}`", text)
        for name, text in purposes.items()
        if name in subject.files
    ]
    lines = ["## Files", "", *table(["file", "content"], rows)]
    if WEIGHTS not in subject.files:
        lines += ["", f"There is no `{WEIGHTS}`: {subject.timm.reason}."]
    return lines


def _classes_section(subject):
    names = subject.about.class_names
    if names is None:
        if subject.classes == 0:
            return []
        return [
            "## Classes",
            "",
            "The names of the classes are not known here.",
        ]
    shown = ", ".join(escaped(name) for name in names[:MOST_NAMES])
    more = len(names) - MOST_NAMES
    if more > 0:
        shown += f", and {more:,} more"
    return ["## Classes", "", f"{len(names):,} classes: {shown}."]


def _limits_section(subject):
    if subject.classes == 0:
        return []
    lines = [
        "## Limits",
        "",
        "- The model always answers with its own classes, also for an image "
        "that shows something else.",
    ]
    if subject.about.accuracy is not None:
        lines.append(
            "- The accuracy holds for images like the test images. It was not "
            "measured for other cameras, places or times, or for groups of "
            "people."
        )
    return lines


def _license_section(subject, license):
    lines, record = ["## Licence", ""], subject.about.record
    if license is not None:
        lines.append(f"{license}, as stated by the publisher of this model.")
    elif record is None:
        lines.append("The publisher of this model has stated no licence.")
    record = record or card_training.start_of(subject.about)
    if record is not None:
        lines += [
            "",
            f"Licence of the published weights `{record.name}`: "
            f"{escaped(record.source.licence)}.",
        ]
    return lines
