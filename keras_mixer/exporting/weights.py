"""Carrying weights out, for the code of others."""

import keras

from keras_mixer.models.introspection import describe
from keras_mixer.models.introspection import weights_of
from keras_mixer.types import Path
from keras_mixer.weights import assigning
from keras_mixer.weights import naming
from keras_mixer.weights import writing


def export_weights(model: keras.Model, path: Path) -> None:
    """Writes the weights of a model as the official code or timm reads them.

    The file is written whole or not at all. Loading it with `weights=` gives
    the same bits back.

    Source: the layouts of google-research/vision_transformer (`.npz`) and of
    `timm.models.mlp_mixer` (`.safetensors`).

    Args:
        model: A model that this package built, with its head or without; a head
            of your own is exported if it is a `Dense` named "predictions".
        path: The file to write: `.npz` for the official JAX code (Mixer only),
            `.safetensors` for timm. One that exists is replaced.

    Raises:
        ValueError: If the model is none of this package's, is quantised, or has
            layers with weights that the layout does not know; if the path ends
            in something else.
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
        f"Cannot export '{model.name}': it has weights that the layout has no "
        "name for, or lacks some. Name a head of your own 'predictions', or "
        "export the model without it.",
    )
    writing.write(path, arrays, layout, grid)
