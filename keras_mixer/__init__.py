"""The all-MLP vision library for Keras 3: MLP-Mixer and ResMLP.

`keras_mixer.api` lists the public names. They are imported here, so that
`keras.saving.load_model` finds the layers after `import keras_mixer`. The
command line is the only exception: Python imports this file before it runs
`python -m keras_mixer --help`, and importing Keras takes seconds. The commands
import what they use.
"""

import importlib
import importlib.util
import pathlib
import re
import sys
import typing

__version__ = "0.1.0"


def _is_program():
    """Whether this process runs the command line, not a script or a notebook.

    Only useful while the package is being imported. While Python looks for the
    module of `python -m MODULE`, `sys.argv[0]` is `"-m"` (documentation of
    Python, "Command line and environment"). The module is then checked too: the
    package of another program can import this one at that time.
    """
    arguments = getattr(sys, "argv", None) or [""]
    if arguments[0] == "-m":
        module = sys.orig_argv[-len(arguments)]
        pattern = rf"(-\w*m)?{__name__}(\.__main__)?"
        return re.fullmatch(pattern, module) is not None
    return pathlib.Path(arguments[0]).stem == __name__


if typing.TYPE_CHECKING or not _is_program():
    from keras_mixer.api import *  # noqa: F403
    from keras_mixer.api import __all__ as __all__
else:

    def __getattr__(name):
        """Returns a module, or a public name: the first imports all of them."""
        if importlib.util.find_spec(f"{__name__}.{name}"):
            return importlib.import_module(f"{__name__}.{name}")
        if name == "__all__" or not name.startswith("__"):
            # While the module is being imported, it has only some names.
            api = importlib.import_module("keras_mixer.api")
            if hasattr(api, name):
                return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
