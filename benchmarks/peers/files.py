"""Files of this library and of timm in ONNX Runtime and OpenVINO.

The form is the file, "timm" or "ours". Another process wrote it; its path is in
the case.
"""

from benchmarks.peers import inputs

_runtime = None


def start(name):
    global _runtime
    _runtime = name
    return inputs.versions(name)


def build(form, case):
    images = inputs.images(case)
    if form == "timm":
        images = images.transpose(0, 3, 1, 2).copy()
    run = {"onnxruntime": with_onnxruntime, "openvino": with_openvino}
    return inputs.repeated(run[_runtime](case, images))


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
