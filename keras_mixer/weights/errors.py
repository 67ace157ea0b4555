"""Errors of weights files and downloads."""


class WeightsError(ValueError):
    """A weights file is damaged or does not match the model.

    Nothing from the file was loaded: the weights of the model are unchanged.

    This is a `ValueError`, because Keras Applications raises `ValueError`.

    Example:

    >>> import keras_mixer
    >>> issubclass(keras_mixer.WeightsError, ValueError)
    True
    """


class DownloadError(OSError):
    """A weights file could not be downloaded completely and unchanged.

    An incomplete or wrong file is never left under the final name.

    This is an `OSError`, like the errors of Python's network modules.

    Example:

    >>> import keras_mixer
    >>> issubclass(keras_mixer.DownloadError, OSError)
    True
    """
