"""Which settings of a model are kept by saving, cloning, resizing and fusing.

docs/state.md is the table of these results.
"""

import copy

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.models.anatomy import weights_of
from keras_mixer.weights import loading
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import call
from support.helpers import family_model
from support.helpers import randomise

LARGER = (8, 24, 3)  # twice as wide


def saved(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def cloned(model, folder):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def resized(model, folder):
    return keras_mixer.resize(model, LARGER, method="interpolate")


def new_head(model, folder):
    return keras_mixer.new_head(model, 2, name="other")


OPERATIONS = {
    "save": saved,
    "clone": cloned,
    "copy": lambda model, folder: copy.deepcopy(model),
    "resize": resized,
    "fuse": lambda model, folder: keras_mixer.fuse(model),
    "new head": new_head,
}

every_operation = pytest.mark.parametrize("operation", OPERATIONS)
# Operations that also keep settings without effect on inference.
for_training = pytest.mark.parametrize(
    "operation", [o for o in OPERATIONS if o != "fuse"]
)
every_family = pytest.mark.parametrize("family", FAMILIES)


def trainable_paths(model):
    return {
        path
        for path, variable in loading.variables_of(model.layers).items()
        if variable.trainable and not path.startswith(("predictions", "other"))
    }


@every_family
@every_operation
def test_frozen_layers_stay_frozen(family, operation, tmp_path):
    model = family_model(family)
    for layer in model.layers:
        layer.trainable = layer.name == "block_1"
    assert trainable_paths(model)
    result = OPERATIONS[operation](model, tmp_path)
    paths = trainable_paths(result)
    assert {path.partition("/")[0] for path in paths} == {"block_1"}
    flags = {layer.name: layer.trainable for layer in result.layers}
    assert flags["block_1"]
    assert not flags["block_0"]
    if operation not in ("fuse", "resize"):
        assert paths == trainable_paths(model)


@every_family
@every_operation
def test_frozen_sublayers_stay_frozen(family, operation, tmp_path):
    model = family_model(family)
    frozen = model.get_layer("block_0")
    frozen.token_mixing.trainable = False
    frozen.channel_mixing.dense_1.trainable = False
    other = model.get_layer("block_1")
    other.trainable = False
    other.channel_mixing.dense_0.trainable = True
    result = OPERATIONS[operation](model, tmp_path)
    paths = trainable_paths(result)
    assert {path for path in paths if path.startswith("block_1")} == {
        "block_1/channel_mixing/dense_0/kernel",
        "block_1/channel_mixing/dense_0/bias",
    }
    inside = {p for p in paths if p.startswith("block_0/")}
    assert not any("token_mixing" in path for path in inside)
    assert not any("channel_mixing/dense_1" in path for path in inside)
    assert "block_0/channel_mixing/dense_0/kernel" in inside
    assert trainable_paths(saved(result, tmp_path)) == paths


@pytest.mark.backends
@every_family
def test_training_does_not_change_a_loaded_frozen_backbone(family, tmp_path):
    backbone = family_model(family, include_top=False, pooling="avg")
    backbone.trainable = False
    model = keras.Sequential([backbone, keras.layers.Dense(5, name="head")])
    model = saved(model, tmp_path)
    assert [v.path.split("/")[-2] for v in model.trainable_weights] == [
        "head"
    ] * 2
    before = model.layers[0].get_weights()
    head = model.layers[1].get_weights()
    model.compile("sgd", "sparse_categorical_crossentropy")
    images = np.random.default_rng(0).uniform(0, 255, (13, *IMAGE))
    model.fit(images, np.arange(13) % 5, verbose=0)
    for old, new in zip(before, model.layers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert any(
        (a != b).any()
        for a, b in zip(head, model.layers[1].get_weights(), strict=True)
    )


@every_operation
def test_a_frozen_model_stays_frozen(operation, tmp_path):
    model = family_model("mixer")
    model.trainable = False
    result = OPERATIONS[operation](model, tmp_path)
    if operation not in ("clone", "new head"):  # Keras makes a new model
        assert not result.trainable
    assert trainable_paths(result) == set()


@for_training
def test_regularizers_of_layers_inside_are_kept(operation, tmp_path):
    model = family_model("mixer")
    mixing = model.get_layer("block_1").channel_mixing
    mixing.dense_0.kernel_regularizer = keras.regularizers.L2(0.25)
    mixing.dense_1.bias_constraint = keras.constraints.MaxNorm(3.0)
    model.get_layer(
        "block_0"
    ).token_norm.activity_regularizer = keras.regularizers.L1(0.5)
    result = OPERATIONS[operation](model, tmp_path)
    mixing = result.get_layer("block_1").channel_mixing
    assert mixing.dense_0.kernel_regularizer.l2 == 0.25
    assert mixing.dense_1.bias_constraint.max_value == 3.0
    norm = result.get_layer("block_0").token_norm
    assert norm.activity_regularizer.l1 == 0.5
    if operation != "new head":  # the same layer, which was built before
        kernel = mixing.dense_0.kernel
        assert kernel.regularizer.l2 == 0.25


def with_own_activations(family):
    model = family_model(family)
    randomise(model)
    block, other = model.get_layer("block_0"), model.get_layer("block_1")
    block.channel_mixing.activation = keras.activations.relu
    block.channel_mixing.dense_1.activation = keras.activations.tanh
    mixing = other.token_mixing
    dense = mixing.dense_0 if family == "mixer" else mixing.dense
    dense.activation = keras.activations.softsign
    return model


@every_family
@pytest.mark.parametrize(
    "operation", [o for o in OPERATIONS if o != "new head"]
)
def test_activations_of_layers_inside_are_kept(family, operation, tmp_path):
    model = with_own_activations(family)
    result = OPERATIONS[operation](model, tmp_path)
    if operation == "resize":  # to the same size, which computes the same
        result = keras_mixer.resize(model, IMAGE)
    images = np.random.default_rng(0).uniform(0, 255, (13, *IMAGE))
    np.testing.assert_allclose(
        call(result, images), call(model, images), rtol=0, atol=1e-5
    )


def test_resizing_keeps_options_of_variables():
    model = family_model("resmlp")
    dense = model.get_layer("block_0").channel_mixing.dense_0
    dense.kernel.regularizer = keras.regularizers.L2(0.25)
    dense.kernel.constraint = keras.constraints.NonNeg()
    dense.bias.trainable = False
    result = keras_mixer.resize(model, LARGER)
    dense = result.get_layer("block_0").channel_mixing.dense_0
    assert dense.kernel.regularizer.l2 == 0.25
    assert isinstance(dense.kernel.constraint, keras.constraints.NonNeg)
    assert dense.kernel.trainable
    assert not dense.bias.trainable


@every_operation
def test_dtypes_and_names_are_kept(operation, tmp_path):
    with_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = family_model("resmlp", name="of_mine")
    finally:
        keras.config.set_dtype_policy(with_policy)
    result = OPERATIONS[operation](model, tmp_path)
    assert result.get_layer("stem").dtype_policy.name == "mixed_bfloat16"
    block = result.get_layer("block_1")
    assert block.dtype_policy.name == "mixed_bfloat16"
    assert block.channel_mixing.dense_0.dtype_policy.name == "mixed_bfloat16"
    if operation != "new head":
        assert result.name == "of_mine"


def with_lora(family):
    """Returns a model whose predictions depend on LoRA."""
    model = family_model(family)
    randomise(model)
    rng = np.random.default_rng(3)
    for layer in (
        model.get_layer("block_0").channel_mixing.dense_0,
        model.get_layer("block_1").channel_mixing.dense_1,
        model.get_layer("predictions"),
    ):
        layer.enable_lora(3)
        shape = tuple(layer.lora_kernel_b.shape)
        layer.lora_kernel_b.assign(rng.standard_normal(shape))
    return model


@pytest.mark.backends
@every_family
@every_operation
def test_lora_is_kept(family, operation, tmp_path):
    model = with_lora(family)
    images = np.random.default_rng(0).uniform(0, 255, (13, *IMAGE))
    result = OPERATIONS[operation](model, tmp_path)
    dense = result.get_layer("block_0").channel_mixing.dense_0
    assert dense.lora_enabled == (operation != "fuse")
    if operation != "fuse":
        assert not dense._kernel.trainable
        assert dense.lora_kernel_a.trainable
        assert dense.lora_rank == 3
    if operation == "resize":
        merged = weights_of(model)["block_0/channel_mixing/dense_0/kernel"]
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(dense.kernel), merged, atol=1e-6
        )
    elif operation != "new head":
        np.testing.assert_allclose(
            call(result, images),
            call(model, images),
            rtol=0,
            atol=1e-5,
        )


def test_lora_is_merged_into_exported_weights(tmp_path):
    model = with_lora("mixer")
    images = np.random.default_rng(0).uniform(0, 255, (13, *IMAGE))
    expected = call(model, images)
    keras_mixer.export_weights(model, tmp_path / "merged.npz")
    again = family_model("mixer", weights=tmp_path / "merged.npz")
    np.testing.assert_allclose(call(again, images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("operation", ["save", "clone", "copy", "new head"])
def test_quantization_is_kept(operation, tmp_path):
    model = family_model("mixer")
    model.get_layer("block_0").channel_mixing.dense_0.quantize("int8")
    result = OPERATIONS[operation](model, tmp_path)
    mixing = result.get_layer("block_0").channel_mixing
    assert mixing.dense_0.quantization_mode == "int8"
    assert mixing.dense_1.quantization_mode is None


@every_operation
def test_only_saving_and_copying_keep_compile(operation, tmp_path):
    model = family_model("mixer")
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    result = OPERATIONS[operation](model, tmp_path)
    assert result.compiled == (operation in ("save", "clone", "copy"))


@pytest.mark.backends
def test_optimizer_state_of_a_frozen_model_is_loaded(tmp_path):
    model = family_model("mixer")
    for layer in model.layers:
        layer.trainable = layer.name == "predictions"
    model.compile(keras.optimizers.Adam(0.1), "sparse_categorical_crossentropy")
    images = np.random.default_rng(0).uniform(0, 255, (13, *IMAGE))
    model.fit(images, np.arange(13) % 5, epochs=2, verbose=0)
    expected = [v.numpy() for v in model.optimizer.variables]
    received = [v.numpy() for v in saved(model, tmp_path).optimizer.variables]
    for array, array_expected in zip(received, expected, strict=True):
        np.testing.assert_array_equal(array, array_expected)


def test_layers_that_process_tokens_separately_pass_masks_on():
    tokens = np.arange(2 * 6 * 5, dtype="float32").reshape(2, 6, 5)
    tokens[:, 4:] = 0
    masked = keras.layers.Masking()(tokens)
    for layer in (
        keras_mixer.ChannelMixing(7),
        keras_mixer.Affine(),
        keras_mixer.LayerScale(0.1),
        keras_mixer.StochasticDepth(0.5),
    ):
        mask = keras.ops.convert_to_numpy(layer(masked)._keras_mask)
        np.testing.assert_array_equal(mask, [[1, 1, 1, 1, 0, 0]] * 2)
    # Token mixing does not support masks: Keras warns.
    for layer in (keras_mixer.TokenMixing(7), keras_mixer.TokenLinear()):
        with pytest.warns(UserWarning, match="does not support masking"):
            layer(masked)
