"""Describes a model for timm and transformers: the file `config.json`.

timm builds a model from the name of an architecture and from arguments in JSON.
The name fixes the patch size, the number of blocks and the width, and JSON
cannot name an activation. So only models of these sizes with exact GELU can
have a `config.json`.

Source: `_hub.py`, `_builder.py` and `mlp_mixer.py` in `timm/models` of timm
1.0.31.
"""

from typing import NamedTuple

import keras
import numpy as np

from keras_mixer.exporting.running import sample
from keras_mixer.exporting.weights import config_of
from keras_mixer.layers.output_activation import output_activation
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

# The widths of the MLPs that an architecture has if nothing else is said.
RATIOS = {"mixer": (0.5, 4.0), "resmlp": 4.0}

# The interpolations that have another name in timm.
INTERPOLATIONS = {"area": "box"}

# The largest accepted difference between the outputs of a model and those of
# its stem, blocks and head alone, divided by the largest output.
BOUND, BOUND_16_BITS = 1e-4, 5e-2


class TimmConfig(NamedTuple):
    """How timm can use a model."""

    config: dict | None = None  # the content of `config.json`
    reason: str | None = None  # why there is no `config.json`
    output: str | None = None  # the activation behind timm's logits


def describe(model, evaluation, class_names=None):
    """Returns the `TimmConfig` of a model whose weights can be exported.

    Args:
        model: A model that `export_weights` accepts.
        evaluation: Dict with `crop_ratio` and `interpolation`.
        class_names: List of the names of the classes, or `None`.
    """
    inner, sizes = inner_model(model), sizes_of(model)
    known = config_of(inner)
    if _key(sizes) not in ARCHITECTURES or (
        sizes["family"] == "resmlp" and _ratios(sizes) != RATIOS["resmlp"]
    ):
        return TimmConfig(reason="timm has no architecture of these sizes")
    if known.activation != catalog.GELU_EXACT:
        return TimmConfig(
            reason="the configuration file of timm cannot name an activation, "
            "and timm would use exact GELU"
        )
    output = output_activation(model) or "linear"
    reason = why_different(model, known.scaling, output)
    if reason is not None:
        return TimmConfig(reason=reason)
    image = channels_behind(tuple(inner.inputs[0].shape[1:]))
    scaling = _for_channels(known.scaling, image[2])
    config = _config(sizes, image, scaling, evaluation)
    if class_names is not None:
        config["label_names"] = class_names
    return TimmConfig(config, output=output)


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


def why_different(model, scaling, output):
    """Checks that a model computes nothing besides stem, blocks and head.

    These are all that timm has.

    Args:
        model: A model that `export_weights` accepts.
        scaling: `(mean, std)` of the pixels, or `None` if it is not known.
        output: Name of the activation of the outputs.

    Returns:
        The reason why timm would compute something else, or `None`.
    """
    inner = inner_model(model)
    shape = tuple(inner.inputs[0].shape[1:])
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        return "the model does not have one input and one output"
    if tuple(model.inputs[0].shape[1:]) != shape:
        return "the model changes the size of the image"
    if scaling in (None, keras_config.UNSCALED):
        return "the model does not scale the pixels in a known way"
    images = sample(channels_behind(shape))
    logits = _logits(
        model, inner, images, _for_channels(scaling, images.shape[3])
    )
    if keras.config.image_data_format() == "channels_first":
        images = images.transpose(0, 3, 1, 2)
    outputs = model(images.astype("float32"), training=False)
    expected = _array(keras.tree.flatten(outputs)[0])
    received = _array(keras.activations.get(output)(logits))
    is_16_bits = "16" in inner.dtype_policy.compute_dtype
    bound = BOUND_16_BITS if is_16_bits else BOUND
    if received.shape == expected.shape:
        scale = np.abs(expected).max() or 1
        if np.abs(received - expected).max() <= bound * scale:
            return None
    return (
        "the model does not only have the layers of a Mixer or a ResMLP, the "
        "mean over the tokens and one head"
    )


def _for_channels(scaling, channels):
    """Returns the scaling for images of any channels, as `models.scaling`."""
    if channels == 3:
        return scaling
    return tuple((sum(values) / 3,) * channels for values in scaling)


def _logits(model, inner, images, scaling):
    """Returns the logits, or the features if there is no head."""
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


def _key(sizes):
    return (sizes["family"], *map(sizes.get, ("patch", "num_blocks", "hidden")))


def _ratio(width, hidden):
    """Returns a ratio from which timm computes exactly this width."""
    ratio = width / hidden
    return ratio if int(ratio * hidden) == width else (width + 0.5) / hidden


def _ratios(sizes):
    channels = _ratio(sizes["channels_mlp"], sizes["hidden"])
    if sizes["family"] == "resmlp":
        return channels
    return (_ratio(sizes["tokens_mlp"], sizes["hidden"]), channels)


def _config(sizes, image, scaling, evaluation):
    height, width, channels = image
    interpolation = evaluation["interpolation"]
    # transformers does not use `input_size` of `pretrained_cfg`.
    arguments = {
        "img_size": ((height, width), (224, 224)),
        "in_chans": (channels, 3),
        "mlp_ratio": (_ratios(sizes), RATIOS[sizes["family"]]),
    }
    return {
        "architecture": ARCHITECTURES[_key(sizes)],
        "num_classes": sizes["classes"],
        "num_features": sizes["hidden"],
        "global_pool": "avg",
        "model_args": {
            name: value
            for name, (value, usual) in arguments.items()
            if value != usual
        },
        "pretrained_cfg": {
            "input_size": (channels, height, width),
            "fixed_input_size": True,
            "interpolation": INTERPOLATIONS.get(interpolation, interpolation),
            "crop_pct": evaluation["crop_ratio"],
            "mean": scaling[0],
            "std": scaling[1],
            "num_classes": sizes["classes"],
            "first_conv": "stem.proj",
            "classifier": "head",
        },
    }
