"""What fusing gains, and what ResMLP's Affine costs once it is fused.

    KERAS_BACKEND=torch python benchmarks/fusing.py --repeats 7

For each model, as it is and after `keras_mixer.fuse`: its layers, and the time
of a forward pass as a multiple of the model as it is; interleaved in one run,
medians of the repeats. As `predict` does it: compiled by XLA on TensorFlow and
JAX, eager on PyTorch. The third row of a ResMLP is a network that never had an
Affine or a LayerScale, which is what "no cost at inference" compares with.
"""

import argparse

import keras
import numpy as np
from interleaved import medians

import keras_mixer
from keras_mixer.layers.mixing import Block
from keras_mixer.layers.mixing import ChannelMixing
from keras_mixer.layers.resmlp import FusedResMLPBlock
from keras_mixer.layers.resmlp import TokenLinear


class PlainBlock(Block):
    """A block of ResMLP as if nothing had ever stood around its layers."""

    def __init__(self, **config):
        super().__init__(**config)
        self.token_mixing = self._composite(TokenLinear, "token_mixing")
        self.channel_mixing = self._composite(
            ChannelMixing,
            "channel_mixing",
            mlp_dim=self.channels_mlp_dim,
            activation=self.activation,
        )

    def call(self, inputs):
        x = keras.ops.add(inputs, self.token_mixing(inputs))
        return keras.ops.add(x, self.channel_mixing(x))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--models", nargs="+", default=["ResMLPS12", "MixerB16"])
    add("--batch-size", type=int, default=8)
    add("--repeats", type=int, default=7)
    args = parser.parse_args()
    for name in args.models:
        model = getattr(keras_mixer, name)(weights=None)
        forms = {"as it is": model, "fused": keras_mixer.fuse(model)}
        if name.startswith("ResMLP"):
            forms["without Affine"] = plain(forms["fused"])
        compare(name, forms, args)


def plain(fused):
    def clone_layer(layer):
        kind = type(layer)
        kind = PlainBlock if kind is FusedResMLPBlock else kind
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(fused, clone_function=clone_layer)


def compare(name, forms, args):
    shape = (args.batch_size, *forms["fused"].input_shape[1:])
    images = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
    seconds = medians(forms, images, args.repeats)
    unit = seconds["as it is"]
    for form, model in forms.items():
        median = seconds[form]
        print(
            f"{name:10} {form:14} {leaves(model):4} layers  "
            f"{args.batch_size / median:7.2f} images/s  {median / unit:5.3f}"
        )


def leaves(model):
    """Layers that hold no layers, and are not the input."""
    return sum(
        not isinstance(layer, keras.layers.InputLayer)
        and not list(layer._flatten_layers(include_self=False))
        for layer in model._flatten_layers()
    )


if __name__ == "__main__":
    main()
