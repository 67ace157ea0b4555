"""Image -> preprocessing -> stem -> blocks -> norm -> pool -> head.

One builder for every family, since they differ only in the parts they hand in.
It keeps the contract of Keras Applications: its arguments, its order, its
errors. Where it must differ: the weights of token mixing have one row for each
token, so the size of the image is fixed at construction, with a top or without.

The network itself is "channels last" throughout. With the image data format
"channels_first" the images are transposed at the input, once; everything behind
it, the weights included, stays the same.
"""

import functools
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Concatenate
from typing import ParamSpec

import keras

from keras_mixer.blank import blank
from keras_mixer.blank import unblank
from keras_mixer.checking import check_positive_int
from keras_mixer.layers import gelu_tanh
from keras_mixer.preprocessing import at_least_float32
from keras_mixer.preprocessing import scaling
from keras_mixer.weights import catalog
from keras_mixer.weights import loading
from keras_mixer.weights import resizing


def build_model(
    *,
    family,
    variant,
    patch_size,
    hidden_dim,
    blocks,
    norm,
    default_activation,
    default_scaling,
    kernel_initializer,
    head_initializer,
    include_top,
    include_preprocessing,
    weights,
    input_tensor,
    input_shape,
    pooling,
    classes,
    classifier_activation,
    name,
    activation,
    resize,
):
    """Builds the functional model of a family from its parts.

    Args:
        family: Whose weights the model has: a key of `naming.FAMILIES`.
        variant: Whose published weights it may load, or `None`.
        patch_size: Side of the square patches, in pixels.
        hidden_dim: Channels of a token.
        blocks: Makes the layers from `(batch, tokens, channels)` to the same,
            unbuilt, given an activation and how many times wider than in the
            variant the MLP across tokens is.
        norm: Makes the layer behind the last block, given its `name`.
        default_activation: The activation, unless weights have another.
        default_scaling: Mean and std of the pixels, unless weights have others.
        kernel_initializer: Initializer of the stem's kernel.
        head_initializer: Initializer of the head's kernel.
        include_top: The rest is documented in `keras_mixer.Mixer`.
    """
    source = loading.check_source(weights, variant)
    resizing.check_method(resize)
    _check_pooling(pooling)
    patch_size = check_positive_int("patch_size", patch_size)
    hidden_dim = check_positive_int("hidden_dim", hidden_dim)
    if include_top:
        classes = check_positive_int("classes", classes)
        _check_head(source, classes, classifier_activation)
        pooling = "avg"
    side = catalog.image_size(variant)
    shape = _image_shape(input_shape, input_tensor, patch_size, side)
    if input_tensor is not None and not include_preprocessing:
        _check_scaled(input_tensor)
    *sides, channels = _channels_behind(shape)
    grid = tuple(side // patch_size for side in sides)

    checkpoint = loading.open_checkpoint(source, family, include_top)
    plan = loading.plan(checkpoint, grid, resize)
    if activation == "auto":
        activation = checkpoint.activation or default_activation
        activation = _ACTIVATIONS.get(activation, activation)
    blocks = blocks(activation, plan.widening)

    image = input_tensor
    if image is None:
        image = keras.Input(shape, name="image")
    # The blocks were made in the caller's scope, and they are what is worth
    # rematerialising; the model as a whole, say, would be computed twice over.
    with keras.RematScope(None):
        stem = _stem(patch_size, hidden_dim, kernel_initializer)
        norm = norm(name="norm")
        head = _head(classes, classifier_activation, head_initializer)
        layers = [stem, *blocks, norm, head]
        if source is not None:
            blank(layers)
        x = _channels_last(image)
        if include_preprocessing:
            mean_and_std = checkpoint.scaling or default_scaling
            x = scaling(*mean_and_std, channels, name="preprocessing")(x)
        x = stem(x)
        x = keras.layers.Reshape((-1, hidden_dim), name="tokens")(x)
        for block in blocks:
            x = block(x)  # (batch, tokens, channels)
        x = norm(x)
        if pooling:
            x = _pool(pooling)(x)  # (batch, channels)
        if include_top:
            x = head(x)
        model = keras.Model(_sources(image), x, name=name)
    unblank(layers)
    loading.load(checkpoint, plan, layers, channels)
    return model


def _check_pooling(pooling):
    if pooling not in (None, "avg", "max"):
        raise ValueError(
            "`pooling` must be `None`, 'avg' or 'max'. "
            f"Received: pooling={pooling!r}"
        )


# The names of activations that Keras does not have.
_ACTIVATIONS = {catalog.GELU_TANH: gelu_tanh}


def _check_head(source, classes, activation):
    """Refuses another head than that of published weights, as Keras does."""
    if not isinstance(source, catalog.Record):
        return
    if source.classes is None:
        raise ValueError(
            f"`weights='{source.tag}'` has no trained head. Give "
            "`include_top=False`, and add a head of your own."
        )
    if classes != source.classes:
        raise ValueError(
            f"If using `weights='{source.tag}'` with `include_top=True`, "
            f"`classes` should be {source.classes}. "
            f"Received classes={classes}"
        )
    activation = keras.activations.get(activation)
    allowed = (keras.activations.softmax, keras.activations.linear)
    if activation not in allowed:
        raise ValueError(
            "Only `None` and `softmax` activations are allowed for the "
            "`classifier_activation` argument when using pretrained weights, "
            "with `include_top=True`. "
            f"Received: classifier_activation={activation}"
        )


def _image_shape(input_shape, input_tensor, patch_size, side):
    """Checks the shape of the image, which is in the image data format."""
    axes = ("height", "width", "channels")
    default = (side, side, 3)
    if keras.config.image_data_format() == "channels_first":
        axes = axes[2:] + axes[:2]
        default = default[2:] + default[:2]
    if input_tensor is not None:
        input_shape = _shape_of_tensor(input_tensor, input_shape)
    elif input_shape is None:
        input_shape = default
    is_sequence = isinstance(input_shape, (tuple, list))
    if not is_sequence or len(input_shape) != 3:
        raise (ValueError if is_sequence else TypeError)(
            f"`input_shape` must be a tuple of three integers, {axes}. "
            f"Received: input_shape={input_shape!r}"
        )
    if None in input_shape:
        raise ValueError(
            "`input_shape` must be known in full, with `include_top` or "
            "without: token mixing has one row of weights for each patch of "
            "the image. Resize the images to one size, and give it. "
            f"Received: input_shape={tuple(input_shape)}"
        )
    shape = tuple(
        check_positive_int(f"input_shape[{i}]", size)
        for i, size in enumerate(input_shape)
    )
    _check_sides(shape, axes, patch_size)
    return shape


def _check_sides(shape, axes, patch_size):
    sides = [
        size
        for size, axis in zip(shape, axes, strict=True)
        if axis != "channels"
    ]
    if any(side % patch_size for side in sides):
        nearest = tuple(
            max(round(side / patch_size), 1) * patch_size for side in sides
        )
        raise ValueError(
            "The height and width of the image must be multiples of the patch "
            f"size; the nearest are {nearest}. "
            f"Received: input_shape={shape}, patch_size={patch_size}"
        )


def _shape_of_tensor(input_tensor, input_shape):
    if not keras.utils.is_keras_tensor(input_tensor):
        raise TypeError(
            "`input_tensor` must be a Keras tensor: the output of "
            "`keras.Input` or of a layer called on one. To use a model on "
            "data, call it. "
            f"Received: input_tensor of type {type(input_tensor).__name__}"
        )
    shape = tuple(input_tensor.shape[1:])
    if input_shape is not None and input_shape not in (shape, list(shape)):
        raise ValueError(
            "`input_shape` and the shape of `input_tensor` must agree; give "
            f"only one of them. Received: input_shape={input_shape}, "
            f"input_tensor.shape={tuple(input_tensor.shape)}"
        )
    return shape


def _check_scaled(input_tensor):
    if not keras.backend.is_float_dtype(input_tensor.dtype):
        raise ValueError(
            "With `include_preprocessing=False` the model expects scaled "
            "values, which are not whole numbers. "
            f"Received: input_tensor of dtype {input_tensor.dtype}"
        )


def _channels_behind(shape):
    """`(height, width, channels)`, whatever the image data format."""
    if keras.config.image_data_format() == "channels_first":
        return (*shape[1:], shape[0])
    return shape


def _channels_last(image):
    if keras.config.image_data_format() == "channels_last":
        return image
    return keras.layers.Permute((2, 3, 1), name="channels_last")(image)


def _stem(patch_size, hidden_dim, kernel_initializer):
    return keras.layers.Conv2D(
        hidden_dim,
        patch_size,
        strides=patch_size,
        kernel_initializer=kernel_initializer,
        data_format="channels_last",
        name="stem",
    )


# The pool and the head are in float32 under mixed precision: they cost next to
# nothing, and a mean of many small terms is where 16 bits hurt.


def _pool(pooling):
    pools = {
        "avg": keras.layers.GlobalAveragePooling1D,
        "max": keras.layers.GlobalMaxPooling1D,
    }
    return pools[pooling](
        data_format="channels_last",
        dtype=at_least_float32(),
        name=f"{pooling}_pool",
    )


def _head(classes, activation, kernel_initializer):
    return keras.layers.Dense(
        classes,
        activation=activation,
        kernel_initializer=kernel_initializer,
        dtype=at_least_float32(),
        name="predictions",
    )


def _sources(image):
    sources = keras.utils.get_source_inputs(image)
    return sources[0] if len(sources) == 1 else sources


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


def variant_with(sizes, variants):
    """The variant of these sizes in a table, or `None`.

    Its sizes choose the checkpoint of a model, never its name.
    """
    return next((key for key in variants if variants[key] == sizes), None)


def documented(family):
    """Puts `OPTIONS` and `CONTRACT` into a family's docstring.

    They stand for the lines `{options}` and `{contract}`, indented as those.
    """
    for key, text in (("{options}", OPTIONS), ("{contract}", CONTRACT)):
        family.__doc__ = re.sub(
            f"^( +){key}$",
            lambda line, text=text: textwrap.indent(text, line[1]),
            family.__doc__,
            flags=re.MULTILINE,
        )
    return family


Options = ParamSpec("Options")


# Annotated, as nothing else here, so that editors complete the options.
def variant_of(
    family: Callable[
        Concatenate[int, int, int, int, float, Options], keras.Model
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
        return variant

    return decorate


def _documented_from(option, family):
    text = inspect.cleandoc(family.__doc__)
    return text[text.index(f"{option}: ") : text.index("Example:")].rstrip()
