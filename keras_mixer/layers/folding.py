"""Folds the scale and the offset of a layer into a neighbour, in NumPy.

Weights are `{path: array}`. Scales and offsets are converted to float64 when
they are removed. The products are then float64 too, so each folded weight is
rounded only once.
"""


def fold_norm(arrays, norm, dense):
    """Folds the scale and offset of a norm into the dense layer after it."""
    scale, offset = pop_norm(arrays, norm)
    kernel, bias = (f"{dense}/{name}" for name in ("kernel", "bias"))
    arrays[bias] = arrays[bias] + offset @ arrays[kernel]
    arrays[kernel] = arrays[kernel] * scale[:, None]


def pop_norm(arrays, norm):
    """Removes and returns the scale and offset of an `Affine` or a norm."""
    name = "alpha" if f"{norm}/alpha" in arrays else "gamma"
    return pop(arrays, f"{norm}/{name}"), pop(arrays, f"{norm}/beta")


def pop(arrays, path):
    return arrays.pop(path).astype("float64")
