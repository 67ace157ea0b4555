"""The first layer of a model, which scales the pixels.

The scaling is a layer, so that a saved model contains it. Resizing and cropping
depend on the image, not on the model. They are done before images are batched
(`keras_mixer.load_image`).
"""

import keras


def scaling(mean, std, channels, name):
    """Returns a layer that scales pixels in [0, 255].

    Args:
        mean: The means of red, green and blue, for pixels in [0, 1]. If the
            images do not have three channels, the average of the three numbers
            is used for all channels.
        std: The same for the standard deviations.
        channels: Integer, the number of channels of the images.
        name: Name of the layer.
    """
    # The layer computes in float32 under all 16-bit policies: bfloat16 cannot
    # represent fractions of pixel values.
    options = {"dtype": at_least_float32(), "name": name}
    if channels != 3:
        mean, std = [sum(mean) / 3], [sum(std) / 3]
    if len({*zip(mean, std, strict=True)}) == 1:
        return keras.layers.Rescaling(
            1 / (255 * std[0]), offset=-mean[0] / std[0], **options
        )
    # Not `Rescaling`: its channel axis depends on the image data format, but
    # here it is always the last axis.
    return PixelNormalization(
        axis=-1,
        mean=[255 * value for value in mean],
        variance=[(255 * value) ** 2 for value in std],
        **options,
    )


@keras.saving.register_keras_serializable(package="keras_mixer")
class PixelNormalization(keras.layers.Normalization):
    """`keras.layers.Normalization` with a given mean, which ONNX can export.

    On TensorFlow, Keras 3.15 stores the mean and the variance as tensors that
    are not in the graph. In an ONNX file they become two additional inputs.
    NumPy arrays become constants in the graph. Delete this class when
    test_onnx.py passes with `keras.layers.Normalization`.
    """

    def build(self, input_shape):
        super().build(input_shape)
        if keras.backend.backend() != "tensorflow":
            return
        self.mean = keras.ops.convert_to_numpy(self.mean)
        self.variance = keras.ops.convert_to_numpy(self.variance)


def at_least_float32(policy=None):
    """Returns a dtype policy, or float32 if that has 16 bits.

    Args:
        policy: A dtype policy, by default the global one.
    """
    policy = policy or keras.config.dtype_policy()
    if policy.compute_dtype in ("float16", "bfloat16"):
        return "float32"
    return policy
