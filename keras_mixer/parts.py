"""Parts of the grid of tokens as samples of the batch.

What "tile" makes of a model (`weights.resizing`) processes the parts of an
image one by one, all the way from the stem to the pool: norms and channel
mixing see one token at a time, and token mixing one part. So the parts may as
well be samples, and the weights stay those of one part.
"""

import math

import keras
from keras import ops


def split(x, plan):
    """Makes the parts of the tokens samples, where a plan says so."""
    if not plan.is_compact:
        return x
    return PartsToBatch(plan.new, plan.parts, name="parts_to_batch")(x)


def merge(x, plan):
    """Undoes `split`."""
    if not plan.is_compact:
        return x
    return BatchToParts(plan.new, plan.parts, name="batch_to_parts")(x)


class _Regroup(keras.Layer):
    """Between `(batch, tokens, channels)` and a part of the tokens a sample.

    Tokens are numbered by part, row, part and column: parts down and rows in a
    part, parts across and columns in a part. To make parts samples is to bring
    the two numbers of parts together, and to undo it is to bring rows and
    columns back between them: the same transposition.
    """

    def __init__(self, grid, parts, **kwargs):
        super().__init__(**kwargs)
        self.grid = tuple(grid)
        self.parts = tuple(parts)

    @property
    def part_grid(self):
        """Rows and columns of one part."""
        return tuple(n // k for n, k in zip(self.grid, self.parts, strict=True))

    def _regroup(self, inputs, axes, tokens):
        channels = inputs.shape[-1]
        x = ops.reshape(inputs, (-1, *axes, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, tokens, channels))

    def get_config(self):
        return {**super().get_config(), "grid": self.grid, "parts": self.parts}


@keras.saving.register_keras_serializable(package="keras_mixer")
class PartsToBatch(_Regroup):
    """`(batch, tokens, channels)` to `(batch * parts, tokens / parts, ...)`.

    Args:
        grid: Rows and columns of the tokens.
        parts: Parts, down and across; they divide the grid.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def call(self, inputs):
        (down, across), (rows, columns) = self.parts, self.part_grid
        axes = (down, rows, across, columns)
        return self._regroup(inputs, axes, rows * columns)

    def compute_output_shape(self, input_shape):
        return (None, math.prod(self.part_grid), input_shape[-1])


@keras.saving.register_keras_serializable(package="keras_mixer")
class BatchToParts(_Regroup):
    """What `PartsToBatch` has taken apart, together again.

    Args:
        grid: Rows and columns of the tokens.
        parts: Parts, down and across; they divide the grid.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def call(self, inputs):
        axes = (*self.parts, *self.part_grid)
        return self._regroup(inputs, axes, math.prod(self.grid))

    def compute_output_shape(self, input_shape):
        return (None, math.prod(self.grid), input_shape[-1])
