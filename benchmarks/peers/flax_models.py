"""Flax on JAX: `jax.jit` of a Mixer, and of a training step."""

import jax
import jax.numpy as jnp

from benchmarks.peers import inputs
from benchmarks.peers.flax_mixer import Mixer
from benchmarks.peers.jax_calls import constant
from benchmarks.peers.jax_calls import device
from benchmarks.peers.jax_calls import gpu_memory
from benchmarks.peers.jax_calls import release
from benchmarks.peers.jax_calls import repeated
from benchmarks.peers.jax_calls import trained

__all__ = ["build", "gpu_memory", "release", "start"]


def start(name):
    return device()


def make(case):
    """The model and its weights."""
    names = ("patch", "blocks", "hidden", "tokens_mlp", "channels_mlp")
    dtype = "float32" if case["dtype"] == "float32" else "bfloat16"
    sizes = {name: case[name] for name in (*names, "classes")}
    model = Mixer(**sizes, dtype=dtype)
    one = jnp.zeros((1, case["side"], case["side"], 3))
    weights = jax.jit(model.init)(jax.random.key(0), one)
    if case["dtype"] == "bfloat16":
        weights = jax.tree.map(lambda x: x.astype("bfloat16"), weights)
    return model, weights


def build(form, case):
    model, weights = make(case)
    images = constant(inputs.images(case))
    if form == "train_jit":
        labels = constant(inputs.labels(case))
        return build_training(case, model, weights, images, labels)
    function = jax.jit(model.apply)
    return repeated(lambda: function(weights, images))


def build_training(case, model, weights, images, labels):
    update = {"sgd": sgd, "adamw": adamw}[case["optimizer"]]

    def loss(weights, images, labels):
        logits = model.apply(weights, images).astype("float32")
        chances = jax.nn.log_softmax(logits)
        rows = jnp.arange(len(labels))
        return -jnp.mean(chances[rows, labels])

    def step(state, images, labels):
        weights, *slots = state
        value, gradients = jax.value_and_grad(loss)(weights, images, labels)
        return update(weights, gradients, *slots), value

    count = jnp.zeros((), "int32")
    zeros = [jax.tree.map(jnp.zeros_like, weights) for _ in range(2)]
    slots = zeros[:1] if case["optimizer"] == "sgd" else [*zeros, count]
    return trained(step, (weights, *slots), images, labels)


def sgd(weights, gradients, momentum):
    momentum = jax.tree.map(
        lambda m, g: inputs.MOMENTUM * m + g, momentum, gradients
    )
    weights = jax.tree.map(
        lambda w, m: w - inputs.LEARNING_RATE * m, weights, momentum
    )
    return weights, momentum


def adamw(weights, gradients, mean, square, count):
    """AdamW (arXiv 1711.05101). optax, which has it, need not be installed."""
    first, second = inputs.BETAS
    rate, decay = inputs.LEARNING_RATE, inputs.WEIGHT_DECAY
    count = count + 1
    mean = jax.tree.map(
        lambda m, g: first * m + (1 - first) * g, mean, gradients
    )
    square = jax.tree.map(
        lambda s, g: second * s + (1 - second) * g * g, square, gradients
    )

    def new(w, m, s):
        m, s = m / (1 - first**count), s / (1 - second**count)
        return w - rate * (m / (jnp.sqrt(s) + inputs.EPSILON) + decay * w)

    return jax.tree.map(new, weights, mean, square), mean, square, count
