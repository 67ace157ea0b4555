"""PyTorch's direct forms of the inner layers and of the stem.

Each is compared with the call of Keras's layer, which a hook brings about.
"""

import contextlib
import types

import keras
import numpy as np
import pytest
import torch

import keras_mixer
from keras_mixer.layers import direct
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import family_model
from support.helpers import randomise

on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="PyTorch only"
)


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0, 255, (4, *IMAGE))


def inner_layers(model):
    """All layers except for those that contain others."""
    layers = model._flatten_layers()
    return [each for each in layers if not list(each._flatten_layers())[1:]]


@contextlib.contextmanager
def calls(model):
    """A context in which each layer of Keras is called, because of a hook."""
    hooks = [
        layer.register_forward_hook(lambda *_: None)
        for layer in inner_layers(model)
    ]
    yield
    for hook in hooks:
        hook.remove()


def outputs_and_gradients(model, images):
    model.zero_grad()
    outputs = model(keras.ops.convert_to_tensor(images, "float32"))
    (outputs.float() ** 2).sum().backward()
    gradients = [v.value.grad.float() for v in model.trainable_variables]
    return [outputs.detach().float().numpy(), *map(np.asarray, gradients)]


def with_lora(model):
    for layer in inner_layers(model):
        if isinstance(layer, keras.layers.Dense):
            layer.enable_lora(2)
            layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    return model


@on_torch
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("change", [None, keras_mixer.fuse, with_lora])
def test_direct_forms_equal_the_calls(family, change, images):
    model = family_model(family)
    randomise(model)
    model = model if change is None else change(model)
    received = outputs_and_gradients(model, images)
    with calls(model):
        expected = outputs_and_gradients(model, images)
    for one, other in zip(received, expected, strict=True):
        # The gradient of a bias before a norm is zero.
        atol = 1e-5 * np.abs(other).max() + 1e-7
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


@on_torch
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float16"])
def test_direct_forms_keep_dtypes(family, policy, images):
    keras.config.set_dtype_policy(policy)
    try:
        model = family_model(family, include_top=False)
    finally:
        keras.config.set_dtype_policy("float32")
    randomise(model)
    images = keras.ops.convert_to_tensor(images, "float32")
    received = model(images)
    assert str(received.dtype) == f"torch.{policy.removeprefix('mixed_')}"
    with calls(model):
        expected = model(images)
    received, expected = (
        keras.ops.convert_to_numpy(keras.ops.cast(each, "float32"))
        for each in (received, expected)
    )
    np.testing.assert_allclose(
        received, expected, rtol=0, atol=0.05 * np.abs(expected).max()
    )


@on_torch
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_slow_dtypes_are_multiplied_in_float32(dtype, use_bias, monkeypatch):
    products = torch.bmm, torch.baddbmm, torch.nn.functional.linear
    used = []

    class Recorder(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, _, args=(), kwargs=None):
            if function in products:
                used.append({each.dtype for each in args if each is not None})
            return function(*args, **(kwargs or {}))

    dtype = getattr(torch, dtype)
    monkeypatch.setattr(direct, "_SLOW_DTYPES", [dtype])
    x, kernel, bias = torch.randn(2, 3, 5), torch.randn(5, 7), torch.randn(7)
    layer = types.SimpleNamespace(
        kernel=kernel.to(dtype), bias=bias.to(dtype) if use_bias else None
    )
    x = x.to(dtype)
    expected = x.float() @ layer.kernel.float()
    if use_bias:
        expected += layer.bias.float()
    with Recorder():
        outputs = direct.dense(layer, x), direct.dense_over_tokens(layer, x.mT)
    assert used == [{torch.float32}] * 2
    for received in (outputs[0], outputs[1].mT):
        torch.testing.assert_close(received, expected.to(dtype))


class Halved(keras.layers.Dense):
    def call(self, inputs, training=None):
        return super().call(inputs) / 2


class HalvedNorm(keras.layers.LayerNormalization):
    def call(self, inputs):
        return super().call(inputs) / 2


def built(layer, like):
    """The layer, with the weights of another."""
    layer.build((None, like.weights[0].shape[0]))
    layer.set_weights(like.get_weights())
    return layer


def patched(layer):
    """The layer with a call of its own, which halves its outputs."""
    call = layer.call
    layer.call = lambda *args, **options: call(*args, **options) / 2
    return layer


def with_activation(layer):
    layer.activation = keras.activations.tanh
    return layer


def replaced(block, name, layer):
    owner, _, name = name.rpartition(".")
    owner = getattr(block, owner) if owner else block
    owner._tracker.unlock()  # Keras locks a layer after it was built
    setattr(owner, name, layer)
    owner._tracker.lock()


# `{what: function that changes the stem or a layer inside the first block}`.
CHANGES = {
    "activation": lambda stem, block: with_activation(
        block.channel_mixing.dense_1
    ),
    "activation over tokens": lambda stem, block: with_activation(
        block.token_mixing.dense_0
    ),
    "activation of the stem": lambda stem, block: with_activation(stem),
    "call": lambda stem, block: patched(block.channel_mixing.dense_0),
    "call of a norm": lambda stem, block: patched(block.token_norm),
    "call of a dropout": lambda stem, block: patched(
        block.token_mixing.dropout
    ),
    "call of a mixing": lambda stem, block: patched(block.channel_mixing),
    "subclass": lambda stem, block: replaced(
        block,
        "token_mixing.dense_1",
        built(Halved(6), block.token_mixing.dense_1),
    ),
    "subclass of a norm": lambda stem, block: replaced(
        block,
        "channel_norm",
        built(HalvedNorm(epsilon=1e-6), block.channel_norm),
    ),
    "another norm": lambda stem, block: replaced(
        block, "channel_norm", built_batch_norm()
    ),
}


def built_batch_norm():
    layer = keras.layers.BatchNormalization(momentum=0.0)
    layer.build((None, 6, 10))
    return layer


@on_torch
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_layer_is_called(change, images):
    model = family_model("mixer")
    randomise(model)
    before = outputs_and_gradients(model, images)[0]
    CHANGES[change](model.get_layer("stem"), model.get_layer("block_0"))
    training = change == "another norm"
    received = model(images, training=training).detach().numpy()
    with calls(model):
        expected = model(images, training=training).detach().numpy()
    assert np.abs(received - before).max() > 1e-3
    np.testing.assert_allclose(received, expected, atol=1e-5)


@on_torch
def test_calls_happen_when_a_layer_does_more(images):
    model = family_model("mixer")
    block = model.get_layer("block_0")
    dense, norm = block.channel_mixing.dense_1, block.token_norm
    x = keras.ops.ones((2, 6, 10))
    assert direct.are_direct(block, x, dense, norm, block.token_mixing)
    seen = []
    hook = dense.register_forward_hook(lambda *_: seen.append("dense"))
    model(images)
    assert seen == ["dense"]
    hook.remove()
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda layer, *_: seen.append(layer.name)
    )
    model(images)
    hook.remove()
    names = {layer.name for layer in inner_layers(model)}
    assert names - {"image", "dropout", "stochastic_depth"} <= {*seen}
    assert direct.are_dense(block, x, dense)
    dense.activity_regularizer = keras.regularizers.L2(1.0)
    assert not direct.are_dense(block, x, dense)
    dense.activity_regularizer = None
    dense.quantize("int8")
    assert not direct.are_dense(block, x, dense)
    norm.dtype_policy = keras.DTypePolicy("float64")
    assert not direct.are_direct(block, x, norm)


@pytest.mark.backends
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="not PyTorch")
def test_layers_are_called_on_other_backends():
    block = family_model("mixer").get_layer("block_0")
    x = keras.ops.ones((2, 6, 10))
    assert not direct.are_direct(block, x, block.token_norm)
