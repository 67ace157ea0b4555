"""Imports the code of a command when it runs."""

import importlib
import importlib.util

from keras_mixer import program


def implementation(module, *, reads_data_sets=False):
    """Imports a module of `keras_mixer.commands`.

    The layers are registered first, so that Keras can load models.

    Args:
        module: Name of the module.
        reads_data_sets: Boolean, whether the command uses TensorFlow on all
            backends. It is imported here to hide what it prints.
    """
    with program.quiet_tensorflow():
        importlib.import_module("keras_mixer.api")
        # If it is not installed, the command says how to install it.
        if reads_data_sets and importlib.util.find_spec("tensorflow"):
            importlib.import_module("tensorflow")
        return importlib.import_module(f"keras_mixer.commands.{module}")
