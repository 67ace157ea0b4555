"""The file formats of other runtimes: names, backends and extras."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format that `keras_mixer.export` writes.

    Args:
        name: Name of the format.
        suffix: Suffix of its files; "" is a folder.
        backend: The backend of Keras that writes it. TensorFlow writes all
            formats but one with a dynamic batch size and with names of the
            inputs and outputs. JAX and PyTorch do not (Keras 3.15).
        modules: Modules that writing needs.
        runtime: Module that runs the file.
        dtypes: The dtypes of weights that the format supports.
    """

    name: str
    suffix: str
    backend: str
    modules: tuple
    runtime: str
    dtypes: tuple = ("float32", "float16", "int8")


FORMATS = {
    each.name: each
    for each in (
        Format(
            "saved_model",
            "",
            "tensorflow",
            (),
            "tensorflow",
            # TensorFlow computes with the dtype of the weights.
            ("float32", "int8"),
        ),
        Format(
            "onnx",
            ".onnx",
            "tensorflow",
            ("tf2onnx", "onnx", "onnxruntime"),
            "onnxruntime",
        ),
        Format(
            "openvino", ".xml", "tensorflow", ("openvino", "scipy"), "openvino"
        ),
        Format(
            "litert",
            ".tflite",
            "tensorflow",
            ("ai_edge_litert",),
            "ai_edge_litert",
        ),
        # PyTorch computes with the dtype of the weights, too.
        Format("torch", ".pt2", "torch", (), "torch", ("float32", "int8")),
    )
}


def find_format(name, path):
    """Returns the `Format` with a name, or that of a path if there is none.

    Raises:
        ValueError: If the format is unknown, or does not fit the path.
    """
    suffix = pathlib.Path(path).suffix
    suffixes = {each.suffix: each for each in FORMATS.values()}
    if name is None:
        if suffix in suffixes:
            return suffixes[suffix]
        raise ValueError(
            "The suffix of `path` must be one of "
            f"{[each for each in suffixes if each]}, or none for a "
            f"SavedModel. Received: path='{path}'"
        )
    if name not in FORMATS:
        raise ValueError(
            f"`format` must be one of {list(FORMATS)}. "
            f"Received: format={name!r}"
        )
    found = FORMATS[name]
    # A folder may have any name.
    if found.suffix not in ("", suffix):
        raise ValueError(
            f"A file of the format '{name}' must end in '{found.suffix}'. "
            f"Received: path='{path}'"
        )
    return found
