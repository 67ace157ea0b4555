"""Token-mixing weights for another grid of tokens.

An MLP across tokens has one row of weights for each place of the image, so its
weights are made for one grid. There are three ways to another grid. None of
them changes a weight that has no axis of tokens or of their MLP.

"tile" is the paper's (appendix C): the new grid is cut into parts of the old
size, and each is processed as before. In matrices: copies of the old ones along
the diagonal. The paper takes the sequence to be the parts one after the other;
ours is row by row, so rows and columns are put in that order here, and neither
the model nor its files know of it. The MLP across tokens gets as many times
wider as there are parts, its matrices that many times squared.

"interleave" is the same with every part spread over the whole image: token (r,
c) belongs to part (r mod K, c mod L). It keeps the reach of a learned filter
across the image, which "tile" cuts down to a part.

"interpolate" keeps the width. The new MLP is the old one between two
resamplings of its tokens: `up(mlp(down(x)))`, multiplied out. Both resample
bilinearly with antialiasing, so a constant image is still one, and the same
grid changes nothing. It goes to any grid, smaller ones too.
"""

import math
from typing import NamedTuple

import numpy as np

from keras_mixer.weights import naming

METHODS = ("tile", "interleave", "interpolate")


class Plan(NamedTuple):
    """How weights get from one grid to another."""

    old: tuple  # (rows, columns)
    new: tuple
    method: str | None  # none: there is nothing to do

    @property
    def parts(self):
        """Parts of the old size, down and across."""
        return self.new[0] // self.old[0], self.new[1] // self.old[1]

    @property
    def widening(self):
        """How many times wider the MLP across tokens becomes."""
        is_copied = self.method in ("tile", "interleave")
        return math.prod(self.parts) if is_copied else 1

    def __str__(self):
        old, new = ("{} x {}".format(*grid) for grid in (self.old, self.new))
        return f"token mixing resized from {old} to {new} tokens: {self.method}"


def check_method(method):
    """Refuses what is no value of `resize=` or `method=`."""
    if method is not None and method not in ("auto", *METHODS):
        raise ValueError(
            f"The way to resize must be 'auto', one of {METHODS}, or `None` to "
            f"refuse. Received: {method!r}"
        )


def plan(old, new, method):
    """Decides how to get from the grid `old` to `new`.

    Args:
        old: `(rows, columns)` of the weights.
        new: `(rows, columns)` of the model.
        method: `"auto"`, one of `METHODS`, or `None`.

    Returns:
        A `Plan`.

    Raises:
        ValueError: If the method is none, or cannot lead from `old` to `new`.
    """
    check_method(method)
    if old == new:
        return Plan(old, new, None)
    is_multiple = new[0] % old[0] == 0 and new[1] % old[1] == 0
    if method == "auto":
        method = "tile" if is_multiple else "interpolate"
    grids = f"{old[0]} x {old[1]} tokens, the model {new[0]} x {new[1]}"
    if method is None:
        raise ValueError(
            f'The weights are for {grids}. Give `resize="auto"` to resize '
            "token mixing, or the `input_shape` of the weights."
        )
    if method != "interpolate" and not is_multiple:
        raise ValueError(
            f"'{method}' goes to whole multiples of the old grid, and the "
            f"weights are for {grids}. 'interpolate' goes to any grid."
        )
    return Plan(old, new, method)


def resize(arrays, family, plan):
    """Resizes the weights of a model as planned.

    Args:
        arrays: `{path: array}`.
        family: `"mixer"` or `"resmlp"`.
        plan: A `Plan`.

    Returns:
        `{path: array}`, in the dtypes they came in.
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
    """Block-diagonal copies, rows and columns in the order of the tokens."""
    count = math.prod(plan.parts)
    tokens = _parts_and_places(plan)

    def parts_and_places(axis, size):
        if axis == "tokens":
            return tokens
        return np.divmod(np.arange(count * size), size)  # part by part

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
    """Of every new token, row by row: its part, and its place in the part."""
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
    """The matrix from values on the grid `old` to values on `new`."""
    rows, columns = (
        _resampling_1d(*sizes) for sizes in zip(old, new, strict=True)
    )
    return np.kron(rows, columns)


def _resampling_1d(old, new):
    """Bilinear resampling of a line, antialiased: `(new, old)`, rows sum to 1.

    A triangle around each new place, as wide as one step of the coarser of the
    two lines; what lies beyond the ends is left out.
    """
    step = old / new
    centres = (np.arange(new)[:, None] + 0.5) * step - 0.5
    distance = np.abs(np.arange(old) - centres) / max(step, 1.0)
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def adapt_channels(arrays, channels):
    """Makes the stem of weights for RGB read other channels, in place.

    As timm does it: for one channel the kernels of the three are summed, so
    that a grey image gives what it gave as RGB; for others they are repeated
    in their order and scaled so that their sum stays about the same. Other
    stems, and images of three channels, stay as they are.

    Returns:
        Whether anything was changed.
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
