"""Family, grid and weights of a given model.

A model that was loaded from a file or has a new head is a plain `keras.Model`.
The paths of its weights identify its family, because all layers have names. The
output shape of its stem is the grid of the patches.
"""

import keras

from keras_mixer.keras_private import flatten_layers
from keras_mixer.weights import loading
from keras_mixer.weights import naming


def weights_of(model):
    """Returns `{path: array}` of all weights of a model. LoRA is merged."""
    return weights_of_layers(model.layers)


def weights_of_layers(layers):
    """Returns `{path: array}` of all weights of layers. LoRA is merged."""
    merged = {
        id(variable): keras.ops.convert_to_numpy(inner.kernel)
        for layer in layers
        for inner in flatten_layers(layer)
        if getattr(inner, "lora_enabled", False)
        for variable in inner.weights
        if variable.name == "kernel"
    }
    return {
        path: merged[id(variable)]
        if id(variable) in merged
        else variable.numpy()
        for path, variable in loading.variables_of(layers).items()
    }


def is_fused(model):
    """Returns whether a model was created by `keras_mixer.fuse`."""
    return isinstance(model, keras.Model) and any(
        getattr(layer, "is_fused", False) for layer in model.layers
    )


def family_of(model):
    """Returns the name of the family of a model.

    Raises:
        ValueError: If the model is not one of this package's, or is quantised
            or fused.
        TypeError: If `model` is not a Keras model.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a Keras model. "
            f"Received: model of type {type(model).__name__}"
        )
    if is_fused(model):
        raise ValueError(
            f"'{model.name}' is fused. Pass the model that it was made from."
        )
    family = naming.family_of(loading.variables_of(model.layers))
    if family is None:
        raise ValueError(
            "`model` must be a model of this package, with the original names "
            "of its weights. Resize, fuse or export a model before it is "
            f"quantised. Received: model='{model.name}'"
        )
    return family


def describe(model):
    """Returns the family of a model and its grid of tokens.

    Raises:
        ValueError: If the model is not one of this package's, or is quantised
            or fused.
        TypeError: If `model` is not a Keras model.
    """
    family = family_of(model)
    return family, grid_of(model)


def grid_of(model):
    """Returns the rows and columns of the tokens of a model.

    Raises:
        ValueError: If the model has no stem.
    """
    if not any(layer.name == "stem" for layer in model.layers):
        raise ValueError(
            "`model` must be a model of this package. "
            f"Received: model='{model.name}', which has no layer 'stem'"
        )
    return tuple(model.get_layer("stem").output.shape[1:3])
