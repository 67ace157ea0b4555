"""Converts a model to a file for another runtime, with Keras's exporters.

The functions here need the backend of the format. `exporter` runs them in this
process, or in another one if this process has another backend.
"""

import copy
import io
import json
import pathlib
import sys
import typing
import warnings

import keras
import numpy as np

from keras_mixer.optional import require


class Request(typing.NamedTuple):
    """What to convert. All values can be written to a JSON file."""

    format: str
    dtype: str
    input_dtype: str
    metadata: dict  # values to store as JSON in the file, by their names
    calibration: str | None  # path of a NumPy file of images


def convert(model, target, request):
    """Writes a model to a file or a folder.

    Args:
        model: A Keras model with one image as input.
        target: Path of the new file, in an existing folder.
        request: A `Request`.
    """
    if request.dtype == "int8" and request.format in ("saved_model", "torch"):
        model = copy.deepcopy(model)
        model.quantize("int8")
    named = with_names(model, request.input_dtype)
    _CONVERTERS[request.format](named, pathlib.Path(target), request)


def with_names(model, input_dtype="float32"):
    """Returns a model whose input and outputs have names.

    Its input is called "image". Its output is a dict: the names of the outputs
    are the keys of the model's dict, or the names of its last layers.
    """
    (original,) = model.inputs
    image = keras.Input(
        batch_shape=original.shape, dtype=input_dtype, name="image"
    )
    x = image
    if image.dtype != original.dtype:
        x = keras.ops.cast(image, original.dtype)
    # Without this, Keras's augmentation layers would be active.
    outputs = model(x, training=False)
    if not isinstance(outputs, dict):
        names = keras.Model(model.inputs, model.outputs).output_names
        outputs = dict(zip(names, keras.tree.flatten(outputs), strict=True))
    return keras.Model(image, outputs, name=model.name)


def _export(model, target, format, **options):
    """Writes a file with Keras, which leaves the batch free by default."""
    (image,) = model.inputs
    spec = keras.InputSpec(image.dtype, shape=image.shape, name="image")
    model.export(
        str(target),
        format=format,
        verbose=False,
        input_signature=[spec],
        **options,
    )


def _to_saved_model(model, target, request):
    _export(model, target, "tf_saved_model")
    # The folder that TensorFlow reserves for files of the user.
    extra = target / "assets.extra"
    for name, text in _texts(request).items():
        extra.mkdir(exist_ok=True)
        (extra / f"{name}.json").write_text(text, "utf-8")


def _to_onnx(model, target, request):
    # Keras 3.15 exports only models that were called.
    batch, *shape = model.input.shape
    model(np.zeros((batch or 1, *shape), request.input_dtype))
    with warnings.catch_warnings():
        # Keras's code for tf2onnx asks for `np.object`.
        warnings.simplefilter("ignore", FutureWarning)
        _export(model, target, "onnx")
    if request.dtype == "float16":
        convert_to_half = require(
            "onnxruntime.transformers.float16"
        ).convert_float_to_float16
        onnx = require("onnx")
        half = convert_to_half(onnx.load(target), keep_io_types=True)
        onnx.save(half, target)
    elif request.dtype == "int8":
        _quantize_onnx(target, request, batch)
    if request.metadata:
        onnx = require("onnx")
        written = onnx.load(target)
        for name, text in _texts(request).items():
            entry = written.metadata_props.add()
            entry.key, entry.value = name, text
        onnx.save(written, target)


def _quantize_onnx(target, request, batch):
    """Quantizes the weights of an ONNX file, and with images its activations.

    The tools of ONNX Runtime read a file and write another one.
    """
    quantization = require("onnxruntime.quantization")
    require("onnxruntime.quantization.shape_inference").quant_pre_process(
        str(target), str(target), skip_symbolic_shape=True
    )
    options = {
        "weight_type": quantization.QuantType.QInt8,
        "per_channel": True,
    }
    if request.calibration is None:
        quantization.quantize_dynamic(str(target), str(target), **options)
        return

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.batches = _calibration_batches(request, batch, 16)

        def get_next(self):
            return next(self.batches, None)

    quantization.quantize_static(
        str(target),
        str(target),
        Reader(),
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        **options,
    )


def _to_openvino(model, target, request):
    openvino = require("openvino")
    if request.dtype == "int8":
        # OpenVINO reads the quantized operations of an ONNX file.
        file = target.with_suffix(".onnx")
        _to_onnx(model, file, request._replace(metadata={}))
        converted = openvino.convert_model(str(file))
        file.unlink()
    else:
        file = target.with_name("float32_" + target.name)
        _export(model, file, "openvino")
        converted = openvino.Core().read_model(str(file))
    for output in converted.outputs:
        # TensorFlow's names of operations are names of the outputs, too.
        output.get_tensor().set_names(output.get_names() & set(model.output))
    for name, text in _texts(request).items():
        converted.set_rt_info(text, name)
    is_half = request.dtype == "float16"
    openvino.save_model(converted, str(target), compress_to_fp16=is_half)


def _to_litert(model, target, request):
    tf = require("tensorflow")
    options = {}
    if request.dtype != "float32":
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if request.dtype == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    elif request.calibration is not None:
        # The converter accepts only batches of one image, or the fixed batch.
        options["representative_dataset"] = lambda: _calibration_batches(
            request, model.input.shape[0], 1
        )
    _export(model, target, "litert", **options)
    if request.metadata:
        _add_metadata_to_litert(target, _texts(request))


def _add_metadata_to_litert(target, texts):
    tools = require("tensorflow.lite.tools.flatbuffer_utils")
    schema = require("tensorflow.lite.python.schema_py_generated")
    model = tools.read_model(str(target))
    for name, text in texts.items():
        buffer, metadata = schema.BufferT(), schema.MetadataT()
        buffer.data = list(text.encode("utf-8"))
        metadata.name, metadata.buffer = name, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), metadata]
    tools.write_model(model, str(target))


def _to_torch(model, target, request):
    """Writes a PyTorch `ExportedProgram`.

    Keras 3.15 does the same, with two differences: its file contains the paths
    of source files on this machine, and the process ends if the disk is full.
    """
    torch = require("torch")
    (image,) = model.inputs
    batch, *shape = image.shape
    # If the sample had a batch of 1, the batch would be fixed.
    sample = torch.zeros(
        (batch or 2, *shape), dtype=getattr(torch, image.dtype)
    )
    free = None if batch else [({0: torch.export.Dim("batch")},)]
    program = torch.export.export(
        model, (sample,), dynamic_shapes=free, strict=False
    )
    for module in program.graph_module.modules():
        for node in getattr(module, "graph", torch.fx.Graph()).nodes:
            node.meta.pop("stack_trace", None)
    extra = {f"{name}.json": text for name, text in _texts(request).items()}
    content = io.BytesIO()
    torch.export.save(program, content, extra_files=extra)
    target.write_bytes(content.getbuffer())


def _texts(request):
    """Returns `{name: JSON}` of what is stored in the file."""
    return {name: json.dumps(value) for name, value in request.metadata.items()}


def _calibration_batches(request, batch, size):
    """Yields the images in batches.

    Args:
        batch: The fixed batch of the model, or `None`. If it is fixed, images
            that do not fill a batch are left out.
        size: The size of the batches if it is free.
    """
    images, size = np.load(request.calibration), batch or size
    end = len(images) - (len(images) % size if batch else 0)
    for i in range(0, end, size):
        yield {"image": images[i : min(i + size, end)]}


_CONVERTERS = {
    "saved_model": _to_saved_model,
    "onnx": _to_onnx,
    "openvino": _to_openvino,
    "litert": _to_litert,
    "torch": _to_torch,
}


def main():
    """Converts a saved model: `MODEL TARGET REQUEST`, for another process."""
    source, target, request = sys.argv[1:]
    model = keras.saving.load_model(source, compile=False)
    request = Request(**json.loads(pathlib.Path(request).read_text("utf-8")))
    convert(model, target, request)
