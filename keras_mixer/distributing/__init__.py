"""Training on several devices, with the engines of Keras."""

from keras_mixer.distributing.devices import KINDS
from keras_mixer.distributing.devices import Devices
from keras_mixer.distributing.devices import devices
from keras_mixer.distributing.layout import model_layout
from keras_mixer.distributing.processes import is_one_of_several
from keras_mixer.distributing.processes import join

__all__ = [
    "KINDS",
    "Devices",
    "devices",
    "is_one_of_several",
    "join",
    "model_layout",
]
