"""The order of maps, and maps side by side in one image."""

import math

import numpy as np


def mean_frequency(maps):
    """Returns the mean spatial frequency of each map, in cycles per token.

    The mean is weighted by the power spectrum. A constant map has frequency 0.
    """
    power = np.abs(np.fft.fft2(maps)) ** 2
    rows, columns = map(np.fft.fftfreq, maps.shape[1:])
    distance = np.hypot(rows[:, None], columns)
    total = power.sum((1, 2))
    weighted = (power * distance).sum((1, 2))
    return weighted / np.where(total > 0, total, 1)


def _by_frequency(maps):
    return np.argsort(mean_frequency(maps), kind="stable")


def _by_similarity(maps):
    """Returns the order in which similar or opposite maps are neighbours.

    The pair with the largest absolute cosine of all is taken first, then the
    largest among the remaining maps, and so on.
    """
    flat = maps.reshape(len(maps), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = flat / np.where(norms > 0, norms, 1)
    first, second = np.triu_indices(len(maps), 1)
    cosines = np.abs(flat @ flat.T)[first, second]
    remaining, pairs = set(range(len(maps))), []
    for i in np.argsort(-cosines, kind="stable"):
        pair = [int(first[i]), int(second[i])]
        if remaining.issuperset(pair):
            remaining.difference_update(pair)
            pairs.append(pair)
    frequency = mean_frequency(maps)
    pairs.sort(key=lambda pair: frequency[pair].mean())
    return [i for pair in pairs for i in pair] + sorted(remaining)


# `{name: function that returns the order of the maps}`.
ORDERS = {"frequency": _by_frequency, "similarity": _by_similarity}


def _columns(maps):
    count, rows, columns = maps.shape
    square = math.sqrt(count * (rows + 1) / (columns + 1))
    return max(1, min(count, 2 * round(square / 2)))


def tiled(maps, columns=None):
    """Places maps side by side, with a line of NaN around each.

    Args:
        maps: Array of shape `(maps, rows, columns)`.
        columns: How many maps to place in a row. By default, an even number
            that makes the result about square.

    Returns:
        An array of shape `(height, width)`.
    """
    columns = columns or _columns(maps)
    count, height, width = maps.shape
    rows = math.ceil(count / columns)
    image = np.full((rows * columns, height + 1, width + 1), np.nan, "float32")
    image[:count, 1:, 1:] = maps
    image = image.reshape(rows, columns, height + 1, width + 1)
    image = image.swapaxes(1, 2).reshape(rows * (height + 1), -1)
    return np.pad(image, ((0, 1), (0, 1)), constant_values=np.nan)
