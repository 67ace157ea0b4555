"""Builds the signatures, documentation and lists of the constructors."""

import functools
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any
from typing import Concatenate
from typing import ParamSpec
from typing import TypeVar

import keras

from keras_mixer.models.family import Family
from keras_mixer.weights import catalog

# The documentation that all families share.
OPTIONS = """\
include_top: Boolean, whether to include the mean over the tokens and the
    classification head after the last norm.
include_preprocessing: Boolean, whether the model scales the pixels itself. If
    `True`, the model takes pixels in [0, 255] and scales them as its weights
    require. If `False`, scale the pixels before you call the model:
    `preprocess_input` describes how. The scaling layer has no weights, so a
    weights file can be loaded in both cases.
weights: The initial weights. One of:
    - `None`: random initialization.
    - A tag such as `"imagenet"`: published weights. `keras_mixer.list_weights`
      lists them. The default is `"imagenet"` (for `MixerNano`, `"cifar10"`) if
      the variant has these weights, else `None`.
    - The path of a weights file: from the official code (`.npz`), from timm
      (`.safetensors`, `.pth`) or from Keras (`.weights.h5`, `.keras`).
    - `"hf://organization/name"`: a repository on the Hugging Face hub.
    The weights must fit the model exactly, with four exceptions. If the grid
    of tokens differs, the token-mixing weights are resized: see `resize`. If
    the file says that its model was resized by "tile" or "interleave", the MLP
    over tokens is as wide as in the file. If the weights are for RGB images and
    the image has another number of channels, the kernel of the stem is summed
    over the channels (for one channel) or repeated (for more). If `include_top`
    is `False`, the head is ignored.
input_tensor: Optional Keras tensor of shape `(batch, height, width, channels)`
    to use as the image. The inputs of the model are then the inputs from which
    this tensor was computed. To use two models in one graph, do not pass this
    argument: give each model its own `name`, and call it, `model(tensor)`.
input_shape: Optional tuple `(height, width, channels)`, the shape of one image.
    Height and width must be multiples of the patch size. They may differ from
    each other. The default is the shape that the default weights of the variant
    were trained on, or (224, 224, 3) if it has none. The shape is fixed, also
    if `include_top` is `False`.
pooling: Pooling after the last norm if `include_top` is `False`. One of:
    - `None`: no pooling. The output is the tokens.
    - `"avg"`: the mean over the tokens. This is also the input of the head.
    - `"max"`: the maximum over the tokens.
    - `"grid"`: no pooling. The tokens are arranged as an image, for layers such
      as `Conv2D`.
classes: Positive integer, the number of classes. With published weights and
    `include_top=True` it must be the number of classes of these weights.
classifier_activation: Activation of the head. The default is `"softmax"`. Use
    `None` to return logits.
name: String, the name of the model.
dropout_rate: Float in [0, 1), the dropout rate after each dense layer of the
    MLPs.
resize: How to resize token-mixing weights that were trained for another grid of
    tokens. One of:
    - `"tile"`: cuts the image into tiles of the old size, and processes each
      tile separately (MLP-Mixer, appendix C).
    - `"interleave"`: like `"tile"`, but the tokens of each part are spread
      evenly over the whole image.
    - `"interpolate"`: resamples the weights. The new grid may have any size.
    - `"auto"`: `"tile"` if the new height and width are whole multiples of the
      old ones, else `"interpolate"`.
    - `None`: raises an error if the grids differ.
    A `.weights.h5` file does not contain its grid. Load it with the
    `input_shape` it was saved with, then call `keras_mixer.resize`."""


CONTRACT = """\
Returns:
    A `keras.Model`. Its input has the shape `(batch, height, width,
    channels)`, or `(batch, channels, height, width)` if
    `keras.config.image_data_format()` is `"channels_first"`. Its output has
    one of these shapes:
    - With the top: `(batch, classes)`, the probabilities of the classes.
    - Without the top: `(batch, tokens, hidden_dim)`. The tokens are in the
      order of their patches, row by row.
    - Without the top, with `pooling="avg"` or `"max"`: `(batch, hidden_dim)`.
    - Without the top, with `pooling="grid"`: `(batch, rows, columns,
      hidden_dim)`, or `(batch, hidden_dim, rows, columns)` if the image data
      format is `"channels_first"`.

Raises:
    ValueError: If the value of an argument is not allowed, if the height or
        width of the image is unknown or is not a multiple of the patch
        size, or if the weights do not fit the model.
    TypeError: If an argument has the wrong type."""


# The general constructors, `{family: (record, constructor)}`, and the
# constructors of the variants, `{name: constructor}`. `import keras_mixer`
# imports the modules of the families, which fill them.
FAMILIES: dict[str, tuple[Family, Callable[..., keras.Model]]] = {}
MODELS: dict[str, Callable[..., keras.Model]] = {}

Constructor = TypeVar("Constructor", bound=Callable[..., keras.Model])


def general_constructor(
    family: Family,
) -> Callable[[Constructor], Constructor]:
    """Registers and documents the general constructor of a family.

    In its docstring, `OPTIONS` replaces the line `{options}` and `CONTRACT`
    replaces the line `{contract}`. The indentation of the line is kept.

    Args:
        family: The `Family`.
    """

    def decorate(constructor: Constructor) -> Constructor:
        for key, text in (("{options}", OPTIONS), ("{contract}", CONTRACT)):
            doc = constructor.__doc__ or ""
            (line,) = re.findall(f"^ +{key}$", doc, re.MULTILINE)
            indented = textwrap.indent(text, line.removesuffix(key))
            constructor.__doc__ = doc.replace(line, indented)
        FAMILIES[family.name] = family, constructor
        return constructor

    return decorate


Options = ParamSpec("Options")


# This function has type annotations, so that editors can complete the options.
def variant_of(
    family: Callable[
        Concatenate[Any, Any, Any, Any, Any, Options], keras.Model
    ],
    name: str,
) -> Callable[[Callable[..., keras.Model]], Callable[Options, keras.Model]]:
    """Gives the constructor of a variant the options of its family.

    The signature and the documentation are those of the general constructor,
    without the sizes. The sizes are the arguments that have no default. The
    decorated function is called with all options as keyword arguments. The
    default of `weights` is `catalog.default_tag`.

    Args:
        family: The general constructor of the family.
        name: Name of the variant, and the default of its argument `name`.
    """
    signature = inspect.signature(family)
    tag = catalog.default_tag(name)
    defaults = {"name": name, "weights": tag}
    if tag is not None:
        defaults["classes"] = catalog.find(name, tag).classes
    options = [
        parameter.replace(default=defaults.get(key, parameter.default))
        for key, parameter in signature.parameters.items()
        if parameter.default is not parameter.empty
    ]
    signature = signature.replace(parameters=options)

    def decorate(constructor):
        @functools.wraps(constructor)
        def variant(*args, **kwargs):
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                message = f"{constructor.__name__}() {error}"
                raise TypeError(message) from None
            bound.apply_defaults()
            return constructor(**bound.arguments)

        variant.__signature__ = signature
        variant.__doc__ = (
            f"{inspect.cleandoc(constructor.__doc__)}\n\n"
            f"Args:\n    {_documented_from(options[0].name, family)}\n"
        )
        MODELS[constructor.__name__] = variant
        return variant

    return decorate


def _documented_from(option, family):
    text = inspect.cleandoc(family.__doc__)
    return text[text.index(f"{option}: ") : text.index("Example:")].rstrip()
