"""The per-patch linear layer of both families, as a convolution."""

import keras
from keras import ops

from keras_mixer.layers import direct
from keras_mixer.optional import require


@keras.saving.register_keras_serializable(package="keras_mixer")
class Conv2D(keras.layers.Conv2D):
    """A convolution whose stride is its kernel size: a product for each patch.

    Keras 3.15 copies the kernel of a convolution into another memory layout in
    each call on PyTorch. For one image this takes as long as a block. There,
    this layer cuts the image into patches and multiplies them with the kernel.

    The layer accepts images of the size that it was built for. Images of
    another size with as many patches would give a wrong result, and a remainder
    that is smaller than a patch would be cut off.

    The class has the name of its base class, because Keras names the groups in
    `.weights.h5` and `.keras` files after the classes of the layers.

    Args:
        filters: Positive integer, the number of channels of the tokens.
        kernel_size: Positive integer, the patch size.
        **kwargs: Arguments of `keras.layers.Conv2D`.
    """

    def __init__(self, filters, kernel_size, **kwargs):
        fixed = {"strides": kernel_size, "data_format": "channels_last"}
        super().__init__(filters, kernel_size, **{**kwargs, **fixed})

    def build(self, input_shape):
        super().build(input_shape)
        # Keras compares the images with this when it traces or calls the layer.
        # A model is not compared with its inputs in `predict` on JAX.
        axes = dict(enumerate(input_shape[1:], start=1))
        self.input_spec = keras.layers.InputSpec(ndim=4, axes=axes)

    def call(self, inputs):
        if None in inputs.shape[1:3]:  # a TensorFlow dataset may not know them
            shape = (None, *self.input_spec.axes.values())
            inputs = require("tensorflow").ensure_shape(inputs, shape)
        if not (direct.are_direct(self, inputs, self) and self._is_plain()):
            return super().call(inputs)
        height, width = self.kernel_size
        _, rows, columns, channels = inputs.shape
        rows, columns = rows // height, columns // width
        x = inputs[:, : rows * height, : columns * width]
        x = ops.reshape(x, (-1, rows, height, columns, width, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        x = ops.reshape(x, (-1, rows, columns, height * width * channels))
        kernel = ops.reshape(self.kernel, (-1, self.filters))
        return direct.linear(x, kernel, self.bias)

    def _is_plain(self):
        return (
            type(self) is Conv2D
            and self.padding == "valid"
            and self.dilation_rate == (1, 1)
            and self.groups == 1
            and direct.is_linear(self)
        )
