"""Imports Keras when a command runs."""

import importlib
import importlib.util

from keras_mixer import program


def start_keras(*, tensorflow=False):
    """Imports Keras, and registers the layers so that models can be loaded.

    Args:
        tensorflow: Boolean, whether the command uses TensorFlow on all
            backends. It is imported here to hide what it prints.
    """
    with program.quiet_tensorflow():
        importlib.import_module("keras_mixer.api")
        # If it is not installed, the command says how to install it.
        if tensorflow and importlib.util.find_spec("tensorflow"):
            importlib.import_module("tensorflow")
