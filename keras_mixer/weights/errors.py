"""What can be wrong with a file of weights, and with getting one."""


class WeightsError(ValueError):
    """A file of weights is damaged, or is not that of the model.

    Nothing of it has been loaded then: a model keeps the weights it has.

    Source: this library; Keras Applications raises `ValueError`, which this is.

    Example:

    >>> import keras_mixer
    >>> issubclass(keras_mixer.WeightsError, ValueError)
    True
    """


class DownloadError(OSError):
    """A file of weights could not be fetched, whole and unchanged.

    Nothing is left that would later pass for the file.

    Source: this library; an `OSError`, as those of Python's network modules.

    Example:

    >>> import keras_mixer
    >>> issubclass(keras_mixer.DownloadError, OSError)
    True
    """
