"""Training of a model in a folder, from which it can be resumed."""

from keras_mixer.training.best import best_epoch
from keras_mixer.training.best import load_best
from keras_mixer.training.callbacks import StopOnLostLoss
from keras_mixer.training.callbacks import learning_rate
from keras_mixer.training.class_weights import balanced_class_weights
from keras_mixer.training.fitting import fit
from keras_mixer.training.log import plot
from keras_mixer.training.log import read_log
from keras_mixer.training.runs import finish
from keras_mixer.training.runs import open_run
from keras_mixer.training.runs import read_run
from keras_mixer.training.runs import save_model

__all__ = [
    "StopOnLostLoss",
    "balanced_class_weights",
    "best_epoch",
    "finish",
    "fit",
    "learning_rate",
    "load_best",
    "open_run",
    "plot",
    "read_log",
    "read_run",
    "save_model",
]
