"""What is the same for all contenders: images, labels and the optimizer."""

import importlib.metadata
import os

import numpy as np

# Stochastic gradient descent.
LEARNING_RATE, MOMENTUM = 1e-3, 0.9


def is_gpu():
    return os.environ["BENCHMARK_DEVICE"] == "gpu"


def versions(*names):
    return {name: importlib.metadata.version(name) for name in names}


def images(case, count=None):
    """Array of shape `(count, side, side, 3)` with values in [-1, 1]."""
    shape = (count or case["batch"], case["side"], case["side"], 3)
    values = np.random.default_rng(0).uniform(-1, 1, shape)
    return values.astype("float32")


def labels(case, count=None):
    """Array of shape `(count,)` with the numbers of classes."""
    count = count or case["batch"]
    return np.random.default_rng(1).integers(0, case["classes"], count)


def repeated(call, wait=lambda output: None):
    """Returns a function that makes a number of calls and waits for them."""

    def run(count):
        for _ in range(count):
            output = call()
        wait(output)

    return run
