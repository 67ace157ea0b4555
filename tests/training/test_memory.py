"""Rematerialisation: the same training, and activations that are freed."""

import gc
import weakref

import keras
import numpy as np
import pytest

from support.helpers import CLASSES
from support.helpers import FAMILIES
from support.helpers import compile_model
from support.helpers import family_model
from support.helpers import randomise

pytestmark = pytest.mark.backends

needs_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="only PyTorch computes without a graph",
)


@pytest.mark.parametrize("family", FAMILIES)
def test_rematerialised_steps_of_sgd_are_the_same(family, images):
    """Adam would amplify differences between small gradients."""
    results = []
    for mode in (None, "full"):
        with keras.RematScope(mode):
            model = family_model(family)
        randomise(model)
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
        compile_model(model, optimizer, "sparse_categorical_crossentropy")
        labels = np.arange(len(images)) % CLASSES
        losses = [float(model.train_on_batch(images, labels)) for _ in range(4)]
        results.append((losses, model.get_weights()))
    (losses, weights), (remat_losses, remat_weights) = results
    assert losses[-1] < 0.95 * losses[0]
    np.testing.assert_allclose(remat_losses, losses, rtol=0, atol=1e-5)
    for received, expected in zip(remat_weights, weights, strict=True):
        np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5)


class Activation:
    """An activation that knows which of its outputs are still in memory."""

    def __init__(self):
        self.outputs = []

    def __call__(self, x):
        y = keras.ops.sin(x)
        self.outputs.append(weakref.ref(y))
        return y

    def kept_by(self, model, inputs):
        """Counts the outputs that are kept after a forward and backward pass.

        Python does not look for unused objects that refer to each other.
        """
        model(inputs)  # built
        self.outputs.clear()
        gc.collect()
        gc.disable()
        try:
            model(inputs, training=True).sum().backward()
            return sum(each() is not None for each in self.outputs)
        finally:
            gc.enable()


@needs_torch
def test_recomputed_activations_are_freed(images):
    activation = Activation()
    with keras.RematScope("full"):
        model = family_model("mixer", activation=activation)
    images = keras.ops.convert_to_tensor(images, "float32")
    assert activation.kept_by(model, images) == 0
    assert len(activation.outputs) == 8  # twice for each of four MLPs
    assert keras.config.is_traceback_filtering_enabled()


class Plain(keras.Layer):
    """A layer made of layers, without the workaround in `Composite`."""

    def __init__(self, activation):
        super().__init__()
        with keras.RematScope(None):
            self.first = keras.layers.Dense(5, activation=activation)
            self.last = keras.layers.Dense(3)

    def build(self, shape):
        self.first.build(shape)
        self.last.build((*shape[:-1], 5))

    def call(self, inputs):
        return self.last(self.first(inputs))


@needs_torch
def test_keras_keeps_recomputed_activations():
    """If this fails, remove the workaround: see docs/workarounds.md."""
    activation = Activation()
    with keras.RematScope("full"):
        layer = Plain(activation)
    assert activation.kept_by(layer, keras.ops.ones((2, 4))) == 1
