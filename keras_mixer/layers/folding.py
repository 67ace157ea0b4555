"""Folds the scale and the offset of a layer into its neighbour, in NumPy.

Weights are `{path: array}`. Those that are folded are float64 once they are
taken out, and so is what they are multiplied with: a weight is rounded once.
"""


def fold_norm(arrays, norm, dense):
    """Folds the scale and offset of a norm into the dense layer behind it."""
    scale, offset = pop_norm(arrays, norm)
    kernel, bias = (f"{dense}/{name}" for name in ("kernel", "bias"))
    arrays[bias] = arrays[bias] + offset @ arrays[kernel]
    arrays[kernel] = arrays[kernel] * scale[:, None]


def pop_norm(arrays, norm):
    """Scale and offset of an `Affine` or of a layer normalisation."""
    name = "alpha" if f"{norm}/alpha" in arrays else "gamma"
    return pop(arrays, f"{norm}/{name}"), pop(arrays, f"{norm}/beta")


def pop(arrays, path):
    return arrays.pop(path).astype("float64")
