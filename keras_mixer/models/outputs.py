"""The layers after the last norm: pool, grid and head.

The pool and the head compute at least in float32, also in a model of 16 bits.
They take little time, and a mean of many small terms is not accurate in 16
bits. The dtype of a layer comes from its input, not from the global policy,
which can be another one when the layer is added to a model.
"""

import keras

from keras_mixer.models.scaling import at_least_float32


def pool(tokens, pooling, name=None):
    """Reduces tokens to one vector.

    Args:
        tokens: Keras tensor of shape `(batch, tokens, channels)`.
        pooling: "avg" or "max".
        name: Name of the layer; by default "avg_pool" or "max_pool".
    """
    pools = {
        "avg": keras.layers.GlobalAveragePooling1D,
        "max": keras.layers.GlobalMaxPooling1D,
    }
    layer = pools[pooling](
        data_format="channels_last",
        dtype=at_least_float32(tokens.dtype),
        name=name or f"{pooling}_pool",
    )
    return layer(tokens)


def head(classes, activation, kernel_initializer, name, dtype=None):
    """Returns the classification head.

    Args:
        dtype: The dtype of the pooled features; by default that of the global
            policy.
    """
    return keras.layers.Dense(
        classes,
        activation=activation,
        kernel_initializer=kernel_initializer,
        dtype=at_least_float32(dtype),
        name=name,
    )


def to_grid(tokens, grid, name):
    """Arranges tokens as an image, in the image data format.

    Args:
        tokens: Keras tensor of shape `(batch, tokens, channels)`.
        grid: `(rows, columns)` of the tokens.
        name: Name of the layer.

    Returns:
        Keras tensor of shape `(batch, rows, columns, channels)`, or `(batch,
        channels, rows, columns)`, of the same dtype.
    """
    shape, dtype = (*grid, tokens.shape[-1]), tokens.dtype
    x = keras.layers.Reshape(shape, dtype=dtype, name=name)(tokens)
    if keras.config.image_data_format() == "channels_last":
        return x
    return keras.layers.Permute(
        (3, 1, 2), dtype=dtype, name=f"{name}_channels_first"
    )(x)


def is_grid(layer, grid):
    """Returns whether `to_grid` made this layer, for this grid."""
    return (
        isinstance(layer, keras.layers.Reshape)
        and tuple(layer.target_shape[:-1]) == grid
    )
