"""MLP-Mixer in Flax, with the architecture of the official code.

Source: figure 1 and section 2 of MLP-Mixer (arXiv 2105.01601), and the names of
the weights of `vit_jax/models_mixer.py` in google-research/vision_transformer,
so that official files fit. A test compares it with the models of this library.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.peers import inputs


class MlpBlock(nn.Module):
    """Two dense layers over the last axis, with GELU between them."""

    mlp_dim: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(self.mlp_dim, dtype=self.dtype)(x)
        return nn.Dense(x.shape[-1], dtype=self.dtype)(nn.gelu(y))


class MixerBlock(nn.Module):
    """Token mixing and channel mixing, each with a norm and a residual sum."""

    tokens_mlp: int
    channels_mlp: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm(dtype=self.dtype)(x).swapaxes(1, 2)
        y = MlpBlock(self.tokens_mlp, self.dtype, name="token_mixing")(y)
        x = x + y.swapaxes(1, 2)
        y = nn.LayerNorm(dtype=self.dtype)(x)
        mlp = MlpBlock(self.channels_mlp, self.dtype, name="channel_mixing")
        return x + mlp(y)


class Mixer(nn.Module):
    """Images of shape `(batch, height, width, 3)` to logits."""

    patch: int
    blocks: int
    hidden: int
    tokens_mlp: int
    channels_mlp: int
    classes: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images):
        size = (self.patch, self.patch)
        options = {"strides": size, "padding": "VALID", "dtype": self.dtype}
        x = nn.Conv(self.hidden, size, **options, name="stem")(images)
        x = x.reshape(len(x), -1, self.hidden)
        sizes = (self.tokens_mlp, self.channels_mlp, self.dtype)
        for i in range(self.blocks):
            x = MixerBlock(*sizes, name=f"MixerBlock_{i}")(x)
        x = nn.LayerNorm(dtype=self.dtype, name="pre_head_layer_norm")(x)
        x = jnp.mean(x, axis=1)
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x)


def start(name):
    return inputs.versions("jax", "flax")


def gpu_memory():
    if inputs.is_gpu():
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    return None


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
    images = jax.device_put(inputs.images(case))
    if form == "train":
        labels = jax.device_put(inputs.labels(case))
        call = build_training(model, weights, images, labels)
    else:
        function = jax.jit(model.apply)
        call = lambda: function(weights, images)  # noqa: E731
    return inputs.repeated(call, jax.block_until_ready)


def build_training(model, weights, images, labels):
    def loss(weights):
        logits = model.apply(weights, images).astype("float32")
        chances = jax.nn.log_softmax(logits)
        return -jnp.mean(chances[jnp.arange(len(labels)), labels])

    def step(weights, momentum):
        value, gradients = jax.value_and_grad(loss)(weights)
        momentum = jax.tree.map(
            lambda m, g: inputs.MOMENTUM * m + g, momentum, gradients
        )
        weights = jax.tree.map(
            lambda w, m: w - inputs.LEARNING_RATE * m, weights, momentum
        )
        return (weights, momentum), value

    compiled = jax.jit(step, donate_argnums=(0, 1))
    kept = [(weights, jax.tree.map(jnp.zeros_like, weights))]

    def once():
        kept[0], value = compiled(*kept[0])
        return kept[0], value

    return once
