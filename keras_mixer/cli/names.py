"""The names that the command line accepts, without importing Keras.

The models, recipes and devices themselves are in modules that import Keras,
which takes seconds. The help and the checks of arguments must not. A test
compares these tables with `constructors.MODELS`, the tables of the families,
`recipes.RECIPES`, `distributing.KINDS`, `weights.resizing.METHODS` and
`exporting.formats.FORMATS`.
"""

from keras_mixer.weights import catalog

# The variant and the patch size of each constructor.
MODELS = {
    "MixerS32": ("mixer_s32", 32),
    "MixerS16": ("mixer_s16", 16),
    "MixerS8": ("mixer_s8", 8),
    "MixerB32": ("mixer_b32", 32),
    "MixerB16": ("mixer_b16", 16),
    "MixerL32": ("mixer_l32", 32),
    "MixerL16": ("mixer_l16", 16),
    "MixerH14": ("mixer_h14", 14),
    "MixerNano": ("mixer_nano", 4),
    "ResMLPS12": ("resmlp_s12", 16),
    "ResMLPS24": ("resmlp_s24", 16),
    "ResMLPS36": ("resmlp_s36", 16),
    "ResMLPB24": ("resmlp_b24", 16),
    "ResMLPB24P8": ("resmlp_b24p8", 8),
}


# The model of all commands if none is given. Its weights are in the package.
DEFAULT_MODEL = "MixerNano"


RECIPES = (
    "mixer_b.imagenet",
    "mixer_l.imagenet",
    "mixer_b.imagenet21k",
    "mixer_l.imagenet21k",
    "mixer_s.jft",
    "mixer_b.jft",
    "mixer_l.jft",
    "mixer_h.jft",
    "finetune.imagenet",
    "finetune.cifar",
    "finetune.pets",
    "finetune.flowers",
    "finetune.vtab",
    "big_vision.imagenet",
    "resmlp.imagenet",
    "nano.cifar10",
)


DEVICES = ("auto", "none", "mirrored", "tpu", "data", "model")


RESIZE_METHODS = ("auto", "tile", "interleave", "interpolate")


FORMATS = ("saved_model", "onnx", "openvino", "litert", "torch")


def is_own(model):
    """Whether a name is that of a user's function, `"module:function"`."""
    return ":" in model


def check_model(model):
    """Raises an error if there is no model of this name."""
    if model not in MODELS and not is_own(model):
        raise ValueError(
            f"There is no model '{model}'. Use one of: {', '.join(MODELS)}; "
            "or, to train a model of your own, module:function"
        )


def variant_name(model):
    """Returns the variant that a constructor builds, such as "mixer_b16".

    It is `None` for a model of the user.
    """
    check_model(model)
    return None if is_own(model) else MODELS[model][0]


def record_of(settings):
    """Returns the record of the published weights in `settings`, or `None`."""
    return catalog.find(variant_name(settings.model), settings.weights)


def tags_of(model):
    """Returns the tags of the published weights of a model, a list."""
    return [r.tag for r in catalog.list_weights(f"{variant_name(model)}.*")]


def default_weights(model):
    """Returns the tag of the weights to fine-tune a model from by default.

    Raises:
        ValueError: If the model has no default. The message lists its tags.
    """
    variant = variant_name(model)
    tag = variant and catalog.default_tag(variant)
    if tag is None:
        tags = tags_of(model)
        raise ValueError(
            f"{model} has no default weights. Give `--weights`: "
            + (f"one of {tags}, or a file." if tags else "a file.")
        )
    return tag
