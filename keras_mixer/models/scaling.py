"""The first layer of a model, which scales pixels as the weights expect.

The scaling is a layer of the model, so that a saved model contains it. Resizing
and cropping depend on the photo, not on the network, and are done before there
is a batch (`keras_mixer.load_image`).
"""

import keras


def scaling(mean, std, channels, name):
    """A layer that maps pixels in [0, 255] as weights expect them.

    Args:
        mean: Per channel, of pixels in [0, 1]: three numbers for red, green and
            blue. Images of other channels are scaled by the means of the three.
        std: Likewise.
        channels: Channels of the images.
        name: Name of the layer.
    """
    # In float32 whatever the policy: bfloat16 has no room for the fractions of
    # a pixel value.
    options = {"dtype": at_least_float32(), "name": name}
    if channels != 3:
        mean, std = [sum(mean) / 3], [sum(std) / 3]
    if len({*zip(mean, std, strict=True)}) == 1:
        return keras.layers.Rescaling(
            1 / (255 * std[0]), offset=-mean[0] / std[0], **options
        )
    # Not `Rescaling`: its channels are the last axis or the first, as the image
    # data format says; here they are always the last.
    return PixelNormalization(
        axis=-1,
        mean=[255 * value for value in mean],
        variance=[(255 * value) ** 2 for value in std],
        **options,
    )


@keras.saving.register_keras_serializable(package="keras_mixer")
class PixelNormalization(keras.layers.Normalization):
    """`keras.layers.Normalization` with a given mean, which ONNX can export.

    On TensorFlow, Keras 3.15 keeps mean and variance as tensors outside of the
    graph. In an ONNX file these are two more required inputs. NumPy arrays
    become constants of the graph. Delete this class when test_onnx.py
    passes with `keras.layers.Normalization`.
    """

    def build(self, input_shape):
        super().build(input_shape)
        if keras.backend.backend() != "tensorflow":
            return
        self.mean = keras.ops.convert_to_numpy(self.mean)
        self.variance = keras.ops.convert_to_numpy(self.variance)


def at_least_float32():
    """The global dtype policy, or float32 where that computes in 16 bits."""
    policy = keras.config.dtype_policy()
    if policy.compute_dtype in ("float16", "bfloat16"):
        return "float32"
    return policy
