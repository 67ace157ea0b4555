"""The layers after the last norm: pool, grid and head.

The pool and the head compute in float32 under mixed precision. They take little
time, and a mean of many small terms is not accurate in 16 bits.
"""

import keras

from keras_mixer.models.scaling import at_least_float32


def pool(pooling, policy=None, name=None):
    """Returns the layer that reduces the tokens to one vector.

    Args:
        pooling: "avg" or "max".
        policy: The dtype policy of the model, by default the global one.
        name: Name of the layer; by default "avg_pool" or "max_pool".
    """
    pools = {
        "avg": keras.layers.GlobalAveragePooling1D,
        "max": keras.layers.GlobalMaxPooling1D,
    }
    return pools[pooling](
        data_format="channels_last",
        dtype=at_least_float32(policy),
        name=name or f"{pooling}_pool",
    )


def head(classes, activation, kernel_initializer, name, policy=None):
    """Returns the classification head."""
    return keras.layers.Dense(
        classes,
        activation=activation,
        kernel_initializer=kernel_initializer,
        dtype=at_least_float32(policy),
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
        channels, rows, columns)`.
    """
    shape = (*grid, tokens.shape[-1])
    x = keras.layers.Reshape(shape, name=name)(tokens)
    if keras.config.image_data_format() == "channels_last":
        return x
    return keras.layers.Permute((3, 1, 2), name=f"{name}_channels_first")(x)


def is_grid(layer, grid):
    """Returns whether `to_grid` made this layer, for this grid."""
    return (
        isinstance(layer, keras.layers.Reshape)
        and tuple(layer.target_shape[:-1]) == grid
    )
