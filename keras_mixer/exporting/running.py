"""Runs exported files in their own runtimes."""

import numpy as np

from keras_mixer.optional import require


def run(format, path, images):
    """Returns what an exported file computes.

    Args:
        format: Name of the format.
        path: Path of the file or folder.
        images: Array of shape `(batch, height, width, channels)`, in the dtype
            of the input.

    Returns:
        `{name of the output: array}`.
    """
    outputs = _RUNNERS[format](str(path), images)
    return {name: np.asarray(value) for name, value in outputs.items()}


def _run_saved_model(path, images):
    tf = require("tensorflow")
    loaded = tf.saved_model.load(path)
    (name,) = loaded.signatures["serving_default"].structured_input_signature[1]
    return loaded.signatures["serving_default"](**{name: tf.constant(images)})


def _run_onnx(path, images):
    session = require("onnxruntime").InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    (image,) = session.get_inputs()
    return dict(
        zip(names, session.run(names, {image.name: images}), strict=True)
    )


def _run_openvino(path, images):
    # On some processors OpenVINO computes in bfloat16 unless it is told not to.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    model = require("openvino").compile_model(path, "CPU", options)
    outputs = model(images)
    return {output.get_any_name(): outputs[output] for output in model.outputs}


def _run_litert(path, images):
    interpreter = require("ai_edge_litert.interpreter").Interpreter(path)
    runner = interpreter.get_signature_runner()
    (name,) = runner.get_input_details()
    return runner(**{name: images})


def _run_torch(path, images):
    torch = require("torch")
    module = torch.export.load(path).module()
    with torch.no_grad():
        return module(torch.tensor(images))


_RUNNERS = {
    "saved_model": _run_saved_model,
    "onnx": _run_onnx,
    "openvino": _run_openvino,
    "litert": _run_litert,
    "torch": _run_torch,
}
