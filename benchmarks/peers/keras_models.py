"""This library on the backend of the process, and keras.applications' ResNet50.

A form of inference is a way to call a model: `eager`, `compiled`
(torch.compile), `xla` (a function compiled by XLA) or `predict_on_batch`;
"_fused" is added for the model that `keras_mixer.fuse` returns. A form of
training is `train` (`train_on_batch`) or `fit`.
"""

import keras

from benchmarks.peers import inputs

# The most steps of one `fit`.
FIT_STEPS = 16


def start(name):
    return inputs.versions("keras", keras.backend.backend())


def gpu_memory():
    if not inputs.is_gpu():
        return None
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.max_memory_allocated()
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def build(form, case):
    keras.config.set_dtype_policy(case["dtype"])
    model = make(case, form.endswith("_fused"))
    form = form.removesuffix("_fused")
    if form in ("train", "fit"):
        return build_training(form, case, model)
    images = inputs.images(case)
    if form == "predict_on_batch":
        return inputs.repeated(lambda: model.predict_on_batch(images))
    callers = {"torch": with_torch, "jax": with_jax, "tensorflow": with_xla}
    caller = callers[keras.backend.backend()]
    return caller(form, model, keras.ops.convert_to_tensor(images))


def make(case, fused=False):
    """Builds the model of a case, which returns logits."""
    import keras_mixer

    options = {
        "classes": case["classes"],
        "classifier_activation": None,
        "weights": None,
    }
    side = case["tiled_from"] or case["side"]
    shape, larger = (side, side, 3), (case["side"], case["side"], 3)
    if case["family"] == "resnet50":
        return keras.applications.ResNet50(input_shape=shape, **options)
    kind, widths = {
        "mixer": (keras_mixer.Mixer, ("tokens_mlp", "channels_mlp")),
        "resmlp": (keras_mixer.ResMLP, ("channels_mlp", "layer_scale")),
    }[case["family"]]
    model = kind(
        *(case[name] for name in ("patch", "blocks", "hidden", *widths)),
        input_shape=shape,
        include_preprocessing=False,
        **options,
    )
    if larger != shape:
        model = keras_mixer.resize(model, larger, "tile")
    return keras_mixer.fuse(model) if fused else model


def with_torch(form, model, images):
    import torch

    call = torch.compile(model) if form == "compiled" else model

    def once():
        with torch.inference_mode():
            return call(images, training=False)

    return inputs.repeated(once, lambda output: output[0, 0].item())


def with_jax(form, model, images):
    import jax

    variables = model.trainable_variables, model.non_trainable_variables
    state = [[v.value for v in part] for part in variables]
    function = jax.jit(
        lambda state, x: model.stateless_call(*state, x, training=False)[0]
    )
    return inputs.repeated(
        lambda: function(state, images), jax.block_until_ready
    )


def with_xla(form, model, images):
    import tensorflow as tf

    function = tf.function(lambda x: model(x, training=False), jit_compile=True)
    return inputs.repeated(
        lambda: function(images), lambda output: output.numpy()
    )


def build_training(form, case, model):
    optimizer = keras.optimizers.SGD(inputs.LEARNING_RATE, inputs.MOMENTUM)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    if form == "train":
        images, labels = inputs.images(case), inputs.labels(case)
        return inputs.repeated(lambda: model.train_on_batch(images, labels))
    batch, count = case["batch"], FIT_STEPS * case["batch"]
    images, labels = inputs.images(case, count), inputs.labels(case, count)

    def run(steps):
        """Makes the steps of one `fit` of one epoch, on images in memory."""
        for step in range(0, steps, FIT_STEPS):
            part = min(steps - step, FIT_STEPS) * batch
            model.fit(images[:part], labels[:part], batch_size=batch, verbose=0)

    return run


def export(form, case, path):
    """Writes a file for another runtime."""
    import keras_mixer

    keras.config.set_dtype_policy("float32")
    model = make(case)
    # A Mixer begins with a head of zeros, which a converter would leave out.
    for variable in model.get_layer("predictions").weights:
        variable.assign(keras.random.normal(variable.shape))
    keras_mixer.export(model, path)
