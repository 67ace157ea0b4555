"""Describes a model for timm: `config.json`, and how to build the model there.

timm builds a model from the name of an architecture and from arguments in JSON.
The name fixes the patch size, the number of blocks and the width. JSON cannot
name an activation: timm calls `act_layer` as a class. So only models of these
sizes with exact GELU can have a `config.json`. timm's class `MlpMixer` takes
all sizes, and in Python any activation.

Source: `_hub.py`, `_builder.py` and `mlp_mixer.py` in `timm/models` of timm
1.0.31.
"""

from typing import NamedTuple

import keras
import numpy as np

from keras_mixer.models.anatomy import body_of
from keras_mixer.models.anatomy import head_of
from keras_mixer.models.anatomy import inner_model
from keras_mixer.models.anatomy import weights_of_layers
from keras_mixer.models.contract import channels_behind
from keras_mixer.weights import assigning
from keras_mixer.weights import catalog
from keras_mixer.weights import keras_config
from keras_mixer.weights import naming

# Of each architecture of timm: family, patch size, blocks and width.
ARCHITECTURES = {
    ("mixer", 32, 8, 512): "mixer_s32_224",
    ("mixer", 16, 8, 512): "mixer_s16_224",
    ("mixer", 32, 12, 768): "mixer_b32_224",
    ("mixer", 16, 12, 768): "mixer_b16_224",
    ("mixer", 32, 24, 1024): "mixer_l32_224",
    ("mixer", 16, 24, 1024): "mixer_l16_224",
    ("resmlp", 16, 12, 384): "resmlp_12_224",
    ("resmlp", 16, 24, 384): "resmlp_24_224",
    ("resmlp", 16, 36, 384): "resmlp_36_224",
    ("resmlp", 8, 24, 768): "resmlp_big_24_224",
}

# The classes of activations, as Python code.
ACTIVATIONS = {
    catalog.GELU_EXACT: "torch.nn.GELU",
    catalog.GELU_TANH: "timm.layers.GELUTanh",
    "relu": "torch.nn.ReLU",
    "silu": "torch.nn.SiLU",
}

# The interpolations that have another name in timm.
INTERPOLATIONS = {"area": "box"}

# The largest accepted difference between the outputs of a model and those of
# its stem, blocks and head alone, divided by the largest output.
BOUND, BOUND_16_BITS = 1e-4, 5e-2


class Description(NamedTuple):
    """How timm can use a model."""

    config: dict | None = None  # the content of `config.json`
    reason: str | None = None  # why there is no `config.json`
    arguments: dict | None = None  # of `MlpMixer`, as Python code
    scaling: tuple | None = None  # (mean, std) per channel
    image: tuple | None = None  # (height, width, channels)
    output: str | None = None  # the activation behind the logits


def describe(model, evaluation, class_names=None):
    """Returns the `Description` of a model whose weights can be exported.

    Args:
        model: A model that `export_weights` accepts.
        evaluation: Dict with `crop_ratio` and `interpolation`.
        class_names: List of the names of the classes, or `None`.
    """
    inner = inner_model(model)
    known = keras_config.describe({"config": inner.get_config()})
    reason, scaling, output = _compared(model, inner, known)
    if reason is not None:
        return Description(reason=reason)
    sizes = sizes_of(model)
    image = channels_behind(model.inputs[0].shape[1:])
    if known.activation not in ACTIVATIONS:
        return Description(
            reason="timm has no activation that is known to equal that of the "
            "model"
        )
    found = Description(
        reason=_why_not(sizes, known.activation),
        arguments=_arguments(sizes, image, known.activation),
        scaling=scaling,
        image=image,
        output=output,
    )
    if found.reason is not None:
        return found
    return found._replace(config=_config(sizes, found, evaluation, class_names))


def sizes_of(model):
    """Returns the sizes of a model, as `naming.sizes_of`, and its "family".

    The number of "classes" is 0 if the model has no head.
    """
    arrays = weights_of_layers(body_of(inner_model(model)))
    family = naming.family_of(arrays)
    sizes = naming.sizes_of(assigning.shapes(arrays), family)
    head = head_of(model)
    classes = 0 if head is None else head.units
    return {**sizes, "family": family, "classes": classes}


def _compared(model, inner, known):
    """Compares a model with its stem, blocks and head alone.

    Returns:
        The reason why timm cannot compute the same, or `None`; the mean and the
        standard deviation of the pixels per channel; and the name of the
        activation behind the logits.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        return "the model does not have one input and one output", None, None
    shape = channels_behind(inner.inputs[0].shape[1:])
    if channels_behind(model.inputs[0].shape[1:]) != shape:
        return "the model changes the size of the image", None, None
    if known.scaling is None:
        return "the model does not scale the pixels in a known way", None, None
    scaling = known.scaling
    if shape[2] != 3:  # as in `models.scaling`
        scaling = tuple((sum(v) / 3,) * shape[2] for v in scaling)
    rng = np.random.default_rng(0)
    limits = ((0, 255), (100, 228), (10, 60))
    images = np.stack([rng.uniform(*limit, shape) for limit in limits])
    expected, logits = _outputs(model, images), _plain(model, images, scaling)
    is_16_bits = "16" in inner.dtype_policy.compute_dtype
    bound = BOUND_16_BITS if is_16_bits else BOUND
    for name in ("linear", "softmax", "sigmoid"):
        received = _array(getattr(keras.activations, name)(logits))
        if received.shape != expected.shape:
            break
        scale = np.abs(expected).max() or 1
        if np.abs(received - expected).max() <= bound * scale:
            return None, scaling, name
    reason = (
        "the model does not only have the layers of a Mixer or a ResMLP, the "
        "mean over the tokens and one head"
    )
    return reason, None, None


def _outputs(model, images):
    if keras.config.image_data_format() == "channels_first":
        images = images.transpose(0, 3, 1, 2)
    outputs = model(images.astype("float32"), training=False)
    (output,) = keras.tree.flatten(outputs)
    return _array(output)


def _plain(model, images, scaling):
    """Returns the logits, or the features if there is no head."""
    inner = inner_model(model)
    mean, std = map(np.array, scaling)
    x = ((images / 255 - mean) / std).astype("float32")
    stem, *others = body_of(inner)
    x = stem(x)
    x = keras.ops.reshape(x, (len(images), -1, x.shape[-1]))
    for layer in others:
        x = layer(x, training=False) if layer.name != "norm" else layer(x)
    x = _array(x).mean(axis=1)
    head = head_of(model)
    if head is not None:
        arrays = weights_of_layers([head])
        kernel, bias = (arrays[f"{head.name}/{n}"] for n in ("kernel", "bias"))
        x = x @ kernel + bias
    return x.astype("float32")


def _array(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def _why_not(sizes, activation):
    """Returns why a model cannot have a `config.json`, or `None`."""
    key = (sizes["family"], *map(sizes.get, ("patch", "num_blocks", "hidden")))
    if key not in ARCHITECTURES:
        return "timm has no architecture of these sizes"
    ratio = sizes["channels_mlp"] / sizes["hidden"]
    if sizes["family"] == "resmlp" and ratio != 4:
        return "timm has no architecture of these sizes"
    if activation != catalog.GELU_EXACT:
        return (
            "the configuration file of timm cannot name an activation, and "
            "timm would use exact GELU"
        )
    return None


def _ratio(width, hidden):
    """Returns a ratio from which timm computes exactly this width."""
    ratio = width / hidden
    return ratio if int(ratio * hidden) == width else (width + 0.5) / hidden


def _ratios(sizes):
    channels = _ratio(sizes["channels_mlp"], sizes["hidden"])
    if sizes["family"] == "resmlp":
        return channels
    return (_ratio(sizes["tokens_mlp"], sizes["hidden"]), channels)


def _arguments(sizes, image, activation):
    height, width, channels = image
    arguments = {
        "num_classes": sizes["classes"],
        "img_size": (height, width),
        "in_chans": channels,
        "patch_size": sizes["patch"],
        "num_blocks": sizes["num_blocks"],
        "embed_dim": sizes["hidden"],
        "mlp_ratio": _ratios(sizes),
        "act_layer": ACTIVATIONS[activation],
    }
    if sizes["family"] == "resmlp":
        arguments |= {
            "block_layer": "mlp_mixer.ResBlock",
            "norm_layer": "mlp_mixer.Affine",
        }
    return arguments


def _config(sizes, found, evaluation, class_names):
    key = (sizes["family"], *map(sizes.get, ("patch", "num_blocks", "hidden")))
    height, width, channels = found.image
    mean, std = map(list, found.scaling)
    interpolation = evaluation["interpolation"]
    config = {
        "architecture": ARCHITECTURES[key],
        "num_classes": sizes["classes"],
        "num_features": sizes["hidden"],
        "global_pool": "avg",
    }
    if class_names is not None:
        config["label_names"] = list(class_names)
    arguments = {}
    # transformers does not use `input_size` of `pretrained_cfg`.
    if (height, width) != (224, 224):
        arguments["img_size"] = [height, width]
    if channels != 3:
        arguments["in_chans"] = channels
    if sizes["family"] == "mixer" and _ratios(sizes) != (0.5, 4.0):
        arguments["mlp_ratio"] = list(_ratios(sizes))
    if arguments:
        config["model_args"] = arguments
    config["pretrained_cfg"] = {
        "custom_load": False,
        "input_size": [channels, height, width],
        "fixed_input_size": True,
        "interpolation": INTERPOLATIONS.get(interpolation, interpolation),
        "crop_pct": evaluation["crop_ratio"],
        "crop_mode": "center",
        "mean": mean,
        "std": std,
        "num_classes": sizes["classes"],
        "pool_size": None,
        "first_conv": "stem.proj",
        "classifier": "head",
    }
    return config
