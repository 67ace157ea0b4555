"""The public names of `keras_mixer`.

`keras_mixer/__init__.py` imports all of them. Importing this module registers
the layers and the models of all families.
"""

from keras_mixer import data
from keras_mixer import distributing
from keras_mixer import mixer
from keras_mixer import recipes
from keras_mixer import resmlp
from keras_mixer import training
from keras_mixer import visualizing
from keras_mixer.data.photos import load_image
from keras_mixer.exporting.exporter import export
from keras_mixer.exporting.push import push
from keras_mixer.exporting.weights import export_weights
from keras_mixer.layers.affine import Affine
from keras_mixer.layers.affine import LayerScale
from keras_mixer.layers.mixer import MixerBlock
from keras_mixer.layers.mixing import ChannelMixing
from keras_mixer.layers.mixing import TokenMixing
from keras_mixer.layers.resmlp import ResMLPBlock
from keras_mixer.layers.resmlp import TokenLinear
from keras_mixer.layers.stochastic_depth import StochasticDepth
from keras_mixer.mixer import Mixer
from keras_mixer.mixer import MixerB16
from keras_mixer.mixer import MixerB32
from keras_mixer.mixer import MixerH14
from keras_mixer.mixer import MixerL16
from keras_mixer.mixer import MixerL32
from keras_mixer.mixer import MixerNano
from keras_mixer.mixer import MixerS8
from keras_mixer.mixer import MixerS16
from keras_mixer.mixer import MixerS32
from keras_mixer.models.features import features
from keras_mixer.models.finetuning import freeze
from keras_mixer.models.finetuning import new_head
from keras_mixer.models.fusing import fuse
from keras_mixer.models.macs import macs
from keras_mixer.models.resolution import resize
from keras_mixer.resmlp import ResMLP
from keras_mixer.resmlp import ResMLPB24
from keras_mixer.resmlp import ResMLPB24P8
from keras_mixer.resmlp import ResMLPS12
from keras_mixer.resmlp import ResMLPS24
from keras_mixer.resmlp import ResMLPS36
from keras_mixer.training.few_shot import few_shot
from keras_mixer.weights.catalog import list_weights
from keras_mixer.weights.errors import DownloadError
from keras_mixer.weights.errors import WeightsError

__all__ = [
    "Affine",
    "ChannelMixing",
    "DownloadError",
    "LayerScale",
    "Mixer",
    "MixerB16",
    "MixerB32",
    "MixerBlock",
    "MixerH14",
    "MixerL16",
    "MixerL32",
    "MixerNano",
    "MixerS8",
    "MixerS16",
    "MixerS32",
    "ResMLP",
    "ResMLPB24",
    "ResMLPB24P8",
    "ResMLPBlock",
    "ResMLPS12",
    "ResMLPS24",
    "ResMLPS36",
    "StochasticDepth",
    "TokenLinear",
    "TokenMixing",
    "WeightsError",
    "data",
    "distributing",
    "export",
    "export_weights",
    "features",
    "few_shot",
    "freeze",
    "fuse",
    "list_weights",
    "load_image",
    "macs",
    "mixer",
    "new_head",
    "push",
    "recipes",
    "resize",
    "resmlp",
    "training",
    "visualizing",
]
