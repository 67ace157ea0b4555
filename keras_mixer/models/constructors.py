"""The constructors: their signatures, their documentation, and their list."""

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

# What the families document in the same words.
OPTIONS = """\
include_top: Boolean, whether to end with the mean over the tokens and the
    classification head.
include_preprocessing: Boolean, whether the model takes pixels in [0, 255] and
    scales them itself, as its weights expect. If `False`, they are to be scaled
    before; `preprocess_input` says how. The layer has no weights: files fit
    both ways.
weights: One of `None` (random initialization); a tag such as `"imagenet"`, for
    published weights (`keras_mixer.list_weights` lists them), the default
    of variants that have `"imagenet"`; the path of a file; or
    `"hf://organisation/name"`, a repository of the Hugging Face hub. Files are
    those of the official code (`.npz`), of timm (`.safetensors`, `.pth`), and
    of Keras (`.weights.h5`, `.keras`). They have to fit exactly, but for the
    grid of tokens (see `resize`) and for the channels of the image: a stem for
    RGB is summed for one channel, and repeated for more. With
    `include_top=False` the head in a file is left out.
input_tensor: Optional Keras tensor of shape `(batch, height, width, channels)`
    to use as the image; the model then begins at the inputs it was computed
    from. Two models in one graph are called on it instead: `model(tensor)`,
    each with a `name` of its own.
input_shape: Optional shape of an image, `(height, width, channels)`, by default
    (224, 224, 3), or what the published weights of the variant were trained on,
    with the top or without. Height and width are multiples of
    the patch size and may differ.
pooling: What follows the last norm where `include_top` is `False`: `None` (the
    tokens), `"avg"` (their mean, which is what the head reads) or `"max"`.
classes: Positive integer, the number of classes of the head; with a tag, that
    of the weights.
classifier_activation: Activation of the head, by default `"softmax"`; `None`
    for logits.
name: Name of the model.
dropout_rate: Float in [0, 1), the dropout after each dense layer of the MLPs.
resize: How to bring the weights of token mixing to another grid of tokens than
    they were trained for. `"tile"` (MLP-Mixer, appendix C) processes parts of
    the old size by themselves, `"interleave"` spreads each part over the whole
    image, and `"interpolate"` resamples the weights for any grid. `"auto"` is
    `"tile"` where the new grid is a whole multiple, else `"interpolate"`;
    `None` refuses. A `.weights.h5` file does not say its grid: load it with the
    `input_shape` it was saved with, and resize the model with
    `keras_mixer.resize`."""


CONTRACT = """\
Returns:
    A `keras.Model` from images of shape `(batch, height, width, channels)`
    to probabilities of shape `(batch, classes)`; without the top to tokens
    `(batch, tokens, hidden_dim)`, row by row, or to `(batch, hidden_dim)`
    with `pooling`. Where `keras.config.image_data_format()` is
    `"channels_first"`, images have the shape `(batch, channels, height,
    width)`.

Raises:
    ValueError: If an argument has a value it cannot have, a side of the
        image is unknown or no multiple of the patch size, or the weights
        are not those of the model.
    TypeError: If an argument has the wrong type."""


# The general constructors, `{family: (record, constructor)}`, and those of the
# variants, `{name: constructor}`. They are filled when the modules of the
# families are imported, which `import keras_mixer` does.
FAMILIES: dict[str, tuple[Family, Callable[..., keras.Model]]] = {}
MODELS: dict[str, Callable[..., keras.Model]] = {}

Constructor = TypeVar("Constructor", bound=Callable[..., keras.Model])


def general_constructor(
    family: Family,
) -> Callable[[Constructor], Constructor]:
    """Registers the general constructor of a family and documents it.

    `OPTIONS` and `CONTRACT` take the places of the lines `{options}` and
    `{contract}` in its docstring, indented as those.

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


# Annotated so that editors complete the options.
def variant_of(
    family: Callable[
        Concatenate[Any, Any, Any, Any, Any, Options], keras.Model
    ],
    name: str,
) -> Callable[[Callable[..., keras.Model]], Callable[Options, keras.Model]]:
    """Gives the constructor of a variant the options of its family.

    Signature and documentation are the family's without the sizes, which have
    no default, and the constructor is called with every option by its name.
    `weights` is "imagenet" by default where the variant has such.

    Args:
        family: The general constructor.
        name: The default of the variant's `name`.
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
