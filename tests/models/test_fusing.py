"""Fused models: the same predictions with fewer operations."""

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.layers.affine import Affine
from keras_mixer.layers.affine import LayerScale
from keras_mixer.layers.mixer import FusedMixerBlock
from keras_mixer.layers.resmlp import FusedResMLPBlock
from keras_mixer.layers.resmlp import TokenLinear
from keras_mixer.models.anatomy import weights_of
from support import oracle
from support.helpers import CLASSES
from support.helpers import FAMILIES
from support.helpers import GOLDEN
from support.helpers import IMAGE
from support.helpers import SIZES
from support.helpers import family_model
from support.helpers import randomise

BACKEND = keras.backend.backend()


def relative_difference(received, expected):
    return np.abs(received - expected).max() / np.abs(expected).max()


def outputs(model, images):
    """Calls the model. `predict` would compile it, which is slow."""
    images = keras.ops.convert_to_tensor(images, model.input.dtype)
    return keras.tree.map_structure(
        keras.ops.convert_to_numpy, model(images, training=False)
    )


def check_same(model, fused, images, tolerance=1e-5):
    expected = outputs(model, images)
    received = outputs(fused, images)
    assert received.shape == expected.shape
    assert relative_difference(received, expected) < tolerance


OPTIONS = {
    "logits": {"classifier_activation": None},
    "probabilities": {},
    "tokens": {"include_top": False},
    "mean": {"include_top": False, "pooling": "avg"},
    "maximum": {"include_top": False, "pooling": "max"},
    "scaled": {"include_preprocessing": False},
    "grey": {"input_shape": (8, 12, 1)},
    "four channels": {"input_shape": (8, 12, 4)},
    "random": {"dropout_rate": 0.1, "stochastic_depth_rate": 0.1},
    "another activation": {"activation": "silu"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("family", FAMILIES)
def test_fused_model_predicts_the_same(family, options, images):
    model = family_model(family, **options)
    randomise(model)
    channels = model.input_shape[-1]
    images = np.concatenate([images, images[..., ::-1]], -1)[..., :channels]
    check_same(model, keras_mixer.fuse(model), images)


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    yield
    keras.config.set_dtype_policy("float32")
    if BACKEND == "jax":
        jax.config.update("jax_enable_x64", False)


def bare_norm(x, weights, name):
    identity = {f"{name}/gamma": 1.0, f"{name}/beta": 0.0}
    return oracle.layer_norm(x, identity, name)


def fused_mixer_block(x, weights, name, gelu):
    y = oracle.layer_norm(x, weights, f"{name}/token_norm")
    x = x + oracle.token_mixing(y, weights, f"{name}/token_mixing", gelu)
    y = bare_norm(x, weights, f"{name}/channel_norm")
    mixing = f"{name}/channel_mixing"
    return x + oracle.channel_mixing(y, weights, mixing, gelu)


def fused_resmlp_block(x, weights, name, gelu):
    matrix = weights[f"{name}/token_mixing/dense/kernel"].T
    scale = weights[f"{name}/token_scale/gamma"]
    offset = weights[f"{name}/token_offset/offset"]
    x = x + scale * np.stack([matrix @ sample for sample in x]) + offset
    mixing = f"{name}/channel_mixing"
    return x + oracle.channel_mixing(x, weights, mixing, gelu)


def nothing(x, weights, name):
    return x


FUSED_ORACLES = {
    "mixer": (fused_mixer_block, bare_norm, oracle.gelu_tanh),
    "resmlp": (fused_resmlp_block, nothing, oracle.gelu_exact),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_folding_is_exact(float64, family, images):
    """In NumPy: Keras does not compute all float64 products in float64."""
    model = family_model(family)
    arrays = {k: v.astype("float64") for k, v in randomise(model).items()}
    fused = weights_of(keras_mixer.fuse(model))
    assert {array.dtype for array in fused.values()} == {np.dtype("float64")}
    patch = SIZES["patch_size"]
    expected = getattr(oracle, family)(images, arrays, patch)
    received = oracle.network(images, fused, patch, *FUSED_ORACLES[family])
    for stage in ("block_0", "block_1", "predictions"):
        difference = relative_difference(received[stage], expected[stage])
        assert difference < 1e-12, stage


@pytest.mark.backends
@pytest.mark.parametrize("family", FAMILIES)
def test_all_foldable_layers_are_folded(family):
    fused = keras_mixer.fuse(family_model(family))
    block = {"mixer": FusedMixerBlock, "resmlp": FusedResMLPBlock}[family]
    assert type(fused.get_layer("block_0")) is block
    names = [layer.name for layer in fused.layers]
    norm = ["norm"] if family == "mixer" else []
    assert names == (
        ["image", "stem", "tokens", "block_0", "block_1"]
        + [*norm, "avg_pool", "predictions"]
    )
    scales = [
        layer.name
        for layer in fused._flatten_layers()
        if isinstance(layer, (Affine, LayerScale))
    ]
    assert scales == ([] if family == "mixer" else ["token_scale"] * 2)
    assert (
        fused.count_params()
        == {
            # Each of two blocks and the last norm lose 10 scales and offsets.
            "mixer": family_model(family).count_params() - 2 * 20 - 20,
            # Per block three scales less and two offsets; 6 x 10 offsets for
            # the bias of 6 tokens.
            "resmlp": family_model(family).count_params()
            - 2 * (50 + 6 - 60)
            - 20,
        }[family]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_fusing_does_not_change_the_original(family, images):
    model = family_model(family)
    arrays = {path: array.copy() for path, array in randomise(model).items()}
    expected = outputs(model, images)
    fused = keras_mixer.fuse(model)
    for variable in fused.weights:
        variable.assign(np.zeros(variable.shape))
    for path, array in weights_of(model).items():
        np.testing.assert_array_equal(array, arrays[path], err_msg=path)
    np.testing.assert_array_equal(outputs(model, images), expected)


@pytest.mark.backends
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_fused_model_predicts_the_same(family, images, tmp_path):
    model = family_model(family)
    randomise(model)
    fused = keras_mixer.fuse(model)
    expected = outputs(fused, images)
    fused.save(tmp_path / "fused.keras")
    fused.save_weights(tmp_path / "fused.weights.h5")
    other = keras_mixer.fuse(family_model(family))
    other.load_weights(tmp_path / "fused.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "fused.keras")
    for same in (other, loaded):
        np.testing.assert_array_equal(outputs(same, images), expected)
    assert keras_mixer.fuse(loaded) is loaded
    assert keras_mixer.fuse(fused) is fused


# Keras's use of jax2tf.
@pytest.mark.backends
@pytest.mark.filterwarnings("ignore:The `native_ser:DeprecationWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_exported_fused_model_predicts_the_same(family, images, tmp_path):
    model = family_model(family)
    randomise(model)
    fused = keras_mixer.fuse(model)
    images = images.astype("float32")
    expected = outputs(model, images)
    if BACKEND == "torch":
        import torch

        program = torch.export.export(fused, (torch.from_numpy(images),))
        received = program.module()(torch.from_numpy(images)).detach().numpy()
    else:
        tf = pytest.importorskip("tensorflow", reason="it serves models")
        fused.export(tmp_path / "served", verbose=False)
        served = tf.saved_model.load(tmp_path / "served")
        received = served.serve(images)
    assert relative_difference(np.asarray(received), expected) < 1e-5


@pytest.mark.parametrize("method", ["tile", "interpolate"])
@pytest.mark.parametrize("family", FAMILIES)
def test_resized_model_can_be_fused(family, method, images):
    model = family_model(family)
    randomise(model)
    large = keras_mixer.resize(model, (16, 24, 3), method)
    fused = keras_mixer.fuse(large)
    norms = [x for x in fused.layers if x.name == "norm" and x.weights]
    assert norms == []
    check_same(large, fused, np.tile(images, (1, 2, 2, 1)))


@pytest.mark.parametrize("family", FAMILIES)
def test_pixel_scaling_is_not_folded_under_bfloat16(family, images):
    """The scaling of pixels needs 32 bits."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = family_model(family)
    finally:
        keras.config.set_dtype_policy("float32")
    randomise(model)
    fused = keras_mixer.fuse(model)
    assert fused.get_layer("preprocessing").compute_dtype == "float32"
    assert fused.get_layer("block_0").compute_dtype == "bfloat16"
    check_same(model, fused, images, 0.02)


def test_channels_first_model_can_be_fused(tiny, images, request):
    keras.config.set_image_data_format("channels_first")
    request.addfinalizer(
        lambda: keras.config.set_image_data_format("channels_last")
    )
    model = tiny(input_shape=(3, 8, 12))
    randomise(model)
    fused = keras_mixer.fuse(model)
    assert "preprocessing" not in [layer.name for layer in fused.layers]
    check_same(model, fused, images.transpose(0, 3, 1, 2))


def heads(tokens):
    """Yields a name, an output, and whether the norm folds into the head."""
    layers = keras.layers
    mean = layers.GlobalAveragePooling1D()
    yield "head", layers.Dense(4, name="head")(mean(tokens)), True
    dropped = layers.Dropout(0.2)(layers.GlobalAveragePooling1D()(tokens))
    yield "dropout", layers.Dense(4)(dropped), True
    yield "per token", layers.Dense(4)(tokens), True
    yield "no bias", layers.Dense(4, use_bias=False)(mean(tokens)), False
    yield "max", layers.Dense(4)(layers.GlobalMaxPooling1D()(tokens)), False
    first = layers.GlobalAveragePooling1D(data_format="channels_first")
    yield "over channels", layers.Dense(4)(first(tokens)), False
    twice = layers.Dense(10)
    yield "twice", twice(layers.Activation("tanh")(twice(tokens))), False
    both = [layers.Dense(4)(tokens), layers.Dense(3)(tokens)]
    yield "two", layers.Concatenate()(both), False
    adapted = layers.Dense(4)
    adapted.build((None, 10))
    adapted.enable_lora(2)
    yield "lora", adapted(mean(tokens)), True


@pytest.mark.parametrize("index", range(9))
@pytest.mark.parametrize("family", FAMILIES)
def test_norm_is_folded_into_suitable_heads_only(family, index, images):
    backbone = family_model(family, include_top=False)
    _, output, is_folded = list(heads(backbone.output))[index]
    model = keras.Model(backbone.input, output)
    randomise(model)
    fused = keras_mixer.fuse(model)
    weights = [
        weight
        for layer in fused.layers
        if layer.name == "norm"
        for weight in layer.weights
    ]
    assert len(weights) == (0 if is_folded else 2)
    check_same(model, fused, images)


def own_model(front, stem, **norm):
    """A model of the public blocks with an own stem."""
    image = keras.Input((8, 12, 2))
    x = keras.layers.Reshape((-1, 10), name="tokens")(stem(front(image)))
    x = keras_mixer.MixerBlock(7, 11, name="block_0")(x)
    x = keras.layers.LayerNormalization(name="norm", **norm)(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(image, keras.layers.Dense(5)(x))


def stem(name="stem", **options):
    return keras.layers.Conv2D(
        10, **{"kernel_size": 4, "strides": 4, **options}, name=name
    )


def rescaling(**options):
    options = {"scale": [0.01, 0.02], "offset": [-0.3, 0.4], **options}
    return keras.layers.Rescaling(**options, name="preprocessing")


def normalization(**options):
    options = {"mean": [90, 130], "variance": [2000, 4000], **options}
    return keras.layers.Normalization(**options, name="preprocessing")


def adapted():
    layer = keras.layers.Normalization()
    layer.adapt(np.arange(3 * 8 * 12 * 2).reshape(3, 8, 12, 2) / 10)
    return layer


class Halved(keras.layers.Rescaling):
    def call(self, inputs):
        return super().call(inputs) / 2


# A layer in front of the stem, the stem, and whether they become one layer.
STEMS = {
    "renamed": (rescaling, stem("patches"), True),
    "each channel": (rescaling, stem(), True),
    "activation": (rescaling, stem(activation="relu"), True),
    "overlapping": (rescaling, stem(kernel_size=6, strides=2), True),
    "padding": (rescaling, stem(kernel_size=7, padding="same"), False),
    "no bias": (rescaling, stem(use_bias=False), False),
    "groups": (rescaling, stem(groups=2), False),
    "separable": (
        rescaling,
        keras.layers.SeparableConv2D(10, 4, 4, name="stem"),
        False,
    ),
    "mean": (normalization, stem(), True),
    "inverted": (lambda: normalization(invert=True), stem(), True),
    "one mean": (
        lambda: normalization(axis=None, mean=90, variance=2000),
        stem(),
        True,
    ),
    "adapted": (adapted, stem(), True),
    "for each column": (
        lambda: normalization(axis=2, mean=[90] * 12, variance=[2000] * 12),
        stem(),
        False,
    ),
    "subclass": (lambda: Halved(0.01, name="preprocessing"), stem(), False),
}


@pytest.mark.parametrize(
    ("front", "stem", "is_folded"), STEMS.values(), ids=STEMS.keys()
)
def test_scaling_is_folded_into_suitable_stems_only(
    front, stem, is_folded, images
):
    stem = type(stem).from_config(stem.get_config())
    model = own_model(front(), stem)
    randomise(model)
    fused = keras_mixer.fuse(model)
    assert len(model.layers) - len(fused.layers) == is_folded
    check_same(model, fused, images[..., :2])


@pytest.mark.parametrize("option", ["scale", "center"])
def test_norm_without_scale_or_offset_is_not_folded(option, images):
    model = own_model(rescaling(), stem(), **{option: False})
    randomise(model)
    fused = keras_mixer.fuse(model)
    assert len(fused.get_layer("norm").weights) == 1
    check_same(model, fused, images[..., :2])


class DoubledBlock(keras_mixer.MixerBlock):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


def test_own_subclass_of_a_block_is_not_fused(images):
    image = keras.Input((8, 12, 2))
    x = keras.layers.Reshape((-1, 10))(stem()(image))
    x = DoubledBlock(7, 11, name="block_0")(x)
    model = keras.Model(image, keras_mixer.MixerBlock(9, 3, name="block_1")(x))
    randomise(model)
    fused = keras_mixer.fuse(model)
    assert type(fused.get_layer("block_0")) is DoubledBlock
    assert type(fused.get_layer("block_1")) is FusedMixerBlock
    check_same(model, fused, images[..., :2])


def test_norm_is_not_folded_if_tokens_are_an_output(tiny, images):
    backbone = tiny(include_top=False)
    pooled = keras.layers.GlobalAveragePooling1D()(backbone.output)
    both = {"tokens": backbone.output, "y": keras.layers.Dense(4)(pooled)}
    model = keras.Model(backbone.input, both)
    randomise(model)
    expected = outputs(model, images)
    received = outputs(keras_mixer.fuse(model), images)
    assert received.keys() == {"tokens", "y"}
    for name, array in received.items():
        assert relative_difference(array, expected[name]) < 1e-5


def test_pixel_scaling_is_folded_unless_it_is_an_output(images):
    image = keras.Input(IMAGE)
    bright = keras.layers.Rescaling(0.5)(image)
    model = keras_mixer.Mixer(**SIZES, input_tensor=bright, classes=CLASSES)
    randomise(model)
    fused = keras_mixer.fuse(model)
    assert "preprocessing" not in [layer.name for layer in fused.layers]
    check_same(model, fused, images)
    scaled = model.get_layer("preprocessing").output
    model = keras.Model(image, [model.output, scaled])
    fused = keras_mixer.fuse(model)
    assert "preprocessing" in [layer.name for layer in fused.layers]
    expected = outputs(model, images)
    for pair in zip(outputs(fused, images), expected, strict=True):
        assert relative_difference(*pair) < 1e-5


def test_model_with_integer_input_can_be_fused(tiny, images):
    """A stem does not accept integers, so the scaling is not folded."""
    image = keras.Input(IMAGE, dtype="uint8")
    model = tiny(input_tensor=image)
    randomise(model)
    check_same(model, keras_mixer.fuse(model), images.astype("uint8"))


@pytest.mark.backends
@pytest.mark.parametrize("family", FAMILIES)
def test_fused_int8_model_loses_at_most_one_percent_accuracy(
    family, digits, tmp_path
):
    model = keras.saving.load_model(GOLDEN / f"digits_{family}.keras")
    x, y = digits[1]

    def accuracy(model):
        return np.mean(outputs(model, x).argmax(-1) == y)

    fused = keras_mixer.fuse(model)
    before = accuracy(model)
    assert before > 0.9
    assert accuracy(fused) == before
    fused.quantize("int8")
    mixing = fused.get_layer("block_0").channel_mixing
    assert mixing.dense_0.quantization_mode == "int8"
    assert accuracy(fused) >= before - 0.01
    fused.save(tmp_path / "int8.keras")
    loaded = keras.saving.load_model(tmp_path / "int8.keras")
    np.testing.assert_array_equal(outputs(loaded, x), outputs(fused, x))


needs_jax = pytest.mark.skipif(
    BACKEND != "jax", reason="counts in JAX's expression"
)


@pytest.mark.backends
@needs_jax
@pytest.mark.parametrize(
    ("family", "before", "after"), [("mixer", 16, 13), ("resmlp", 10, 5)]
)
def test_fused_block_has_fewer_element_wise_operations(family, before, after):
    model = family_model(family)
    assert count_passes(model.get_layer("block_1")) == before
    fused = keras_mixer.fuse(model)
    assert count_passes(fused.get_layer("block_1")) == after


@pytest.mark.backends
@needs_jax
def test_fused_affine_costs_one_element_wise_operation():
    """In the paper there is no cost. This is true for channel mixing only."""
    token_mixing, channel_mixing = TokenLinear(), keras_mixer.ChannelMixing(11)

    def without_affine(x):
        x = x + token_mixing(x)
        return x + channel_mixing(x)

    fused = keras_mixer.fuse(family_model("resmlp")).get_layer("block_1")
    assert count_passes(fused) == count_passes(without_affine) + 1


def count_passes(block):
    """Counts element-wise sums and products over all tokens."""
    import jax
    from jax.extend import core

    def count(jaxpr):
        passes = 0
        for equation in jaxpr.eqns:
            for inner in core.jaxprs_in_params(equation.params):
                passes += count(inner)
            is_sum = equation.primitive.name in ("add", "sub", "mul", "div")
            sizes = [output.aval.size for output in equation.outvars]
            passes += is_sum and sizes == [2 * 6 * 10]
        return passes

    tokens = np.ones((2, 6, 10), "float32")
    block(tokens)  # built outside
    return count(jax.make_jaxpr(block)(tokens).jaxpr)


def fuse_error(model):
    with pytest.raises((TypeError, ValueError)) as caught:
        keras_mixer.fuse(model)
    return f"{caught.type.__name__}: {caught.value}"


def test_fuse_raises_for_unsupported_models(tiny):
    assert fuse_error("model").startswith("TypeError: `model` must be a Keras")
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    assert "a model of this package" in fuse_error(other)
    model = tiny(include_top=False, pooling="avg", name="body")
    wrapped = keras.Sequential([model, keras.layers.Dense(3)])
    model.quantize("int8")
    assert "before it is quantized" in fuse_error(model)
    assert "before it is quantized" in fuse_error(wrapped)


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_model_cannot_be_resized_or_exported(family, tmp_path):
    fused = keras_mixer.fuse(family_model(family, name="quick"))
    message = r"'quick' is fused\. Use the model that it was made from\."
    with pytest.raises(ValueError, match=message):
        keras_mixer.resize(fused, (16, 24, 3))
    with pytest.raises(ValueError, match=message):
        keras_mixer.export_weights(fused, tmp_path / "quick.safetensors")
    fused.save(tmp_path / "quick.keras")
    with pytest.raises(keras_mixer.WeightsError, match="or fused"):
        family_model(family, weights=tmp_path / "quick.keras")
