"""The all-MLP vision library for Keras 3: MLP-Mixer and ResMLP.

`keras_mixer.api` lists the public names. They are imported here, so that
`keras.saving.load_model` finds the layers after `import keras_mixer`. The
command line is the only exception: Python imports this file before it runs
`python -m keras_mixer --help`, and importing Keras takes seconds. The commands
import what they use.
"""

import importlib
import typing

from keras_mixer.program import is_program

__version__ = "0.1.0"

if typing.TYPE_CHECKING or not is_program():
    from keras_mixer.api import *  # noqa: F403
    from keras_mixer.api import __all__ as __all__
else:

    def __getattr__(name):
        """Returns a public name. The first use imports all of them."""
        if name == "__all__" or not name.startswith("__"):
            # While the module is being imported, it has only some names.
            api = importlib.import_module("keras_mixer.api")
            if hasattr(api, name):
                return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
