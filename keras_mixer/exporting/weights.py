"""Exports weights to the file formats of other libraries."""

import keras

from keras_mixer.models.introspection import describe
from keras_mixer.models.introspection import weights_of
from keras_mixer.types import Path
from keras_mixer.weights import assigning
from keras_mixer.weights import naming
from keras_mixer.weights import writing


def export_weights(model: keras.Model, path: Path) -> None:
    """Writes the weights of a model to a file for the official code or timm.

    If an error occurs, no incomplete file is left. Loading the file with
    `weights=` restores exactly the same weights.

    Source: the layouts of google-research/vision_transformer (`.npz`) and of
    `timm.models.mlp_mixer` (`.safetensors`).

    Args:
        model: A model built by this package, with or without its head. Your own
            head is exported if it is a `Dense` layer named "predictions".
        path: The path of the file: `.npz` for the official JAX code (Mixer
            only) or `.safetensors` for timm. An existing file is replaced.

    Raises:
        ValueError: If the model is not one of this package's, is quantised or
            fused, or has weights that the file format does not support, or if
            `path` has another extension.
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
    family, grid = describe(model)
    path, layout = writing.check_target(path, family)
    arrays = weights_of(model)
    shapes = assigning.shapes(arrays)
    assigning.check(
        naming.shapes_of(family, naming.sizes_of(shapes, family)),
        shapes,
        f"Cannot export '{model.name}': its weights are not those of the file "
        "format. Name your own head 'predictions', or export the model without "
        "its head.",
    )
    writing.write(path, arrays, layout, grid)
