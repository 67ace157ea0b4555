"""Exports a model to a file for another runtime, and checks the file there."""

import contextlib
import importlib.util
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mixer import atomic
from keras_mixer.arguments import check_crop_ratio
from keras_mixer.arguments import check_model
from keras_mixer.data.photos import check_interpolation
from keras_mixer.exporting import checks
from keras_mixer.exporting.converting import Request
from keras_mixer.exporting.converting import convert
from keras_mixer.exporting.converting import with_names
from keras_mixer.exporting.formats import find_format
from keras_mixer.exporting.running import load
from keras_mixer.exporting.running import sample
from keras_mixer.keras_private import flatten_layers
from keras_mixer.optional import MissingLibraryError
from keras_mixer.optional import require
from keras_mixer.types import Path

logger = logging.getLogger("keras_mixer")

# The largest accepted difference between the outputs of the file and of the
# model, divided by the largest output of the model. For int8 it is the norm of
# the difference, divided by the norm of the outputs.
BOUNDS = {"float32": 1e-4, "float16": 1e-2, "int8": 0.25}


def export(
    model: keras.Model,
    path: Path,
    format: str | None = None,
    *,
    dtype: str = "float32",
    input_dtype: str = "float32",
    class_names: Sequence[str] | None = None,
    image_options: Mapping[str, Any] | None = None,
    calibration: Any = None,
    check: bool = True,
    overwrite: bool = False,
) -> None:
    """Exports a model to a file for another runtime, and checks the file.

    The file takes batches of any size, or of the size that the input of the
    model has. It takes raw pixels in [0, 255]: the scaling of the pixels is
    part of the model. The input is called "image". The outputs are called like
    the last layers of the model, such as "predictions".

    Keras writes the file. TensorFlow is needed for all formats except for
    "torch", which needs PyTorch. If Keras has another backend here, another
    process writes the file, and the logger "keras_mixer" says so.

    Args:
        model: A Keras model with one image of a fixed size as input. It may
            be fused, nested or quantized.
        path: Path of the new file. For "saved_model" it is a folder. For
            "openvino" it ends in ".xml", and a ".bin" file is written too.
        format: "saved_model", "onnx", "openvino", "litert" or "torch". The
            default depends on the suffix of `path`: none, ".onnx", ".xml",
            ".tflite" or ".pt2".
        dtype: The dtype in which weights are stored. "float32" stores the
            weights as they are in the model. "float16" is supported by "onnx",
            "openvino" and "litert". "int8" quantizes the weights.
        input_dtype: Dtype of the pixels, "float32" or "uint8".
        class_names: Optional list of the names of the classes, one for each
            output. It is stored in the file as JSON under the name
            "class_names". For "saved_model" it is the file
            `assets.extra/class_names.json`.
        image_options: Optional dict, the arguments `crop_ratio` and
            `interpolation` with which `load_image` loads photos for this model.
            It is stored in the same way under the name "image_options".
        calibration: Optional array of images, about 100, as the model takes
            them, for `dtype="int8"`. "onnx" and "litert" use it to quantize the
            activations too, "openvino" needs it, and the others do not take it.
        check: Boolean, whether to run the file in its own runtime, and to
            compare the outputs with those of the model, for batches of 1 and 3
            images, or of the size of the model's batch. The difference must be
            below 1e-4 (1e-2 for "float16") times the largest output. For "int8"
            the norm of the difference must be below a quarter of the norm of
            the outputs, and also for a model that is quantized already.
        overwrite: Boolean, whether to replace an existing file, or for
            "saved_model" an existing SavedModel. Nothing else is replaced, such
            as a folder of photos.

    Raises:
        ValueError: If the format or dtype is not supported, the model has
            another kind of input, the model is too large for the format, the
            backend is OpenVINO, or the file does not compute what the model
            computes. No file is left then.
        FileExistsError: If `path` exists and may not be replaced.
        ImportError: If a library is missing. The message says which.
        OSError: If the file cannot be written.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import pathlib, tempfile
    >>> import keras_mixer
    >>> model = keras_mixer.MixerNano(weights="cifar10")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "nano.pt2")
    ...     keras_mixer.export(keras_mixer.fuse(model), path)
    ...     path.exists()
    True
    """
    target = checks.local_path("path", path)
    found = find_format(format, target)
    _check_model(model, found)
    found.check(dtype, calibration is not None, 4 * model.count_params())
    images = _images(model, calibration, input_dtype)
    metadata = _metadata(model, class_names, image_options)
    _check_installed(found, dtype, check)
    _check_target(found, target, overwrite)
    request = Request(found.name, dtype, input_dtype, metadata, None)
    # In the same folder, so that the finished file is moved, not copied.
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}.", dir=target.parent
    ) as folder:
        if images is not None:
            file = pathlib.Path(folder, "calibration.npy")
            np.save(file, images)
            request = request._replace(calibration=str(file))
        # No other file in this folder can have the name of the target.
        made = pathlib.Path(folder, "made", target.name)
        made.parent.mkdir()
        _convert(model, made, found, request)
        if check:
            _check(model, made, request)
        # Converting takes a while: the target may have changed.
        _check_target(found, target, overwrite)
        _move(found.files(made), found.files(target))


def _check_model(model, format):
    check_model(model)
    inputs = getattr(model, "inputs", None) or []
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or None in shapes[0][1:]:
        raise ValueError(
            "`model` must have one image of a fixed size as input. "
            f"Received: model='{model.name}' with inputs of shapes {shapes}"
        )
    if keras.backend.backend() == "openvino":
        # Its bfloat16 would be too inaccurate for the check.
        raise ValueError(
            "Models cannot be exported with the OpenVINO backend of Keras. Set "
            f"KERAS_BACKEND={format.backend}. A file for OpenVINO is written "
            "by TensorFlow, too. Received: backend 'openvino'"
        )
    if not format.runs_int8_of_keras and "int8" in _quantization_modes(model):
        raise ValueError(
            "LiteRT has no operation for the int8 products of Keras. Export "
            "the model from before `quantize`, with `dtype='int8'`. "
            f"Received: model='{model.name}', which is quantized"
        )


def _check_target(format, target, overwrite):
    kind = "a file" if format.suffix else "a SavedModel without other files"
    for file in format.files(target):
        if file != target:
            kind = f"the second file of an earlier '{target.name}'"
        checks.check_target(file, overwrite, format.is_written, kind)


def _images(model, calibration, input_dtype):
    """Returns the images for calibration in the dtype of the input."""
    if input_dtype not in ("float32", "uint8"):
        raise ValueError(
            "`input_dtype` must be 'float32' or 'uint8'. "
            f"Received: input_dtype={input_dtype!r}"
        )
    if calibration is None:
        return None
    images = np.asarray(calibration)
    batch, *shape = model.inputs[0].shape
    if list(images.shape[1:]) != shape or len(images) < (batch or 1):
        raise ValueError(
            f"`calibration` must be an array of at least {batch or 1} images "
            f"of the shape of the model's input, {tuple(shape)}. "
            f"Received: an array of shape {images.shape}"
        )
    if input_dtype == "uint8":
        if not (images.min() >= 0 and images.max() <= 255):
            raise ValueError(
                "`calibration` must have pixels in [0, 255] for "
                "`input_dtype='uint8'`. Received: pixels in "
                f"[{images.min()}, {images.max()}]"
            )
        images = np.rint(images)
    return images.astype(input_dtype)


def _metadata(model, class_names, image_options):
    """Returns what is stored in the file besides the model."""
    metadata = {}
    if class_names is not None:
        metadata["class_names"] = checks.class_names(model, class_names)
    if image_options is not None:
        options = dict(image_options)
        if not options.keys() <= {"crop_ratio", "interpolation"}:
            raise ValueError(
                "`image_options` must be a dict with the keys 'crop_ratio' and "
                f"'interpolation'. Received: image_options={options}"
            )
        if "crop_ratio" in options:
            check_crop_ratio(options["crop_ratio"])
        if "interpolation" in options:
            check_interpolation(options["interpolation"])
        metadata["image_options"] = options
    return metadata


def _check_installed(format, dtype, check):
    """Raises an error if a library is missing, before anything is written."""
    if importlib.util.find_spec(format.backend) is None:
        raise MissingLibraryError(
            f"Exporting to the format '{format.name}' needs {format.backend}, "
            "which is not installed. Install it with "
            f"`pip install keras_mixer[{format.backend}]`."
        )
    modules = [*format.modules, *([format.runtime] if check else [])]
    if dtype == "int8":
        modules += format.int8_modules
    for module in modules:
        if module not in ("tensorflow", "torch"):
            require(module)


def _convert(model, target, format, request):
    if keras.backend.backend() == format.backend:
        convert(model, target, request)
        return
    logger.info(
        "Keras writes this format with the backend %s: starting a process",
        format.backend,
    )
    source, file = (
        target.parents[1] / name for name in ("model.keras", "request.json")
    )
    model.save(source)
    file.write_text(json.dumps(request._asdict()), "utf-8")
    code = "from keras_mixer.exporting.converting import main; main()"
    process = subprocess.run(
        [sys.executable, "-c", code, source, target, file],
        env=process_environment(format.backend),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        *_, reason = process.stderr.strip().splitlines() or ["no message"]
        error = ValueError(
            f"'{model.name}' cannot be converted to '{format.name}': {reason}"
        )
        error.add_note(process.stderr[-3000:])
        raise error


def process_environment(backend):
    """Returns the environment of a process with another backend."""
    package = str(pathlib.Path(__file__).parents[2])
    paths = [package, os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _check(model, path, request):
    """Raises an error if a file does not compute what a model computes."""
    run = load(request.format, path)
    compared = "int8" if _quantization_modes(model) else request.dtype
    images = _sample(model, request)
    is_fixed = model.inputs[0].shape[0] is not None
    named = with_names(model, request.input_dtype)
    for batch in [images] if is_fixed else [images[:1], images]:
        received = run(batch)
        for name, value in named(batch, training=False).items():
            expected = keras.ops.convert_to_numpy(value).astype("float64")
            difference = _difference(expected, received[name], compared)
            if not difference <= BOUNDS[compared]:
                raise ValueError(
                    f"The exported file of '{model.name}' does not compute "
                    f"what the model computes: the output '{name}' differs by "
                    f"{difference:.2g}, and at most {BOUNDS[compared]} is "
                    f"allowed. Received: format='{request.format}', "
                    f"dtype='{request.dtype}'"
                )


def _quantization_modes(model):
    """Returns the set of Keras's quantization modes of the layers."""
    layers = flatten_layers(model)
    modes = {getattr(layer, "quantization_mode", None) for layer in layers}
    return modes - {None}


def _difference(expected, received, dtype):
    """Returns the relative difference; the absolute one if all are zero."""
    difference = received.astype("float64") - expected
    if dtype == "int8":
        return np.linalg.norm(difference) / (np.linalg.norm(expected) or 1)
    return np.abs(difference).max() / (np.abs(expected).max() or 1)


def _sample(model, request):
    """Returns images to compare the outputs for: one batch, or three."""
    batch, *shape = model.inputs[0].shape
    images = sample(shape, batch or 3)
    if request.calibration is not None:
        images = np.load(request.calibration)[: batch or 3]
    return images.astype(request.input_dtype)


def _move(made, targets):
    """Moves the finished files, or the folder, to their places."""
    with contextlib.ExitStack() as stack:
        for new, target in zip(made, targets, strict=True):
            new.replace(stack.enter_context(atomic.replacing(target)))
