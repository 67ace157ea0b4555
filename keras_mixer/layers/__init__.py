"""The layers of MLP-Mixer and ResMLP."""

from keras_mixer.layers.activations import gelu_exact
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.layers.affine import Affine
from keras_mixer.layers.affine import LayerScale
from keras_mixer.layers.mixer import NORM_EPSILON
from keras_mixer.layers.mixer import MixerBlock
from keras_mixer.layers.mixing import Block
from keras_mixer.layers.mixing import ChannelMixing
from keras_mixer.layers.mixing import TokenMixing
from keras_mixer.layers.resmlp import ResMLPBlock
from keras_mixer.layers.resmlp import TokenLinear
from keras_mixer.layers.stochastic_depth import StochasticDepth

__all__ = [
    "NORM_EPSILON",
    "Affine",
    "Block",
    "ChannelMixing",
    "LayerScale",
    "MixerBlock",
    "ResMLPBlock",
    "StochasticDepth",
    "TokenLinear",
    "TokenMixing",
    "gelu_exact",
    "gelu_tanh",
]
