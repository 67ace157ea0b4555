"""On PyTorch, Keras's `Dense` and `Conv2D` do more work than PyTorch's.

`KERAS_BACKEND=torch python benchmarks/upstream/torch_layers.py` prints the
time of a call of Keras, divided by the time of PyTorch's function with the same
weights. `Dense` adds the bias in a second pass over the outputs. `Conv2D`
copies its kernel into another memory layout in each call.
"""

import time

import keras
import numpy as np
import torch


def ratio(one, other, repeats=30):
    """The median time of a call of `one`, divided by that of `other`."""
    times = {one: [], other: []}
    with torch.no_grad():
        for function in [one, other] * (repeats + 1):
            start = time.perf_counter()
            function()
            times[function].append(time.perf_counter() - start)
    return np.median(times[one][1:]) / np.median(times[other][1:])


x = torch.randn(8, 196, 768)
dense = keras.layers.Dense(3072)
dense.build(x.shape)
kernel, bias = dense.kernel.value.T.contiguous(), dense.bias.value
print(
    "Dense:",
    ratio(
        lambda: dense(x), lambda: torch.nn.functional.linear(x, kernel, bias)
    ),
)

image = torch.randn(1, 224, 224, 3)
convolution = keras.layers.Conv2D(768, 16, strides=16)
convolution.build(image.shape)
turned = image.permute(0, 3, 1, 2).contiguous()
filters = convolution.kernel.value.permute(3, 2, 0, 1).contiguous()
offsets = convolution.bias.value
print(
    "Conv2D:",
    ratio(
        lambda: convolution(image),
        lambda: torch.nn.functional.conv2d(turned, filters, offsets, 16),
    ),
)
