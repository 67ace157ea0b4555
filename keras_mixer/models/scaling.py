"""The first layer of a model, which scales the pixels.

The scaling is a layer, so that a saved model contains it. Resizing and cropping
depend on the image, not on the model. They are done before images are batched
(`keras_mixer.load_image`).
"""

import keras
import numpy as np


def scaling(x, mean, std, name):
    """Scales pixels in [0, 255].

    Args:
        x: Keras tensor of shape `(batch, height, width, channels)`.
        mean: The means of red, green and blue, for pixels in [0, 1]. If the
            images do not have three channels, the average of the three numbers
            is used for all channels.
        std: The same for the standard deviations.
        name: Name of the layer.
    """
    # The layer computes in float32 under all 16-bit policies: bfloat16 cannot
    # represent fractions of pixel values.
    options = {"dtype": at_least_float32(), "name": name}
    if x.shape[-1] != 3:
        mean, std = [sum(mean) / 3], [sum(std) / 3]
    if len({*zip(mean, std, strict=True)}) == 1:
        layer = keras.layers.Rescaling(
            1 / (255 * std[0]), offset=-mean[0] / std[0], **options
        )
        return layer(x)
    # Not `Rescaling`: its channel axis depends on the image data format, but
    # here it is always the last axis.
    layer = PixelNormalization(
        axis=-1,
        mean=[255 * value for value in mean],
        variance=[(255 * value) ** 2 for value in std],
        **options,
    )
    return layer(x)


@keras.saving.register_keras_serializable(package="keras_mixer")
class PixelNormalization(keras.layers.Normalization):
    """`keras.layers.Normalization` with a given mean, which ONNX can export.

    On TensorFlow, Keras 3.15 stores the mean and the variance as tensors that
    are not in the graph. In an ONNX file they become two additional inputs.
    NumPy arrays become constants in the graph. Delete this class when
    test_export.py passes with `keras.layers.Normalization`.
    """

    def build(self, input_shape):
        super().build(input_shape)
        if keras.backend.backend() != "tensorflow":
            return
        self.mean = keras.ops.convert_to_numpy(self.mean)
        self.variance = keras.ops.convert_to_numpy(self.variance)


def scaling_of(layer):
    """Returns what a layer in front of a stem computes, if it scales pixels.

    The name of the layer does not matter.

    Args:
        layer: A layer that takes images in channels last.

    Returns:
        `(scale, offset)` if the layer computes `scale * x + offset`, else
        `None`. Both are float64 arrays of shape `()`, `(1,)` or `(channels,)`.
    """
    if type(layer) is keras.layers.Rescaling:
        return _scaling_of_rescaling(layer)
    if type(layer) in (keras.layers.Normalization, PixelNormalization):
        return _scaling_of_normalization(layer)
    return None


def _scaling_of_rescaling(layer):
    values = [np.asarray(x, "float64") for x in (layer.scale, layer.offset)]
    ndim = max(value.ndim for value in values)
    # With "channels_first", Keras scales the first axis of each image.
    is_last = keras.config.image_data_format() == "channels_last"
    return tuple(values) if ndim == 0 or (ndim == 1 and is_last) else None


def _scaling_of_normalization(layer):
    if layer.axis not in ((), (-1,), (3,)) or layer.mean is None:
        return None
    moments = layer.input_mean, layer.input_variance
    if layer.input_mean is None:  # from `adapt`
        moments = layer.mean, layer.variance
        moments = (np.ravel(keras.ops.convert_to_numpy(x)) for x in moments)
    mean, variance = (np.asarray(x, "float64") for x in moments)
    std = np.maximum(np.sqrt(variance), keras.config.epsilon())
    return (std, mean) if layer.invert else (1 / std, -mean / std)


def at_least_float32(dtype=None):
    """Returns a dtype, or "float32" if it has 16 bits.

    Args:
        dtype: Name of a dtype; by default that of the global policy.
    """
    dtype = dtype or keras.config.dtype_policy().compute_dtype
    return "float32" if dtype in ("float16", "bfloat16") else dtype
