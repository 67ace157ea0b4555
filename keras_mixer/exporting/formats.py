"""The file formats of other runtimes: names, backends, extras and limits."""

import dataclasses
import pathlib

# The most bytes of weights, in float32, of a file that is one message of
# protobuf (ONNX) or FlatBuffers (LiteRT). Both end at 2**31 bytes, and the
# graph needs some of them.
MAX_BYTES = 2_000_000_000

ALL = ("float32", "float16", "int8")
# TensorFlow and PyTorch compute with the dtype of the weights.
NO_HALF = ("float32", "int8")
ONNX = ("tf2onnx", "onnx", "onnxruntime")
# What `export` writes to `assets.extra` of a SavedModel.
ASSETS = {"class_names.json", "image_options.json"}


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format that `keras_mixer.export` writes.

    Args:
        name: Name of the format.
        suffix: Suffix of its files; "" is a folder.
        backend: The backend of Keras that writes it. "torch" is written by
            PyTorch. TensorFlow writes the others with a free batch size and
            with names of the inputs and outputs; JAX and PyTorch do not (Keras
            3.15).
        runtime: Module that runs the file.
        modules: Modules that writing needs.
        int8_modules: Modules that writing needs besides for `dtype="int8"`.
        dtypes: The dtypes of weights that the format supports.
        limited: Those of them for which the weights must have at most
            `MAX_BYTES`.
        calibration: Whether images for `dtype="int8"` are "unused", "optional"
            or "needed".
        runs_int8_of_keras: Whether a model that Keras has quantized to int8 can
            be written.
        second_suffix: Suffix of a second file beside the first, or `None`.
    """

    name: str
    suffix: str
    backend: str
    runtime: str
    modules: tuple = ()
    int8_modules: tuple = ()
    dtypes: tuple = ALL
    limited: tuple = ()
    calibration: str = "optional"
    runs_int8_of_keras: bool = True
    second_suffix: str | None = None

    def check(self, dtype, has_images, weight_bytes):
        """Raises an error if the format does not support these options.

        Args:
            dtype: The dtype of the weights.
            has_images: Boolean, whether there are images for calibration.
            weight_bytes: The number of bytes of the weights in float32.
        """
        if dtype not in self.dtypes:
            raise ValueError(
                f"`dtype` must be one of {list(self.dtypes)} for the format "
                f"'{self.name}'. Received: dtype={dtype!r}"
            )
        if has_images and (dtype != "int8" or self.calibration == "unused"):
            raise ValueError(
                f"`calibration` is not used by the format '{self.name}' with "
                f"`dtype='{dtype}'`. Leave it out, or use `dtype='int8'` with "
                "'onnx', 'openvino' or 'litert'."
            )
        if not has_images and (dtype, self.calibration) == ("int8", "needed"):
            raise ValueError(
                f"The format '{self.name}' needs images to quantize a model. "
                "Pass about 100 images as `calibration` (`--calibrate FOLDER` "
                "on the command line)."
            )
        if dtype in self.limited and weight_bytes > MAX_BYTES:
            raise ValueError(
                f"A file of the format '{self.name}' cannot be larger than 2 "
                "GB, and the float32 weights of the model have "
                f"{weight_bytes / 1e9:.1f} GB. Use the format 'saved_model' or "
                "'torch', or 'openvino' in float32 or float16."
            )

    def files(self, path):
        """Returns the paths of the files that an export writes."""
        if self.second_suffix is None:
            return [path]
        return [path, path.with_suffix(self.second_suffix)]

    def is_written(self, path):
        """Returns whether a file or folder can be that of an export."""
        if path.suffix == self.second_suffix:
            # Other programs have such files too: it goes with its first file.
            first = path.with_suffix(self.suffix)
            if not (path.is_file() and first.is_file()):
                return False
            with first.open("rb") as file:
                return b"<net" in file.read(1000)
        if self.suffix:
            return path.is_file()
        # What TensorFlow writes, and the folder of `_to_saved_model`.
        known = {
            *("saved_model.pb", "fingerprint.pb"),
            *("variables", "assets", "assets.extra"),
        }
        names = {file.name for file in path.iterdir()} if path.is_dir() else {}
        assets = {file.name for file in path.glob("assets*/*")}
        return "saved_model.pb" in names <= known and assets <= ASSETS


FORMATS = {
    each.name: each
    for each in (
        Format(
            "saved_model", "", "tensorflow", "tensorflow",
            dtypes=NO_HALF, calibration="unused",
        ),
        # The other dtypes are made of a file in float32.
        Format(
            "onnx", ".onnx", "tensorflow", "onnxruntime", ONNX, limited=ALL,
        ),
        # The file for int8 is made of an ONNX file.
        Format(
            "openvino", ".xml", "tensorflow", "openvino", ("openvino", "scipy"),
            int8_modules=ONNX, limited=("int8",), calibration="needed",
            second_suffix=".bin",
        ),
        Format(
            "litert", ".tflite", "tensorflow", "ai_edge_litert",
            ("ai_edge_litert",), limited=("float32",), runs_int8_of_keras=False,
        ),
        Format(
            "torch", ".pt2", "torch", "torch",
            dtypes=NO_HALF, calibration="unused",
        ),
    )
}  # fmt: skip


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
