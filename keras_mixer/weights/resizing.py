"""Resizes token-mixing weights to another grid of tokens.

An MLP across tokens has one row of weights for each place in the image, so its
weights fit only one grid. There are three methods to change the grid. They
change only weights that have an axis of tokens or of the token MLP.

"tile" is the method of the paper (appendix C). The new grid is cut into tiles
of the old size, and each tile is processed as before. The new matrices contain
copies of the old matrices along the diagonal. In the paper, the sequence of
tokens is tile after tile. Here it is row after row, so the rows and columns of
the new matrices are put in that order. The token MLP becomes wider by a factor
equal to the number of tiles. Its matrices grow by the square of that factor.

"interleave" is the same, but the tokens of each tile are spread over the whole
image: token (r, c) belongs to tile (r mod K, c mod L). So a learned filter
still covers the whole image. With "tile" it covers only one tile.

"interpolate" keeps the width of the token MLP. The new MLP computes
`up(mlp(down(x)))`, where `down` and `up` resample the tokens; the matrices are
multiplied in advance. The resampling is bilinear with antialiasing, so a
constant image stays constant, and resizing to the same grid changes nothing.
The new grid can have any size, also a smaller one.
"""

import math
from typing import NamedTuple

import numpy as np

from keras_mixer.weights import naming

METHODS = ("tile", "interleave", "interpolate")


class ResizePlan(NamedTuple):
    """The grids and the method of a resize operation."""

    old: tuple  # (rows, columns)
    new: tuple
    method: str | None  # None: nothing to do

    @property
    def parts(self):
        """Number of tiles of the old size, vertically and horizontally."""
        return self.new[0] // self.old[0], self.new[1] // self.old[1]

    @property
    def widening(self):
        """Factor by which the token MLP becomes wider."""
        is_copied = self.method in ("tile", "interleave")
        return math.prod(self.parts) if is_copied else 1

    def __str__(self):
        old, new = ("{} x {}".format(*grid) for grid in (self.old, self.new))
        return f"token mixing resized from {old} to {new} tokens: {self.method}"


def check_method(method):
    """Raises `ValueError` if `method` is not a valid method."""
    if method is not None and method not in ("auto", *METHODS):
        raise ValueError(
            f"The resize method must be 'auto', one of {METHODS}, or `None` "
            f"(do not resize). Received: {method!r}"
        )


def plan(old, new, method):
    """Chooses the method to resize from the grid `old` to the grid `new`.

    Args:
        old: `(rows, columns)` of the weights.
        new: `(rows, columns)` of the model.
        method: `"auto"`, one of `METHODS`, or `None`.

    Returns:
        A `ResizePlan`.

    Raises:
        ValueError: If the grids differ and the method is `None` or cannot
            resize from `old` to `new`.
    """
    check_method(method)
    if old == new:
        return ResizePlan(old, new, None)
    is_multiple = new[0] % old[0] == 0 and new[1] % old[1] == 0
    if method == "auto":
        method = "tile" if is_multiple else "interpolate"
    grids = f"{old[0]} x {old[1]} tokens, the model for {new[0]} x {new[1]}"
    if method is None:
        raise ValueError(
            f'The weights are for {grids}. Use `resize="auto"` to resize '
            "token mixing, or the `input_shape` of the weights."
        )
    if method != "interpolate" and not is_multiple:
        raise ValueError(
            f"'{method}' needs a new grid that is a multiple of the old one. "
            f"The weights are for {grids}. Use 'interpolate' for any grid."
        )
    return ResizePlan(old, new, method)


def is_tiled(arrays, times):
    """Returns whether the MLP over tokens still consists of copies.

    Then each token is connected to one of `times` parts of the MLP. After more
    training this cannot be seen.

    Args:
        arrays: `{path: array}` of a Mixer.
        times: The number of parts, a divisor of the width.
    """
    kernel = arrays["block_0/token_mixing/dense_0/kernel"]
    parts = kernel.reshape(len(kernel), times, -1).any(axis=2)
    return bool((parts.sum(axis=1) == 1).all())


def resize(arrays, family, plan):
    """Resizes the weights of a model.

    Args:
        arrays: `{path: array}`.
        family: `"mixer"` or `"resmlp"`.
        plan: A `ResizePlan`.

    Returns:
        `{path: array}`, with unchanged dtypes.
    """
    if plan.method is None:
        return arrays
    is_resampled = plan.method == "interpolate"
    transform = _interpolation(plan) if is_resampled else _copies(plan)
    table = naming.axes_of(family)
    return {
        path: transform(array, naming.axes(path, table))
        for path, array in arrays.items()
    }


def _copies(plan):
    """Makes block-diagonal copies, with the tokens row by row."""
    count = math.prod(plan.parts)
    tokens = _parts_and_places(plan)

    def parts_and_places(axis, size):
        if axis == "tokens":
            return tokens
        return np.divmod(np.arange(count * size), size)  # tile by tile

    def copy(array, axes):
        if not {"tokens", "tokens_mlp"} & set(axes):
            return array
        (part, place), *columns = map(parts_and_places, axes, array.shape)
        if not columns:
            return array[place]
        ((column_part, column_place),) = columns
        copied = array[np.ix_(place, column_place)]
        copied[part[:, None] != column_part] = 0
        return copied

    return copy


def _parts_and_places(plan):
    """Returns the tile of each new token, and its place in the tile."""
    row, column = np.divmod(np.arange(math.prod(plan.new)), plan.new[1])
    if plan.method == "tile":
        (down, r), (across, c) = (
            np.divmod(row, plan.old[0]),
            np.divmod(column, plan.old[1]),
        )
    else:
        (r, down), (c, across) = (
            np.divmod(row, plan.parts[0]),
            np.divmod(column, plan.parts[1]),
        )
    return down * plan.parts[1] + across, r * plan.old[1] + c


def _interpolation(plan):
    down = _resampling(plan.new, plan.old)
    up = _resampling(plan.old, plan.new)

    def interpolate(array, axes):
        if "tokens" not in axes:
            return array
        wide = array.astype("float64")
        if axes[:1] == ("tokens",) and len(axes) == 2:  # in
            wide = down.T @ wide
        if axes[-1:] == ("tokens",):  # out
            wide = wide @ up.T
        return wide.astype(array.dtype)

    return interpolate


def _resampling(old, new):
    """Returns the matrix that resamples values from grid `old` to `new`."""
    rows, columns = (
        _resampling_1d(*sizes) for sizes in zip(old, new, strict=True)
    )
    return np.kron(rows, columns)


def _resampling_1d(old, new):
    """Returns the `(new, old)` matrix of antialiased linear resampling.

    Each row is a triangle around the new place. Its half-width is one step of
    the coarser of the two grids. The part outside the old grid is cut off, and
    each row is scaled to the sum 1.
    """
    step = old / new
    centers = (np.arange(new)[:, None] + 0.5) * step - 0.5
    distance = np.abs(np.arange(old) - centers) / max(step, 1.0)
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def adapt_channels(arrays, channels):
    """Adapts the stem of RGB weights to other channels, in place.

    This is the method of timm. For one channel, the three kernels are added, so
    a gray image gives the same output as its RGB copy. For any other number,
    the kernels are repeated in order and scaled, so that their sum stays about
    the same. A stem that is not for RGB is not changed.

    Returns:
        Whether the stem was changed.
    """
    kernel = arrays["stem/kernel"]
    if kernel.shape[2] != 3 or channels == 3:
        return False
    if channels == 1:
        adapted = kernel.astype("float32").sum(axis=2, keepdims=True)
    else:
        repeated = kernel[:, :, np.arange(channels) % 3].astype("float32")
        adapted = repeated * (3 / channels)
    arrays["stem/kernel"] = adapted.astype(kernel.dtype)
    return True
