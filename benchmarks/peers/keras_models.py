"""This library on the backend of the process, and keras.applications' ResNet50.

A form of inference is a way to call a model: `eager`, `graph` (a TensorFlow
function), `compiled` (torch.compile), `xla`, `predict` and `predict_on_batch`;
"_fused" is added for the model that `keras_mixer.fuse` returns. A form of
training is `train` (a bare step; with `_graph` or `_xla`) or `fit`.
"""

import importlib

import keras
import numpy as np

from benchmarks.contenders import ROOF
from benchmarks.peers import inputs

# The most steps of one `fit`.
FIT_STEPS = 16


def start(name):
    import keras_mixer  # noqa: F401  # part of the time of the import

    return calls().device()


def calls():
    """The module with what differs between the backends."""
    backend = keras.backend.backend()
    return importlib.import_module(f"benchmarks.peers.{backend}_calls")


def gpu_memory():
    return calls().gpu_memory()


def release():
    keras.backend.clear_session()
    calls().release()


def build(form, case):
    if form == ROOF:
        return build_gemm(case)
    keras.config.set_dtype_policy(case["dtype"])
    return build_call(form, case, make(case, form.endswith("_fused")))


def build_call(form, case, model):
    """Returns a function for one of the forms, and a Keras model."""
    form = form.removesuffix("_fused")
    if form == "fit":
        return build_fit(case, model)
    if form == "predict":
        return build_predict(case, model)
    if form == "predict_on_batch":
        return build_predict_on_batch(case, model)
    images = calls().constant(inputs.images(case))
    if form.startswith("train"):
        labels = calls().constant(inputs.labels(case))
        kind = form.removeprefix("train").removeprefix("_")
        optimizer = optimizer_of(case)
        return calls().trainer(kind, model, optimizer, loss(), images, labels)
    return calls().caller(form, model, images)


def make(case, fused=False):
    """Builds the model of a case, which returns logits."""
    import keras_mixer

    options = {
        "classes": case["classes"],
        "classifier_activation": None,
        "include_preprocessing": False,
        "weights": None,
    }
    side = case["tiled_from"] or case["side"]
    shape, larger = (side, side, 3), (case["side"], case["side"], 3)
    sizes = (case["patch"], case["blocks"], case["hidden"])
    if case["family"] == "resnet50":
        del options["include_preprocessing"]
        return keras.applications.ResNet50(input_shape=shape, **options)
    if case["family"] == "mixer":
        sizes += (case["tokens_mlp"], case["channels_mlp"])
        model = keras_mixer.Mixer(*sizes, input_shape=shape, **options)
    elif case["family"] == "resmlp":
        sizes += (case["channels_mlp"], case["layer_scale"])
        model = keras_mixer.ResMLP(*sizes, input_shape=shape, **options)
    else:
        raise ValueError(f"there is no '{case['family']}' here")
    if case["tiled_from"] and larger != shape:
        model = keras_mixer.resize(model, larger, "tile")
    return keras_mixer.fuse(model) if fused else model


def optimizer_of(case):
    if case["optimizer"] == "sgd":
        return keras.optimizers.SGD(inputs.LEARNING_RATE, inputs.MOMENTUM)
    return keras.optimizers.AdamW(
        inputs.LEARNING_RATE,
        inputs.WEIGHT_DECAY,
        *inputs.BETAS,
        epsilon=inputs.EPSILON,
    )


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def build_predict(case, model):
    """One call is `predict` of one batch in memory."""
    images = inputs.images(case)

    def run(count):
        for _ in range(count):
            model.predict(images, batch_size=case["batch"], verbose=0)

    return run


def build_predict_on_batch(case, model):
    """One call is `predict_on_batch`: no pipeline, no callbacks."""
    images = inputs.images(case)

    def run(count):
        for _ in range(count):
            model.predict_on_batch(images)

    return run


def build_fit(case, model):
    """Calls are the steps of one `fit` of one epoch, on images in memory."""
    count = FIT_STEPS * case["batch"]
    images, labels = inputs.images(case, count), inputs.labels(case, count)
    model.compile(optimizer=optimizer_of(case), loss=loss())

    def run(steps):
        part = min(steps, FIT_STEPS) * case["batch"]
        model.fit(
            images[:part],
            labels[:part],
            batch_size=case["batch"],
            verbose=0,
        )

    return run


def build_gemm(case):
    """The product of all tokens with the largest kernel of the model.

    Its form is that of the fastest function of the backend.
    """
    tokens = case["batch"] * (case["side"] // case["patch"]) ** 2
    shapes = (tokens, case["hidden"]), (case["hidden"], case["channels_mlp"])
    dtype = "float32" if case["dtype"] == "float32" else "bfloat16"
    x, kernel = (
        keras.ops.cast(np.random.default_rng(0).standard_normal(shape), dtype)
        for shape in shapes
    )
    return calls().product(x, kernel)


def export(form, case, path):
    """Writes a file for another runtime: "ours" or "ours_fused"."""
    import keras_mixer

    keras.config.set_dtype_policy("float32")
    model = make(case, form.endswith("_fused"))
    # A Mixer begins with a head of zeros, which a converter would leave out.
    for variable in model.get_layer("predictions").weights:
        variable.assign(keras.random.normal(variable.shape))
    keras_mixer.export(model, path)
