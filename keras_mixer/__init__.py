"""The all-MLP vision library for Keras 3: MLP-Mixer on every backend."""

from keras_mixer import mixer
from keras_mixer.layers import ChannelMixing
from keras_mixer.layers import MixerBlock
from keras_mixer.layers import StochasticDepth
from keras_mixer.layers import TokenMixing
from keras_mixer.mixer import Mixer
from keras_mixer.mixer import MixerB16
from keras_mixer.mixer import MixerB32
from keras_mixer.mixer import MixerH14
from keras_mixer.mixer import MixerL16
from keras_mixer.mixer import MixerL32
from keras_mixer.mixer import MixerS8
from keras_mixer.mixer import MixerS16
from keras_mixer.mixer import MixerS32
from keras_mixer.preprocessing import load_image

__version__ = "0.1.0"

__all__ = [
    "ChannelMixing",
    "Mixer",
    "MixerB16",
    "MixerB32",
    "MixerBlock",
    "MixerH14",
    "MixerL16",
    "MixerL32",
    "MixerS8",
    "MixerS16",
    "MixerS32",
    "StochasticDepth",
    "TokenMixing",
    "load_image",
    "mixer",
]
