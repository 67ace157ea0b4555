"""MLP-Mixer in NumPy, written from the paper: the oracle of the tests.

It shares no code with the package. Weights are a dict `{path: array}` with the
paths of the package; everything is computed in the dtype of the weights, which
the tests make float64.
"""

import math

import numpy as np


def gelu_tanh(x):
    return (
        0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    )


def gelu_exact(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def layer_norm(x, weights, name):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    scaled = (x - mean) / np.sqrt(variance + 1e-6)
    return scaled * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def mlp(x, weights, name, gelu):
    """On the last axis of a matrix."""
    hidden = x @ weights[f"{name}/dense_0/kernel"]
    hidden = gelu(hidden + weights[f"{name}/dense_0/bias"])
    out = hidden @ weights[f"{name}/dense_1/kernel"]
    return out + weights[f"{name}/dense_1/bias"]


def channel_mixing(x, weights, name, gelu=gelu_tanh):
    return np.stack([mlp(sample, weights, name, gelu) for sample in x])


def token_mixing(x, weights, name, gelu=gelu_tanh):
    return np.stack([mlp(sample.T, weights, name, gelu).T for sample in x])


def block(x, weights, name, gelu=gelu_tanh):
    """Equation (1): U = X + tokens(LN(X)); Y = U + channels(LN(U))."""
    y = layer_norm(x, weights, f"{name}/token_norm")
    x = x + token_mixing(y, weights, f"{name}/token_mixing", gelu)
    y = layer_norm(x, weights, f"{name}/channel_norm")
    return x + channel_mixing(y, weights, f"{name}/channel_mixing", gelu)


def stem(images, weights, patch):
    """Each patch, row by row, times the matrix that all patches share."""
    batch, height, width, channels = images.shape
    kernel = weights["stem/kernel"].reshape(patch * patch * channels, -1)
    tokens = []
    for top in range(0, height, patch):
        for left in range(0, width, patch):
            pixels = images[:, top : top + patch, left : left + patch]
            tokens.append(pixels.reshape(batch, -1) @ kernel)
    return np.stack(tokens, axis=1) + weights["stem/bias"]


def mixer(images, weights, patch, gelu=gelu_tanh):
    """Every stage by its name, from pixels in [0, 255] to logits."""
    stages = {}
    x = stages["tokens"] = stem(images / 127.5 - 1, weights, patch)
    num_blocks = len(
        {path.split("/")[0] for path in weights if "block" in path}
    )
    for i in range(num_blocks):
        x = stages[f"block_{i}"] = block(x, weights, f"block_{i}", gelu)
    x = stages["norm"] = layer_norm(x, weights, "norm")
    x = stages["avg_pool"] = x.mean(1)
    if "predictions/kernel" in weights:
        x = x @ weights["predictions/kernel"] + weights["predictions/bias"]
        stages["predictions"] = x
    return stages
