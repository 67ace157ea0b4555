"""Files of this library and of timm in ONNX Runtime and OpenVINO.

The form is the file: "timm", "ours" or "ours_fused". `measuring` had another
process write it; its path is in the case.
"""

import os

from benchmarks.peers import inputs

_runtime = None


def start(name):
    """Imports the runtime, and returns the device."""
    global _runtime
    if name == "onnxruntime":
        import onnxruntime  # noqa: F401
    else:
        import openvino  # noqa: F401
    _runtime = name
    return f"CPU, {os.cpu_count()} threads"


def build(form, case):
    images = inputs.images(case)
    if form == "timm":
        images = images.transpose(0, 3, 1, 2).copy()
    run = {"onnxruntime": with_onnxruntime, "openvino": with_openvino}
    call = run[_runtime](case, images)

    def repeat(count):
        for _ in range(count):
            call()

    return repeat


def with_onnxruntime(case, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        case["path"], providers=["CPUExecutionProvider"]
    )
    (image,) = session.get_inputs()
    return lambda: session.run(None, {image.name: images})


def with_openvino(case, images):
    import openvino

    precision = {"float32": "f32", "bfloat16": "bf16"}[case["dtype"]]
    model = openvino.Core().read_model(case["path"])
    model.reshape(images.shape)
    compiled = openvino.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": precision}
    )
    return lambda: compiled(images)
