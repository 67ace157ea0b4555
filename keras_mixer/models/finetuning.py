"""What fine-tuning changes: the head, and which layers are trained."""

from collections.abc import Mapping

import keras

from keras_mixer.arguments import check_positive_int
from keras_mixer.arguments import check_rate
from keras_mixer.keras_private import flatten_layers
from keras_mixer.models import outputs
from keras_mixer.models.anatomy import block_name
from keras_mixer.models.anatomy import blocks_of
from keras_mixer.models.anatomy import body_of
from keras_mixer.models.anatomy import inner_model
from keras_mixer.models.anatomy import is_fused
from keras_mixer.models.anatomy import norm_of
from keras_mixer.models.anatomy import stem_of
from keras_mixer.models.calls import output_of
from keras_mixer.models.graph import like
from keras_mixer.models.graph import with_front
from keras_mixer.models.scaling import at_least_float32
from keras_mixer.types import Activation


def new_head(
    model: keras.Model,
    classes: int | Mapping[str, int] | None,
    *,
    activation: Activation | Mapping[str, Activation] = "softmax",
    dropout_rate: float = 0.0,
    name: str = "predictions",
) -> keras.Model:
    """Returns a model with a new head, for other classes.

    The new model shares all layers and weights with `model`, except for the
    layers after the pooling. It can be resized, fused, exported and saved. A
    new head starts with weights of zero, as in the official fine-tuning of
    MLP-Mixer.

    Args:
        model: A model built by this package, with or without a head. It may be
            trained, loaded from a file, resized or quantized. If the model
            contains such a model as a layer, the inner model gets the new head
            and the layers in front of it are kept.
        classes: Positive integer, the number of classes. `0` or `None` returns
            the model without a head. A dict `{name: classes}` makes several
            heads.
        activation: Activation of the head, as for `keras.activations.get`.
            `None` returns logits. For several heads it may be a dict with the
            same keys.
        dropout_rate: Float in [0, 1), the dropout rate before the head.
        name: Name of the head. `export_weights` requires "predictions". For
            several heads, the keys of `classes` are the names.

    Returns:
        A `keras.Model` that is not compiled. Its output has the shape `(batch,
        classes)`, or is a dict `{name: output}` if `classes` is a dict. Without
        a head it is `(batch, hidden_dim)`: the maximum over the tokens if
        `model` was built with `pooling="max"`, else the mean.

    Raises:
        ValueError: If the model is not one of this package's, contains several
            of them or is fused, or if an argument has a wrong value.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import keras_mixer
    >>> model = keras_mixer.MixerNano(weights="cifar10")
    >>> model = keras_mixer.new_head(model, 3)
    >>> model.output_shape
    (None, 3)
    >>> two = keras_mixer.new_head(model, {"color": 4, "shape": 5})
    >>> {name: output.shape for name, output in two.output.items()}
    {'color': (None, 4), 'shape': (None, 5)}
    """
    heads = _checked_heads(classes, activation, name)
    rate = check_rate("dropout_rate", dropout_rate)

    def convert(body):
        x = _pooled(body)
        dtype = at_least_float32(x.dtype)
        if rate and heads:
            x = keras.layers.Dropout(rate, dtype=dtype, name="head_dropout")(x)
        made = {
            name: outputs.head(count, function, "zeros", name, dtype)(x)
            for name, (count, function) in heads.items()
        }
        if not isinstance(classes, Mapping):
            made = next(iter(made.values()), x)
        return made

    _check_not_fused(model)
    return like(model, with_front(model, convert))


def _pooled(body):
    """Returns the tensor after the pooling, which is added if it is missing."""
    for name in ("avg_pool", "max_pool"):
        if any(layer.name == name for layer in body.layers):
            return output_of(body, name)
    return outputs.pool(output_of(body, body_of(body)[-1].name), "avg")


def _checked_heads(classes, activation, name):
    """Returns `{name: (number of classes, activation)}`."""
    if not isinstance(classes, Mapping):
        if isinstance(activation, Mapping):
            raise TypeError(
                "`activation` can be a dict only if `classes` is one. "
                f"Received: classes={classes}, activation={activation}"
            )
        if classes is None or (classes == 0 and classes is not False):
            return {}
        return {name: (check_positive_int("classes", classes), activation)}
    if not classes:
        raise ValueError(
            "`classes` must have at least one head. Use `None` for a model "
            f"without a head. Received: classes={classes}"
        )
    if not isinstance(activation, Mapping):
        activation = dict.fromkeys(classes, activation)
    if activation.keys() != classes.keys():
        raise ValueError(
            "`activation` must have the same keys as `classes`, "
            f"{list(classes)}. Received: activation={activation}"
        )
    return {
        key: (check_positive_int(f"classes[{key!r}]", count), activation[key])
        for key, count in classes.items()
    }


def _check_not_fused(model):
    inner = inner_model(model)
    if is_fused(inner):
        raise ValueError(
            f"'{inner.name}' is fused, so it is for inference only. Use the "
            "model that it was made from."
        )


def freeze(model: keras.Model, until: str | int | None) -> keras.Model:
    """Freezes the first layers of a model, and makes all others trainable.

    The model is changed in place: `trainable` of its layers is set. As always
    in Keras, compile the model afterwards.

    Args:
        model: A model built by this package, or a model that contains one as a
            layer.
        until: The last layer to freeze. One of:
            - The name of a block, such as `"block_8"`, or its index. Negative
              indices count from the last block.
            - `"stem"`: only the stem is frozen.
            - `"norm"`: all layers except the head are frozen.
            - `None`: no layer is frozen.

    Returns:
        `model`.

    Raises:
        ValueError: If the model is not one of this package's, contains several
            of them, or has no such block.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import keras_mixer
    >>> model = keras_mixer.MixerNano(weights="cifar10")
    >>> model = keras_mixer.freeze(model, until="block_5")
    >>> [layer.name for layer in model.layers if layer.trainable_variables]
    ['block_6', 'block_7', 'norm', 'predictions']
    """
    inner = inner_model(model)
    layers = {
        "stem": stem_of(inner),
        **blocks_of(inner),
        "norm": norm_of(inner),
    }
    frozen = []
    if until is not None:
        last = block_name(inner, until, others=("stem", "norm"))
        frozen = [*layers.values()][: [*layers].index(last) + 1]
    _set_trainable(model, True)
    for layer in frozen:
        if layer is not None:
            _set_trainable(layer, False)
    return model


def _set_trainable(layer, value):
    # On TensorFlow, an attribute that is set to its present value is ignored,
    # although the inner layers may have another value (Keras 3.15).
    layer.trainable = not value
    layer.trainable = value
    for inner in flatten_layers(layer):
        # Keras would also train the kernel to which LoRA is added.
        if getattr(inner, "lora_enabled", False):
            for variable in inner.variables:
                if variable.name == "kernel":
                    variable.trainable = False
