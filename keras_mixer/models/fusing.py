"""The same function with fewer operations, for inference.

A scale and an offset per channel, before or after a linear layer over the
channels, can be folded into the weights of this layer:
`(a x + b) K = x (a K) + b K`. The modules of the blocks in `layers` describe
what is folded inside a block. Outside the blocks, the scale and the offset of
the last norm fold into the head, because the mean over the tokens preserves
them. The scaling of the pixels folds into the stem.

As in resizing, the model is cloned. Its weights `{path: array}` are changed in
NumPy.
"""

import keras
import numpy as np

from keras_mixer.layers.affine import Affine
from keras_mixer.layers.folding import fold_norm
from keras_mixer.layers.mixing import Block
from keras_mixer.models.anatomy import check_holds_ours
from keras_mixer.models.anatomy import family_of
from keras_mixer.models.anatomy import follower
from keras_mixer.models.anatomy import inner_models
from keras_mixer.models.anatomy import is_fused
from keras_mixer.models.anatomy import is_ours
from keras_mixer.models.anatomy import takers_of
from keras_mixer.models.anatomy import weights_of
from keras_mixer.models.graph import clone
from keras_mixer.models.graph import with_inner
from keras_mixer.models.scaling import PixelNormalization
from keras_mixer.weights import assigning
from keras_mixer.weights import loading


def fuse(model: keras.Model) -> keras.Model:
    """Returns a model that computes the same with fewer operations.

    The new model has the same inputs and outputs. It shares no weights with
    the original. These scales and offsets are folded into other weights:

    - ResMLP: all `Affine` and `LayerScale` layers, except for one scale and one
      offset per block.
    - Mixer: the scales and offsets of the norms before channel mixing. Those of
      the norms before token mixing remain, because they act on channels and the
      next layer acts on tokens.
    - Both: the scaling of the pixels, and the scale and offset of the last norm
      if a `Dense` layer follows, directly or after the mean over the tokens.

    The new model is for inference. It can be saved, exported and quantised like
    any Keras model. It cannot be resized, and `export_weights` does not support
    it. Keep the original model for that and for training.

    Source: section 2 of ResMLP (arXiv 2105.03404), where the linear layers
    absorb the `Affine`. The scaling of the pixels folds exactly because the
    stem has no padding.

    Args:
        model: A model built by this package, a functional model that extends
            one, or a model that contains such models as layers, such as
            `keras.Sequential([backbone, Dense(3)])`. The inner models are
            fused, and the other layers are copied. The returned model has the
            same form. Only layers of the same functional model are folded into
            each other.

    Returns:
        A `keras.Model` that is not compiled, or `model` if it is already fused.

    Raises:
        ValueError: If the model is not one of this package's, or is quantised.
        TypeError: If `model` is not a Keras model.

    Example:

    >>> import keras_mixer
    >>> model = keras_mixer.ResMLP(
    ...     patch_size=4, num_blocks=2, hidden_dim=16, channels_mlp_dim=64,
    ...     layer_scale_init=0.1, input_shape=(12, 20, 3), classes=7)
    >>> fused = keras_mixer.fuse(model)
    >>> [layer.name for layer in fused.layers]
    ['image', 'stem', 'tokens', 'block_0', 'block_1', 'avg_pool', 'predictions']
    """
    check_holds_ours(model)
    if is_ours(model):
        return _fuse(model)
    if all(map(is_fused, inner_models(model))):
        return model
    return with_inner(model, _fuse)


def _fuse(model):
    if is_fused(model):
        return model
    family_of(model)  # raises an error for quantised models
    takers = takers_of(model)
    scaling, head = _scaling(model, takers), _head(model, takers)

    arrays = weights_of(model)
    if scaling is not None:
        _fold_into_stem(arrays, *_AFFINE_OF[type(scaling)](scaling))
    blocks = {
        layer.name: layer.fold(arrays)
        for layer in model.layers
        if isinstance(layer, Block)
    }
    if head is not None:
        fold_norm(arrays, "norm", head.name)

    fused = _clone(model, blocks, scaling, head)
    variables = loading.variables_of(fused.layers)
    assigning.assign(variables, arrays, model.name)
    return fused


def _scaling(model, takers):
    """Returns the layer that scales pixels, or `None` if it is not foldable."""
    layers = {layer.name: layer for layer in model.layers}
    scaling, stem = layers.get("preprocessing"), layers["stem"]
    if type(scaling) not in _AFFINE_OF or follower(scaling, takers) != stem:
        return None
    # The stem does not accept integers, and 16-bit floats cannot represent
    # fractions of pixel values in [0, 255].
    is_wide = stem.compute_dtype in ("float32", "float64")
    is_float = keras.backend.is_float_dtype(scaling.input.dtype)
    return scaling if is_wide and is_float else None


def _affine_of_rescaling(layer):
    return np.float64(layer.scale), np.float64(layer.offset)


def _affine_of_normalization(layer):
    config = layer.get_config()
    mean, variance = (
        np.asarray(config[key], "float64") for key in ("mean", "variance")
    )
    return variance**-0.5, -mean * variance**-0.5


# Functions that return the scale and the offset per channel of a layer.
_AFFINE_OF = {
    keras.layers.Rescaling: _affine_of_rescaling,
    PixelNormalization: _affine_of_normalization,
    # Files of earlier versions contain this layer.
    keras.layers.Normalization: _affine_of_normalization,
}


# Layers that preserve a scale and an offset per channel.
_INDIFFERENT = (
    keras.layers.Dropout,
    keras.layers.GlobalAveragePooling1D,
)


def _head(model, takers):
    """Returns the `Dense` layer that the last norm folds into, or `None`."""
    layer = follower(model.get_layer("norm"), takers)
    while (
        type(layer) in _INDIFFERENT
        and getattr(layer, "data_format", None) != "channels_first"
    ):
        layer = follower(layer, takers)
    if type(layer) is not keras.layers.Dense or not layer.use_bias:
        return None
    return None if layer.quantization_mode else layer


def _fold_into_stem(arrays, scale, offset):
    kernel = arrays["stem/kernel"]  # (height, width, in, out)
    scale, offset = (
        np.broadcast_to(value, kernel.shape[2]) for value in (scale, offset)
    )
    arrays["stem/bias"] = arrays["stem/bias"] + offset @ kernel.sum(
        axis=(0, 1), dtype="float64"
    )
    arrays["stem/kernel"] = kernel * scale[:, None]


def _clone(model, blocks, scaling, head):
    """Returns the model without the folded layers. Its kernels are zeros.

    Args:
        blocks: `{name of a block: class of the folded block}`.
    """
    norm = model.get_layer("norm")
    gone = {scaling.name} if scaling else set()
    if head and type(norm) is Affine:
        gone.add(norm.name)

    def clone_layer(layer):
        config = _without_lora(layer.get_config())
        if head and layer is norm and norm.name not in gone:
            config |= {"scale": False, "center": False}
        return blocks.get(layer.name, type(layer)).from_config(config)

    def call_layer(layer, *args, **kwargs):
        return args[0] if layer.name in gone else layer(*args, **kwargs)

    return clone(model, clone_layer, call_layer)


def _without_lora(config):
    """Removes LoRA from a configuration: it is merged into the kernels."""
    return {
        key: _without_lora(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in ("lora_rank", "lora_alpha")
    }
