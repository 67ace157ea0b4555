"""Keras keeps what `RematScope` recomputes on PyTorch, with Keras alone.

    KERAS_BACKEND=torch python benchmarks/upstream/remat_torch.py

PyTorch ends the second computation of a layer by an exception, as soon as it
has all that the gradients need. `inject_argument_info_in_traceback` in
`keras/src/utils/traceback_utils.py` catches this exception, makes another one
with the arguments of the layer in its message, and raises it with the old
traceback. The frame of the handler keeps the new exception (`new_e`), whose
traceback keeps the frame. So the arguments of the layers, the activations, stay
in memory until Python collects garbage. The script prints their size in a stack
of layers, with and without Keras's filter of tracebacks.
"""

import gc

import keras
import torch

UNITS, BATCH, LAYERS = 1024, 4096, 8


class Block(keras.Layer):
    def __init__(self):
        super().__init__()
        with keras.RematScope(None):  # the block is one unit
            self.wide = keras.layers.Dense(4 * UNITS, activation="gelu")
            self.narrow = keras.layers.Dense(UNITS)

    def build(self, shape):
        self.wide.build(shape)
        self.narrow.build((shape[0], 4 * UNITS))

    def call(self, x):
        return self.narrow(self.wide(x))


def tensors():
    """Returns the size of all tensors that Python knows, in MB."""
    sizes = [
        x.numel() * x.element_size()
        for x in gc.get_objects()
        if type(x) is torch.Tensor
    ]
    return sum(sizes) / 1e6


def main():
    with keras.RematScope("full"):
        blocks = [Block() for _ in range(LAYERS)]
    x = torch.ones(BATCH, UNITS)
    for block in blocks:
        block(x)
    for is_filtering in (True, False):
        if not is_filtering:
            keras.config.disable_traceback_filtering()
        gc.collect()
        gc.disable()
        before = tensors()
        y = x
        for block in blocks:
            y = block(y)
        y.sum().backward()
        del y
        kept = tensors() - before
        gc.enable()
        gc.collect()
        print(
            f"filter of tracebacks {'on ' if is_filtering else 'off'}: "
            f"{kept:5.0f} MB kept after the backward pass, "
            f"{tensors() - before:3.0f} MB after collecting garbage"
        )


if __name__ == "__main__":
    main()
