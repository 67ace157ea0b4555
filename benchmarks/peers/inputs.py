"""The same random images and labels for all contenders."""

import os

import numpy as np


def device():
    """The device of this process: "cpu" or "gpu"."""
    return os.environ["BENCHMARK_DEVICE"]


def images(case, count=None):
    """Array of shape `(count, side, side, 3)` with values in [-1, 1]."""
    shape = (count or case["batch"], case["side"], case["side"], 3)
    values = np.random.default_rng(0).uniform(-1, 1, shape)
    return values.astype("float32")


def labels(case, count=None):
    """Array of shape `(count,)` with the numbers of classes."""
    count = count or case["batch"]
    return np.random.default_rng(1).integers(0, case["classes"], count)


# What an optimizer does, the same for all contenders.
LEARNING_RATE, MOMENTUM = 1e-3, 0.9
WEIGHT_DECAY, BETAS, EPSILON = 1e-2, (0.9, 0.999), 1e-8
