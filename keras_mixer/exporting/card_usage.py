"""The section of a model card about the use of the model.

The examples are complete. The tests run them.
"""

import json

from keras_mixer.exporting.card_subject import CLASS_NAMES
from keras_mixer.exporting.card_subject import MODEL
from keras_mixer.exporting.card_subject import WEIGHTS
from keras_mixer.exporting.markdown import code
from keras_mixer.exporting.markdown import escaped


def usage_section(subject):
    """Returns the lines of the section."""
    where = ""
    if subject.place.repo is None:
        where = (
            " They expect the folder of this card, "
            f"`{escaped(subject.place.name)}`, in the working folder."
        )
    lines = [
        "## Use",
        "",
        "`pip install keras_mixer[hub,images]` installs what the first "
        f"examples need, except for a backend of Keras.{where}",
        "",
        *_keras(subject),
    ]
    if WEIGHTS in subject.files:
        lines += ["", *_further_training(subject)]
    return [*lines, "", *_timm(subject)]


def _file(subject, name):
    """Returns the Python code for the path of a file."""
    if subject.place.repo is None:
        return _quoted(f"{subject.place.name}/{name}")
    return f'hf_hub_download("{subject.place.repo}", "{name}")'


def _quoted(text):
    return json.dumps(text, ensure_ascii=False)


def _import_hub(subject):
    if subject.place.repo is None:
        return ""
    return "from huggingface_hub import hf_hub_download\n"


def _keras(subject):
    about = subject.about
    has_names = CLASS_NAMES in subject.files
    text = "import json\n\n" if has_names else ""
    text += f"""\
import keras
import keras_mixer  # registers the layers
{_import_hub(subject)}
model = keras.saving.load_model({_file(subject, MODEL)})
batch = keras_mixer.load_image(
    "photo.jpg",
    model,
    crop_ratio={about.crop_ratio:.6g},
    interpolation="{about.interpolation}",
)
outputs = model.predict(batch)
"""
    if has_names:
        text += f"""\
with open({_file(subject, CLASS_NAMES)}, encoding="utf-8") as file:
    class_names = json.load(file)
print(class_names[outputs[0].argmax()])
"""
    return [
        "### Keras and keras_mixer",
        "",
        "The model takes raw pixels in [0, 255] and scales them itself."
        if subject.timm.scaling is not None
        else "`load_image` returns raw pixels in [0, 255].",
        "",
        *code(text),
    ]


def _further_training(subject):
    name, sizes = subject.constructor
    positional = "".join(f"\n    {size}," for size in sizes)
    text = f"""
backbone = keras_mixer.{name}({positional}
    weights={_quoted(subject.place.address)},
    include_top=False,
    pooling="avg",
    input_shape={subject.image},
)
model = keras_mixer.new_head(backbone, classes=5)
"""
    return [
        "To train it further, for other classes or another size of images:",
        "",
        *code(text),
    ]


def _timm(subject):
    timm = subject.timm
    lines = ["### timm and transformers", ""]
    if timm.config is not None:
        return [*lines, *_by_name(subject)]
    if timm.arguments is not None:
        return [*lines, *_by_class(subject)]
    return [*lines, f"They cannot load this model: {timm.reason}."]


def _output(subject):
    """Returns a sentence about the outputs of timm."""
    if subject.timm.output == "linear":
        return "timm returns the same outputs."
    return (
        "timm returns logits. The outputs of the Keras model are "
        f"`{subject.timm.output}(logits)`."
    )


def _by_name(subject):
    place = subject.place
    address = (
        f"hf-hub:{place.repo}" if place.repo else f"local-dir:{place.name}"
    )
    text = f"""
import timm
from PIL import Image

model = timm.create_model({_quoted(address)}, pretrained=True).eval()
config = timm.data.resolve_data_config(model=model)
transform = timm.data.create_transform(**config)
image = transform(Image.open("photo.jpg").convert("RGB"))
logits = model(image.unsqueeze(0))
"""
    wrapped = f"""
from transformers import pipeline

classify = pipeline("image-classification", {_quoted(place.repo or place.name)})
print(classify("photo.jpg"))
"""
    return [
        f"`config.json` is for timm. {_output(subject)}",
        "",
        *code(text),
        "",
        "transformers loads it through timm:",
        "",
        *code(wrapped),
    ]


def _by_class(subject):
    timm = subject.timm
    arguments = "\n".join(
        f"    {name}={value}," for name, value in timm.arguments.items()
    )
    mean, std = timm.scaling
    text = f"""
import timm
import torch
{_import_hub(subject)}from safetensors.torch import load_file
from timm.models import mlp_mixer

model = mlp_mixer.MlpMixer(
{arguments}
)
model.load_state_dict(load_file({_file(subject, WEIGHTS)}))
model.eval()
mean, std = torch.tensor([{_numbers(mean)}]), torch.tensor([{_numbers(std)}])
# batch: pixels in [0, 255], of shape (batch, height, width, channels)
x = (torch.as_tensor(batch) / 255 - mean) / std
logits = model(x.permute(0, 3, 1, 2).float())
"""
    return [
        "`timm.create_model` and transformers cannot load this model: "
        f"{timm.reason}. So there is no `config.json`. In Python, timm can use "
        f"the weights. {_output(subject)}",
        "",
        *code(text),
    ]


def _numbers(values):
    return ", ".join(f"{value:.12g}" for value in values)
