"""Exports weights to the file formats of other libraries."""

import logging

import keras
import numpy as np

from keras_mixer.arguments import check_call
from keras_mixer.arguments import check_local_path
from keras_mixer.keras_private import flatten_layers
from keras_mixer.keras_private import operation_behind
from keras_mixer.models.anatomy import added_to
from keras_mixer.models.anatomy import body_of
from keras_mixer.models.anatomy import family_of
from keras_mixer.models.anatomy import grid_of
from keras_mixer.models.anatomy import head_of
from keras_mixer.models.anatomy import inner_model
from keras_mixer.models.anatomy import inner_models
from keras_mixer.models.anatomy import layer_that_holds
from keras_mixer.models.anatomy import leaves
from keras_mixer.models.anatomy import stem_of
from keras_mixer.models.anatomy import weights_of_layers
from keras_mixer.models.calls import call_of
from keras_mixer.models.scaling import scaling_of
from keras_mixer.types import Path
from keras_mixer.weights import assigning
from keras_mixer.weights import keras_config
from keras_mixer.weights import naming
from keras_mixer.weights import writing

logger = logging.getLogger("keras_mixer")

# Layers in front of a stem that leave the values as they are.
_NEUTRAL = (keras.layers.InputLayer, keras.layers.Permute)


def export_weights(model: keras.Model, path: Path) -> None:
    """Writes the weights of a model to a file for the official code or timm.

    If an error occurs, no incomplete file is left. Loading the file with
    `weights=` restores exactly the same weights. The file also has notes of the
    grid, the activation and the scaling of the pixels, so the loaded model
    computes the same. The official code and timm do not read them.

    Source: the layouts of google-research/vision_transformer (`.npz`) and of
    `timm.models.mlp_mixer` (`.safetensors`).

    Args:
        model: A model built by this package, or a model that contains one as a
            layer, such as `keras.Sequential([backbone, Dense(3)])`. A head is
            exported if it is one `Dense` layer after the mean over the tokens.
            Layers without weights, such as augmentation, are not exported.
        path: The path of the file: `.npz` for the official JAX code (Mixer
            only) or `.safetensors` for timm. An existing file is replaced.

    Raises:
        ValueError: If the model is not one of this package's, contains several
            of them, is quantized or fused, or has weights, activations or a
            stem that the file format does not support, or a `call` of its own,
            or if `path` has another extension.
        TypeError: If an argument has the wrong type.
        ImportError: If safetensors is not installed.

    Example:

    >>> import pathlib, tempfile
    >>> import keras_mixer
    >>> model = keras_mixer.Mixer(
    ...     patch_size=4, num_blocks=2, hidden_dim=16, tokens_mlp_dim=8,
    ...     channels_mlp_dim=32, input_shape=(12, 20, 3), classes=7)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "mixer.npz")
    ...     keras_mixer.export_weights(model, path)
    ...     path.exists()
    True
    """
    check_local_path("path", path)
    body = inner_model(model)
    family, grid = family_of(body), grid_of(body)
    path, layout = writing.check_target(path, family)
    arrays = weights_of_layers(body_of(body))
    head = _head(model)
    if head is not None:
        for own, array in weights_of_layers([head]).items():
            arrays[naming.HEAD + own.removeprefix(f"{head.name}/")] = array
    shapes = assigning.shapes(arrays)
    assigning.check(
        naming.shapes_of(family, naming.sizes_of(shapes, family)),
        shapes,
        f"Cannot export '{model.name}': its weights are not those of the file "
        "format.",
    )
    _check_computation(model, body)
    known = config_of(model)
    writing.write(path, arrays, layout, known._replace(grid=grid))


def _check_computation(model, body):
    """Raises an error if a model computes what the files cannot say."""
    for layer in flatten_layers(model):
        if isinstance(layer, keras.Model) and inner_models(layer):
            check_call(layer)
    changed = keras_config.changed({"config": body.get_config()})
    if changed:
        raise ValueError(
            f"Cannot export '{model.name}'. The file formats support one "
            "activation, that of the MLPs, and a stem that is a convolution "
            "with its kernel size as stride. Use `model.save`. "
            f"Received: other computations in {changed}"
        )


def config_of(model):
    """Returns the `ModelConfig` of a model that contains one of this package.

    The layers in front of the stem are asked what they compute.
    """
    body = inner_model(model)
    pairs, unknown = [], []
    for layer in _in_front_of_stem(model, body):
        pair = scaling_of(layer)
        if pair is not None and {np.size(x) for x in pair} <= {1, 3}:
            pairs.append(pair)
        elif not isinstance(layer, _NEUTRAL):
            unknown.append(layer.name)
    known = keras_config.without_scaling({"config": body.get_config()})
    return known._replace(scaling=keras_config.scaling_of(pairs, unknown))


def _in_front_of_stem(model, inner):
    """Returns the layers in front of the stem, the last of them first.

    A model whose graph does not show them is in the list itself.
    """
    if isinstance(model, keras.layers.Wrapper):
        return _in_front_of_stem(model.layer, inner)
    found = []
    try:
        if model is inner:
            layer = stem_of(model)
        else:
            layer = layer_that_holds(model, inner)
            found = _in_front_of_stem(layer, inner)
        while len(tensors := call_of(model, layer).input_tensors) == 1:
            layer = operation_behind(tensors[0])
            found += reversed(leaves(layer))
    except ValueError:
        found.append(model)
    return found


def _head(model):
    """Returns the only layer with weights after the body, or `None`.

    Raises:
        ValueError: If the file formats cannot store these layers.
    """
    added = [layer for layer in added_to(model) if layer.weights]
    if not added:
        return None
    head = head_of(model)
    if head is None or not head.use_bias:
        names = [layer.name for layer in added]
        raise ValueError(
            f"Cannot export '{model.name}'. The file formats support only one "
            "layer with weights besides those of the backbone: a `Dense` layer "
            "with a bias after the mean over the tokens. Export the model "
            "without its head, `keras_mixer.new_head(model, None)`, or the "
            f"inner model. Received: the layers {names}"
        )
    return head
