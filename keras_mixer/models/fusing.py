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

from keras_mixer.keras_private import flatten_layers
from keras_mixer.layers.affine import Affine
from keras_mixer.layers.direct import is_linear
from keras_mixer.layers.mixer import MixerBlock
from keras_mixer.layers.mixing import fold_norm
from keras_mixer.layers.resmlp import ResMLPBlock
from keras_mixer.layers.stem import Conv2D
from keras_mixer.models.anatomy import blocks_of
from keras_mixer.models.anatomy import check_holds_ours
from keras_mixer.models.anatomy import family_of
from keras_mixer.models.anatomy import inner_models
from keras_mixer.models.anatomy import is_fused
from keras_mixer.models.anatomy import is_ours
from keras_mixer.models.anatomy import norm_of
from keras_mixer.models.anatomy import stem_of
from keras_mixer.models.anatomy import weights_of_layers
from keras_mixer.models.calls import call_of
from keras_mixer.models.calls import follower
from keras_mixer.models.calls import takers_of
from keras_mixer.models.graph import rebuild
from keras_mixer.models.scaling import scaling_of
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

    The new model is for inference. It can be saved, exported and quantized like
    any Keras model. It cannot be resized, and `export_weights` does not support
    it. Keep the original model for that and for training.

    Source: section 2 of ResMLP (arXiv 2105.03404), where the linear layers
    absorb the `Affine`. The scaling of the pixels folds exactly if the stem has
    no padding.

    Layers of your own are checked by what they compute. What cannot be folded
    is copied: a stem with padding or without a bias, a norm without a scale, a
    subclass of a block, or a block with an activation that you set on a `Dense`
    layer in it. A subclass of `keras.Model` keeps its methods, but attributes
    that you set on a model are lost.

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
        ValueError: If the model is not one of this package's, is quantized, or
            is of a class with its own `__init__`.
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
    return rebuild(model, _fused_if_ours)


def _fused_if_ours(layer):
    return _fuse(layer) if is_ours(layer) else None


def _fuse(model):
    if is_fused(model):
        return model
    family_of(model)  # raises an error for quantized models
    takers = takers_of(model)
    stem, scaling = _stem_and_scaling(model, takers)
    norm, head = _norm_and_head(model, takers)
    blocks = [
        block for block in blocks_of(model).values() if _is_foldable(block)
    ]
    parts = [x for x in (stem, *blocks, norm, head) if x is not None]

    arrays = weights_of_layers(parts)
    if stem is not None:
        _fold_into_stem(arrays, stem.name, *scaling_of(scaling))
    if head is not None:
        fold_norm(arrays, norm.name, head.name)
    kinds = {block: block.fold(arrays) for block in blocks}

    def change(layer):
        if layer not in parts:
            return _fused_if_ours(layer)
        config = _without_lora(layer.get_config())
        if layer is norm:
            config |= {"scale": False, "center": False}
        return kinds.get(layer, type(layer)).from_config(config)

    gone = [scaling, norm if type(norm) is Affine else None]
    fused = rebuild(model, change, gone=gone)
    new = [fused.get_layer(x.name) for x in parts if x not in gone]
    assigning.assign(loading.variables_of(new), arrays, model.name)
    return fused


# Subclasses may compute something else.
_FOLDABLE = (MixerBlock, ResMLPBlock)


def _is_foldable(block):
    return type(block) in _FOLDABLE and all(
        is_linear(layer)
        for layer in flatten_layers(block)
        if isinstance(layer, keras.layers.Dense)
    )


def _stem_and_scaling(model, takers):
    """Returns the stem and the layer that folds into it, or twice `None`."""
    stem = stem_of(model)
    # With padding, the offset would be missing at the borders.
    if (
        type(stem) not in (keras.layers.Conv2D, Conv2D)
        or stem.padding != "valid"
        or stem.data_format != "channels_last"
        or stem.groups != 1
        or not stem.use_bias
    ):
        return None, None
    # The stem does not accept integers, and 16-bit floats cannot represent
    # fractions of pixel values in [0, 255].
    is_wide = stem.compute_dtype in ("float32", "float64")
    for layer in model.layers:
        if follower(layer, takers) is stem and scaling_of(layer) is not None:
            (image,) = call_of(model, layer).input_tensors
            if is_wide and keras.backend.is_float_dtype(image.dtype):
                return stem, layer
    return None, None


# Layers that preserve a scale and an offset per channel.
_INDIFFERENT = (
    keras.layers.Dropout,
    keras.layers.GlobalAveragePooling1D,
)


def _norm_and_head(model, takers):
    """Returns the last norm and the `Dense` layer that it folds into.

    Returns `None` twice if it does not fold into a layer.
    """
    norm = norm_of(model)
    if norm is None or not _has_scale_and_offset(norm):
        return None, None
    layer = follower(norm, takers)
    while (
        type(layer) in _INDIFFERENT
        and getattr(layer, "data_format", None) != "channels_first"
    ):
        layer = follower(layer, takers)
    if type(layer) is not keras.layers.Dense or not layer.use_bias:
        return None, None
    return (None, None) if layer.quantization_mode else (norm, layer)


def _has_scale_and_offset(norm):
    """Returns whether the last step of a norm is `scale * x + offset`."""
    if type(norm) is not keras.layers.LayerNormalization:
        return type(norm) is Affine
    return (
        norm.axis in ([-1], [2])
        and norm.gamma is not None
        and norm.beta is not None
    )


def _fold_into_stem(arrays, name, scale, offset):
    kernel = arrays[f"{name}/kernel"]  # (height, width, in, out)
    scale, offset = (
        np.broadcast_to(value, kernel.shape[2]) for value in (scale, offset)
    )
    arrays[f"{name}/bias"] = arrays[f"{name}/bias"] + offset @ kernel.sum(
        axis=(0, 1), dtype="float64"
    )
    arrays[f"{name}/kernel"] = kernel * scale[:, None]


def _without_lora(config):
    """Removes LoRA from a configuration: it is merged into the kernels."""
    return {
        key: _without_lora(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in ("lora_rank", "lora_alpha")
    }
