"""Calling and training a Keras model on JAX."""

import jax

from benchmarks.peers import inputs


def device():
    (first, *_) = jax.devices()
    return f"{first.device_kind} ({first.platform})"


def gpu_memory():
    if inputs.device() != "gpu":
        return None
    return jax.devices()[0].memory_stats()["peak_bytes_in_use"]


def release():
    jax.clear_caches()


def constant(array):
    return jax.device_put(array)


def repeated(call):
    """Returns a function that makes a number of calls and waits for them."""

    def run(count):
        for _ in range(count):
            outputs = call()
        jax.block_until_ready(outputs)

    return run


def caller(form, model, images):
    if form == "eager":
        return repeated(lambda: model(images, training=False))
    if form != "xla":
        raise ValueError(f"JAX has no '{form}'")
    state = values(model)
    function = jax.jit(
        lambda state, x: model.stateless_call(*state, x, training=False)[0]
    )
    return repeated(lambda: function(state, images))


def values(model):
    return (
        [v.value for v in model.trainable_variables],
        [v.value for v in model.non_trainable_variables],
    )


def trainer(kind, model, optimizer, loss, images, labels):
    optimizer.build(model.trainable_variables)

    def compute_loss(trainable, others, images, labels):
        logits, others = model.stateless_call(
            trainable, others, images, training=True
        )
        return loss(labels, logits), others

    def step(state, images, labels):
        trainable, others, slots = state
        (value, others), gradients = jax.value_and_grad(
            compute_loss, has_aux=True
        )(trainable, others, images, labels)
        trainable, slots = optimizer.stateless_apply(
            slots, gradients, trainable
        )
        return (trainable, others, slots), value

    # The first step would delete the arrays of the model otherwise.
    copied = jax.tree.map(
        lambda x: x.copy(),
        (*values(model), [v.value for v in optimizer.variables]),
    )
    return trained(step, copied, images, labels)


def trained(step, state, images, labels):
    """Returns a function that makes a number of compiled steps.

    Args:
        step: Function of the state, the images and the labels that returns the
            next state and the loss.
        state: The first state. Its memory is reused.
        images: Array of images.
        labels: Array of the numbers of classes.
    """
    compiled = jax.jit(step, donate_argnums=0)
    kept = [state]

    def once():
        kept[0], value = compiled(kept[0], images, labels)
        return kept[0], value

    return repeated(once)


def product(x, kernel):
    function = jax.jit(lambda x, kernel: x @ kernel)
    return repeated(lambda: function(x, kernel))
