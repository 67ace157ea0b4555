"""Calling and training a Keras model on TensorFlow."""

import tensorflow as tf

from benchmarks.peers import inputs


def device():
    if inputs.device() == "gpu":
        (first, *_) = tf.config.list_physical_devices("GPU")
        details = tf.config.experimental.get_device_details(first)
        return details.get("device_name", first.name)
    return "CPU"


def gpu_memory():
    if inputs.device() != "gpu":
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def release():
    pass


def constant(array):
    return tf.constant(array)


def repeated(call):
    """Returns a function that makes a number of calls and waits for them."""

    def run(count):
        for _ in range(count):
            output = call()
        output.numpy()

    return run


def caller(form, model, images):
    def call(x):
        return model(x, training=False)

    if form in ("graph", "xla"):
        call = tf.function(call, jit_compile=form == "xla")
    elif form != "eager":
        raise ValueError(f"TensorFlow has no '{form}'")
    return repeated(lambda: call(images))


def trainer(kind, model, optimizer, loss, images, labels):
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function(jit_compile=kind == "xla")
    def step(images, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        gradients = tape.gradient(value, [v.value for v in variables])
        optimizer.apply(gradients, variables)
        return value

    return repeated(lambda: step(images, labels))


def product(x, kernel):
    function = tf.function(tf.matmul)
    # One number: the whole product is not copied to NumPy.
    return repeated(lambda: function(x, kernel)[0, 0])
