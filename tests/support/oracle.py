"""MLP-Mixer and ResMLP in NumPy, written from the papers: the tests' oracle.

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
    rows, columns = patch if isinstance(patch, tuple) else (patch, patch)
    kernel = weights["stem/kernel"].reshape(rows * columns * channels, -1)
    tokens = []
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            pixels = images[:, top : top + rows, left : left + columns]
            tokens.append(pixels.reshape(batch, -1) @ kernel)
    return np.stack(tokens, axis=1) + weights["stem/bias"]


def affine(x, weights, name):
    """ResMLP, equation (1): Aff(x) = Diag(alpha) x + beta."""
    scaled = np.einsum("c,btc->btc", weights[f"{name}/alpha"], x)
    return scaled + weights[f"{name}/beta"]


def layer_scale(x, weights, name):
    return np.einsum("c,btc->btc", weights[f"{name}/gamma"], x)


def token_linear(x, weights, name):
    """A X + b for each sample, A being the transpose of the kernel."""
    matrix = weights[f"{name}/dense/kernel"].T
    bias = weights[f"{name}/dense/bias"][:, None]
    return np.stack([matrix @ sample + bias for sample in x])


def resmlp_block(x, weights, name, gelu=gelu_exact):
    """ResMLP, equations (2) and (3), the outer Aff without its offset."""
    y = affine(x, weights, f"{name}/token_norm")
    y = token_linear(y, weights, f"{name}/token_mixing")
    x = x + layer_scale(y, weights, f"{name}/token_scale")
    y = affine(x, weights, f"{name}/channel_norm")
    y = channel_mixing(y, weights, f"{name}/channel_mixing", gelu)
    return x + layer_scale(y, weights, f"{name}/channel_scale")


def mixer(images, weights, patch, gelu=gelu_tanh):
    """Every stage by its name, from pixels in [0, 255] to logits."""
    return network(images / 127.5 - 1, weights, patch, block, layer_norm, gelu)


def resmlp(images, weights, patch, gelu=gelu_exact):
    """Every stage by its name, from pixels in [0, 255] to logits."""
    mean = np.array([0.485, 0.456, 0.406])
    std = np.array([0.229, 0.224, 0.225])
    x = (images / 255 - mean) / std
    return network(x, weights, patch, resmlp_block, affine, gelu)


def network(x, weights, patch, block, norm, gelu):
    """What the two have in common, from scaled images on."""
    stages = {}
    x = stages["tokens"] = stem(x, weights, patch)
    num_blocks = len(
        {path.split("/")[0] for path in weights if "block" in path}
    )
    for i in range(num_blocks):
        x = stages[f"block_{i}"] = block(x, weights, f"block_{i}", gelu)
    x = stages["norm"] = norm(x, weights, "norm")
    x = stages["avg_pool"] = x.mean(1)
    if "predictions/kernel" in weights:
        x = x @ weights["predictions/kernel"] + weights["predictions/bias"]
        stages["predictions"] = x
    return stages
