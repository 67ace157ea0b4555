"""What the readers of several formats share."""

import numpy as np


def bfloat16():
    """The dtype, which NumPy itself does not have."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def not_weights(name, dtype):
    """What is wrong with an array of integers, for one."""
    return f"{name!r} holds {dtype}, not floating-point weights"


def missing_library(path, library, extra):
    """What to do about a library that reading a file needs."""
    return (
        f"Reading '{path}' needs {library}. Install it with "
        f"`pip install keras_mixer[{extra}]`."
    )
