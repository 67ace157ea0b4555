"""Runs exported files in their own runtimes."""

import numpy as np

from keras_mixer.optional import require


def sample(shape, count=3):
    """Returns images to compare a model with its file, or with another model.

    Three images in a row have different means and contrasts.
    """
    rng = np.random.default_rng(0)
    ranges = ((0, 255), (100, 228), (10, 60))
    return np.stack([rng.uniform(*ranges[i % 3], shape) for i in range(count)])


def load(format, path):
    """Returns a function that runs an exported file.

    Args:
        format: Name of the format.
        path: Path of the file or folder.

    Returns:
        A function of an array of shape `(batch, height, width, channels)`, in
        the dtype of the input. It returns `{name of the output: array}`.
    """
    run = _LOADERS[format](str(path))

    def to_arrays(images):
        return {name: np.asarray(value) for name, value in run(images).items()}

    return to_arrays


def _load_saved_model(path):
    tf = require("tensorflow")
    loaded = tf.saved_model.load(path)

    def run(images):
        # TensorFlow deletes the variables together with `loaded`.
        serve = loaded.signatures["serving_default"]
        (name,) = serve.structured_input_signature[1]
        return serve(**{name: tf.constant(images)})

    return run


def _load_onnx(path):
    session = require("onnxruntime").InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    (image,) = session.get_inputs()
    return lambda images: dict(
        zip(names, session.run(names, {image.name: images}), strict=True)
    )


def _load_openvino(path):
    # On some processors OpenVINO computes in bfloat16 unless it is told not to.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    model = require("openvino").compile_model(path, "CPU", options)

    def run(images):
        outputs = model(images)
        return {each.get_any_name(): outputs[each] for each in model.outputs}

    return run


def _load_litert(path):
    interpreter = require("ai_edge_litert.interpreter").Interpreter(path)
    runner = interpreter.get_signature_runner()
    (name,) = runner.get_input_details()
    return lambda images: runner(**{name: images})


def _load_torch(path):
    torch = require("torch")
    module = torch.export.load(path).module()

    def run(images):
        with torch.no_grad():
            return module(torch.tensor(images))

    return run


_LOADERS = {
    "saved_model": _load_saved_model,
    "onnx": _load_onnx,
    "openvino": _load_openvino,
    "litert": _load_litert,
    "torch": _load_torch,
}
