"""MLP-Mixer in Flax, with the architecture of the official code.

Source: figure 1 and section 2 of MLP-Mixer (arXiv 2105.01601), and the names of
the weights of `vit_jax/models_mixer.py` in google-research/vision_transformer,
so that official files fit. A test compares it with the models of this library.
"""

import flax.linen as nn
import jax.numpy as jnp


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

    tokens_mlp_dim: int
    channels_mlp_dim: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm(dtype=self.dtype)(x).swapaxes(1, 2)
        y = MlpBlock(self.tokens_mlp_dim, self.dtype, name="token_mixing")(y)
        x = x + y.swapaxes(1, 2)
        y = nn.LayerNorm(dtype=self.dtype)(x)
        return x + MlpBlock(
            self.channels_mlp_dim, self.dtype, name="channel_mixing"
        )(y)


class Mixer(nn.Module):
    """Images of shape `(batch, height, width, 3)` to logits.

    Args:
        patch: Side of a patch in pixels.
        blocks: Number of blocks.
        hidden: Channels of a token.
        tokens_mlp: Width of the MLPs over tokens.
        channels_mlp: Width of the MLPs over channels.
        classes: Number of classes.
        dtype: Dtype in which it computes.
    """

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
        x = nn.Conv(
            self.hidden,
            size,
            strides=size,
            padding="VALID",
            dtype=self.dtype,
            name="stem",
        )(images)
        x = x.reshape(len(x), -1, self.hidden)
        for i in range(self.blocks):
            x = MixerBlock(
                self.tokens_mlp,
                self.channels_mlp,
                self.dtype,
                name=f"MixerBlock_{i}",
            )(x)
        x = nn.LayerNorm(dtype=self.dtype, name="pre_head_layer_norm")(x)
        x = jnp.mean(x, axis=1)
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x)
