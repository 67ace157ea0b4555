"""Libraries that an extra installs, imported where they are used."""

import importlib
import importlib.util
import logging

logger = logging.getLogger("keras_mixer")

# For a module: what needs it, the name of its library, and the extra of this
# package that installs it.
LIBRARIES = {
    "ai_edge_litert": ("Running a LiteRT file", "ai-edge-litert", "litert"),
    "PIL": ("Reading images", "Pillow", "images"),
    "huggingface_hub": ("The Hugging Face hub", "huggingface_hub", "hub"),
    "jinja2": ("A model card", "Jinja2", "hub"),
    "keras_cv": ("RandAugment", "keras-cv", "train"),
    "matplotlib": ("Drawing", "Matplotlib", "visualize"),
    "onnx": ("Exporting to ONNX", "onnx", "onnx"),
    "onnxruntime": ("Running an ONNX file", "ONNX Runtime", "onnx"),
    "openvino": ("OpenVINO", "openvino", "openvino"),
    "scipy": ("Keras for OpenVINO", "scipy", "openvino"),
    "safetensors": ("A `.safetensors` file", "safetensors", "hub"),
    "sklearn": ("Measuring a model", "scikit-learn", "train"),
    "tensorboard": ("Logging for TensorBoard", "TensorBoard", "train"),
    "tensorflow": ("Reading data sets", "TensorFlow", "train"),
    "torch": ("A file of PyTorch", "PyTorch", "torch"),
    "tf2onnx": ("Exporting to ONNX", "tf2onnx", "onnx"),
    "tensorflow_datasets": (
        "Reading data sets of TFDS",
        "tensorflow-datasets",
        "train",
    ),
}


class MissingLibraryError(ImportError):
    """An optional library is not installed. The message says how to do it."""


def require(module):
    """Imports a module of an optional library.

    Args:
        module: Name of the module, such as `"PIL.Image"`.

    Returns:
        The module.

    Raises:
        ImportError: If it cannot be imported. The message says what needs the
            library, and how to install it; or, if the library is installed,
            what it lacks.

    Example:

    >>> from keras_mixer import optional
    >>> optional.require("PIL.Image").__name__
    'PIL.Image'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        root = module.partition(".")[0]
        if error.name == root:
            raise MissingLibraryError(_missing(module)) from error
        use, library, extra = LIBRARIES[root]
        raise MissingLibraryError(
            f"{use} needs {library}, which is installed but cannot be "
            f"imported: {error}. Install what it lacks, or use "
            f"`pip install --upgrade keras_mixer[{extra}]`."
        ) from error


def check_installed(module):
    """Raises an error if a library is not installed, without importing it.

    Args:
        module: Name of a module in `LIBRARIES`.

    Raises:
        ImportError: As `require` does.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingLibraryError(_missing(module))


def is_installed(module):
    """Whether a library is installed; if it is not, the log says so."""
    if importlib.util.find_spec(module) is not None:
        return True
    logger.warning("%s", _missing(module))
    return False


def _missing(module):
    use, library, extra = LIBRARIES[module.partition(".")[0]]
    return (
        f"{use} needs {library}, which is not installed. Install it with "
        f"`pip install keras_mixer[{extra}]`."
    )
