"""Resizing token mixing: the identities of the paper, and whole models."""

import logging
import math

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import visualizing
from keras_mixer.models.anatomy import weights_of
from keras_mixer.weights import naming
from keras_mixer.weights import resizing
from support import oracle
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import SIZES
from support.helpers import assert_equal
from support.helpers import compile_model
from support.helpers import family_model
from support.helpers import randomise
from support.published import official

PATCH = SIZES["patch_size"]
GRID = (2, 3)
# The numbers of parts (down, across).
PARTS = [(1, 1), (2, 2), (3, 3), (1, 2), (3, 2)]


def outputs(model, images):
    images = keras.ops.convert_to_tensor(images, "float32")
    return keras.ops.convert_to_numpy(model(images, training=False))


@pytest.fixture(params=FAMILIES)
def float64(request):
    """Returns a family, its weights in float64, and its oracle."""
    arrays = randomise(family_model(request.param))
    arrays = {k: v.astype("float64") for k, v in arrays.items()}
    network = getattr(oracle, request.param)
    return request.param, arrays, lambda x, w: network(x, w, PATCH)


def resized(family, arrays, new, method):
    plan = resizing.plan(GRID, new, method)
    return resizing.resize(arrays, family, plan)


def mosaic(images, method):
    """Combines images (down, across, ...) to a large one, patch by patch."""
    down, across, height, width, channels = images.shape
    shape = (down, across, height // PATCH, PATCH, width // PATCH, PATCH)
    patches = images.reshape(*shape, channels)
    order = {
        "tile": (0, 2, 3, 1, 4, 5, 6),  # part, then place
        "interleave": (2, 0, 3, 4, 1, 5, 6),  # place, then part
    }[method]
    large = patches.transpose(order)
    return large.reshape(1, down * height, across * width, channels)


def parts_of(tokens, parts, method):
    """The tokens of each part of `mosaic`, row by row: (down, across, ...)."""
    (down, across), (rows, columns) = parts, GRID
    if method == "tile":
        tokens = tokens.reshape(down, rows, across, columns, -1)
        tokens = tokens.transpose(0, 2, 1, 3, 4)
    else:
        tokens = tokens.reshape(rows, down, columns, across, -1)
        tokens = tokens.transpose(1, 3, 0, 2, 4)
    return tokens.reshape(down, across, rows * columns, -1)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("method", ["tile", "interleave"])
def test_parts_give_the_outputs_of_separate_images(float64, parts, method):
    family, arrays, oracle = float64
    down, across = parts
    images = np.random.default_rng(2).uniform(0, 255, (down, across, *IMAGE))
    new = (GRID[0] * down, GRID[1] * across)
    large = oracle(mosaic(images, method), resized(family, arrays, new, method))
    small = oracle(images.reshape(-1, *IMAGE), arrays)
    for stage in ("tokens", "block_0", "block_1", "norm"):
        np.testing.assert_allclose(
            parts_of(large[stage][0], parts, method),
            small[stage].reshape(down, across, math.prod(GRID), -1),
            atol=1e-12,
            err_msg=stage,
        )
    for stage in ("avg_pool", "predictions"):
        np.testing.assert_allclose(
            large[stage][0], small[stage].mean(0), atol=1e-12, err_msg=stage
        )
    np.testing.assert_allclose(
        large["norm"].max(1)[0], small["norm"].max((0, 1)), atol=1e-12
    )


@pytest.mark.parametrize("method", ["tile", "interleave"])
def test_equal_parts_give_the_logits_of_one_part(float64, method):
    family, arrays, oracle = float64
    image = np.random.default_rng(2).uniform(0, 255, IMAGE)
    images = np.broadcast_to(image, (3, 2, *IMAGE))
    large = oracle(
        mosaic(images, method), resized(family, arrays, (6, 6), method)
    )
    small = oracle(image[None], arrays)
    np.testing.assert_allclose(
        large["predictions"], small["predictions"], atol=1e-12
    )


def test_wrong_order_of_tokens_changes_the_logits(float64):
    """The identities depend on the order of the tokens."""
    family, arrays, oracle = float64
    images = np.random.default_rng(2).uniform(0, 255, (2, 2, *IMAGE))
    small = oracle(images.reshape(-1, *IMAGE), arrays)["predictions"].mean(0)
    wrong = oracle(
        mosaic(images, "tile"), resized(family, arrays, (4, 6), "interleave")
    )
    assert np.abs(wrong["predictions"][0] - small).max() > 1e-3


@pytest.mark.parametrize("method", [*resizing.METHODS, "auto"])
def test_same_grid_does_not_change_the_weights(float64, method):
    family, arrays, _ = float64
    assert_equal(resized(family, arrays, GRID, method), arrays)


@pytest.mark.parametrize("new", [(4, 6), (3, 5), (1, 2), (2, 7), (5, 2)])
def test_interpolation_equals_resampling_before_and_after_the_mlp(float64, new):
    """`keras.ops.image.resize` resamples to larger and smaller grids."""
    family, arrays, _ = float64
    large = resized(family, arrays, new, "interpolate")
    channels = SIZES["hidden_dim"]
    x = np.random.default_rng(3).standard_normal((1, *new, channels))
    if family == "mixer":
        mix = lambda tokens, weights: oracle.token_mixing(  # noqa: E731
            tokens, weights, "block_1/token_mixing"
        )
    else:
        name = "block_1/token_mixing/dense"
        mix = lambda tokens, weights: (  # noqa: E731
            tokens.swapaxes(1, 2) @ weights[f"{name}/kernel"]
            + weights[f"{name}/bias"]
        ).swapaxes(1, 2)
    small = mix(resample(x, GRID).reshape(1, -1, channels), arrays)
    expected = resample(small.reshape(1, *GRID, channels), new)
    received = mix(x.reshape(1, -1, channels), large)
    np.testing.assert_allclose(
        received.reshape(expected.shape), expected, atol=1e-5
    )


def resample(x, size):
    resized = keras.ops.image.resize(
        x.astype("float32"),
        size,
        interpolation="bilinear",
        antialias=True,
        data_format="channels_last",
    )
    return keras.ops.convert_to_numpy(resized).astype("float64")


def test_interpolation_keeps_the_output_for_constant_tokens():
    """Hidden units have the same values for tokens that are all equal."""
    arrays = randomise(family_model("mixer"))
    name = "block_1/token_mixing/dense_0/kernel"
    expected = arrays[name].sum(0)
    for new in ((5, 7), (1, 2), (4, 3)):
        large = resized("mixer", arrays, new, "interpolate")[name]
        np.testing.assert_allclose(large.sum(0), expected, atol=1e-6)


def test_dtypes_and_other_weights_do_not_change():
    arrays = randomise(family_model("mixer"))
    for method in ("tile", "interleave", "interpolate"):
        large = resized("mixer", arrays, (4, 6), method)
        assert {a.dtype for a in large.values()} == {np.dtype("float32")}
        table = naming.axes_of("mixer")
        for path, array in arrays.items():
            if not {"tokens", "tokens_mlp"} & set(naming.axes(path, table)):
                assert large[path] is array
    kernel = arrays["block_0/token_mixing/dense_0/kernel"]
    large = resized("mixer", arrays, (4, 6), "tile")
    tiled = large["block_0/token_mixing/dense_0/kernel"]
    assert tiled.shape == (24, 28)
    assert np.count_nonzero(tiled) == 4 * kernel.size


@pytest.mark.backends
@pytest.mark.parametrize("family", FAMILIES)
def test_tiled_model_averages_its_tiles(family):
    model = family_model(family, classifier_activation=None)
    randomise(model)
    images = np.random.default_rng(2).uniform(0, 255, (3, 2, *IMAGE))
    large = keras_mixer.resize(model, (24, 24, 3), "tile")
    assert large.input_shape == (None, 24, 24, 3)
    assert large.name == model.name
    received = outputs(large, mosaic(images, "tile"))[0]
    expected = outputs(model, images.reshape(-1, *IMAGE)).mean(0)
    np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", resizing.METHODS)
def test_loading_and_resizing_give_the_same_weights(
    family, method, tmp_path, caplog
):
    """`weights=` and `keras_mixer.resize` resize in the same way."""
    caplog.set_level(logging.INFO, "keras_mixer")
    model = family_model(family)
    randomise(model)
    file = tmp_path / "small.safetensors"
    keras_mixer.export_weights(model, file)
    large = family_model(
        family,
        weights=file,
        input_shape=(16, 36, 3),
        resize=method,
    )
    assert [record.message for record in caplog.records] == [
        f"{file}: token mixing resized from 2 x 3 to 4 x 9 tokens: {method}"
    ]
    expected = keras_mixer.resize(model, (16, 36, 3), method)
    assert_equal(weights_of(large), weights_of(expected))
    assert len(large.layers) == len(expected.layers)


@pytest.mark.parametrize(
    ("shape", "method"), [((16, 12, 3), "tile"), ((8, 8, 3), "interpolate")]
)
def test_auto_uses_tile_for_whole_multiples(shape, method):
    model = family_model("mixer")
    randomise(model)
    automatic = keras_mixer.resize(model, shape)
    chosen = keras_mixer.resize(model, shape, method)
    assert_equal(weights_of(automatic), weights_of(chosen))


def test_resized_model_can_be_trained(trained, digits):
    """The loss decreases on digits enlarged by a factor of two."""
    model = keras.saving.load_model(trained)
    large = keras_mixer.resize(model, (16, 16, 1))
    x, y = (part[:512] for part in digits[0])
    x = x.repeat(2, axis=1).repeat(2, axis=2)
    optimizer = keras.optimizers.AdamW(1e-3)
    compile_model(large, optimizer, "sparse_categorical_crossentropy")
    losses = [large.evaluate(x, y, verbose=0)]
    large.fit(x, y, epochs=4, batch_size=64, verbose=0)
    losses.append(large.evaluate(x, y, verbose=0))
    assert losses[1] < 0.7 * losses[0]


def test_interleave_is_exact_on_digits_enlarged_by_the_patch(trained, digits):
    """Each patch is copied 2 x 2 times."""
    model = keras.saving.load_model(trained)
    x, _ = digits[1]
    patches = x.reshape(-1, 4, 2, 4, 2, 1)
    large = patches.repeat(2, axis=1).repeat(2, axis=3).reshape(-1, 16, 16, 1)
    resized = keras_mixer.resize(model, (16, 16, 1), "interleave")
    np.testing.assert_allclose(
        outputs(resized, large),
        outputs(model, x),
        atol=1e-4,
    )


def test_new_head_and_name_are_kept():
    backbone = family_model("mixer", include_top=False, pooling="avg")
    randomise(backbone)
    head = keras.layers.Dense(3, name="my_head")(backbone.output)
    model = keras.Model(backbone.input, head, name="transfer")
    large = keras_mixer.resize(model, (16, 24, 3), name="other")
    assert large.name == "other"
    large = keras_mixer.resize(model, (16, 24, 3))
    assert large.name == "transfer"
    np.testing.assert_array_equal(
        large.get_layer("my_head").kernel, model.get_layer("my_head").kernel
    )


def test_resized_model_shares_no_weights_and_keeps_options():
    model = family_model("mixer", stochastic_depth_rate=0.2, activation="relu")
    before = randomise(model)
    large = keras_mixer.resize(model, (16, 12, 3), "interpolate")
    for variable in large.weights:
        variable.assign(np.zeros(variable.shape))
    assert_equal(weights_of(model), before)
    block = large.get_layer("block_1")
    assert block.stochastic_depth.rate == 0.2
    assert block.activation is keras.activations.relu
    assert block.tokens_mlp_dim == SIZES["tokens_mlp_dim"]


@pytest.mark.backends
def test_bfloat16_model_can_be_resized():
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = family_model("mixer")
        randomise(model)
        large = keras_mixer.resize(model, (16, 12, 3))
    finally:
        keras.config.set_dtype_policy("float32")
    kernel = large.get_layer("block_0").token_mixing.dense_0.kernel
    assert keras.backend.standardize_dtype(kernel.dtype) == "bfloat16"
    small = weights_of(model)["block_0/token_mixing/dense_0/kernel"]
    assert np.array_equal(keras.ops.convert_to_numpy(kernel)[:6, :7], small)


def resize_error(model, *args):
    with pytest.raises((TypeError, ValueError)) as caught:
        keras_mixer.resize(model, *args)
    return f"{caught.type.__name__}: {caught.value}"


ERRORS = [
    (
        ((12, 12, 3), "tile"),
        "ValueError: 'tile' needs a new grid that is a multiple of the old "
        "one. The weights are for 2 x 3 tokens, the model for 3 x 3. Use 'int",
    ),
    (((16, 24, 3), "bicubic"), "ValueError: The resize method must be 'auto'"),
    (((16, 24, 3), None), "ValueError: `method` must not be `None`"),
    (
        ((16, 25, 3),),
        "ValueError: `input_shape` must have the channels of the old one, "
        "(8, 12, 3), and its height and width must be multiples of the patch "
        "size, (4, 4). Received: input_shape=(16, 25, 3)",
    ),
    (((16, 24, 1),), "ValueError: `input_shape` must have the channels"),
    (((16, 24),), "ValueError: `input_shape` must have the channels"),
    ((448,), "TypeError: `input_shape` must be a tuple of three integers"),
    (((16.0, 24, 3),), "TypeError: `input_shape[0]` must be a positive int"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_resize_raises(arguments, message):
    assert resize_error(family_model("mixer"), *arguments).startswith(message)


def test_resize_raises_for_unsupported_models():
    model = family_model("mixer", include_top=False, pooling="avg", name="body")
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    assert "a model of this package" in resize_error(other, (16, 24, 3))
    assert "Received: model of type str" in resize_error("model", (16, 24, 3))
    image = keras.Input((16, 24, 3))
    cut = keras.layers.CenterCrop(8, 12)(image)
    longer = keras_mixer.Mixer(**SIZES, input_tensor=cut)
    assert "before you add such layers" in resize_error(longer, (32, 48, 3))
    model.quantize("int8")
    assert "before it is quantized" in resize_error(model, (16, 24, 3))


def own_model(*layers, shape=IMAGE):
    """A model of the public blocks with an own stem."""
    image = x = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    x = keras.layers.Reshape((-1, x.shape[-1]))(x)
    x = keras_mixer.MixerBlock(7, 11, name="block_0")(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(image, keras.layers.Dense(5)(x))
    randomise(model)
    return model


STEMS = {
    "patches of 2 x 3": lambda: [keras.layers.Conv2D(10, (2, 3), (2, 3))],
    "two convolutions": lambda: [
        keras.layers.Conv2D(6, (2, 1), (2, 1), activation="relu"),
        keras.layers.Conv2D(10, (1, 3), (1, 3)),
    ],
    "pooling": lambda: [
        keras.layers.AveragePooling2D((1, 3)),
        keras.layers.Conv2D(10, (2, 1), (2, 1), name="stem"),
    ],
}


@pytest.mark.parametrize("layers", STEMS.values(), ids=STEMS.keys())
def test_model_with_a_stem_of_patches_of_2_by_3_is_resized(layers, images):
    model = own_model(*layers())
    large = keras_mixer.resize(model, (16, 12, 3), "tile")
    pairs = images[:10].reshape(5, 16, 12, 3)
    small = outputs(model, images[:10]).reshape(5, 2, -1).mean(1)
    np.testing.assert_allclose(outputs(large, pairs), small, rtol=1e-4)
    larger = keras_mixer.resize(model, (10, 15, 3))
    assert outputs(larger, np.zeros((2, 10, 15, 3))).shape == (2, 5)
    for shape in ((9, 15, 3), (10, 16, 3)):
        assert "multiples of the patch size, (2, 3)" in resize_error(
            model, shape
        )


def test_resize_raises_if_the_stem_leaves_pixels_out():
    model = own_model(keras.layers.Conv2D(10, (3, 4), (3, 4)))
    assert "divides into equal patches" in resize_error(model, (16, 24, 3))
    model = own_model(keras.layers.Conv2D(10, (1, 5), (1, 4)), shape=(3, 9, 3))
    assert "divides into equal patches" in resize_error(model, (3, 18, 3))


def test_keras_weights_file_cannot_be_resized_on_loading(tmp_path, tiny):
    tiny().save_weights(tmp_path / "own.weights.h5")
    with pytest.raises(
        keras_mixer.WeightsError, match=r"size with `keras_mixer\.resize`"
    ):
        tiny(input_shape=(16, 24, 3), weights=tmp_path / "own.weights.h5")


def test_square_official_file_is_resized_on_loading(tmp_path, tiny):
    np.savez(tmp_path / "Mixer.npz", **official(tokens=4))
    file = tmp_path / "Mixer.npz"
    assert (
        tiny(weights=file, input_shape=(16, 16, 3))
        .get_layer("block_0")
        .tokens_mlp_dim
        == 4 * SIZES["tokens_mlp_dim"]
    )
    for shape in ((12, 20, 3), (4, 4, 3)):
        model = tiny(weights=file, input_shape=shape)
        assert (
            model.get_layer("block_0").tokens_mlp_dim == SIZES["tokens_mlp_dim"]
        )
    with pytest.raises(ValueError, match=r"Use `resize=\"auto\"` to resize"):
        tiny(weights=file, input_shape=(16, 16, 3), resize=None)
    with pytest.raises(ValueError, match="'tile' needs a new grid that"):
        tiny(weights=file, input_shape=(12, 12, 3), resize="tile")


@pytest.mark.parametrize("suffix", [".keras", ".safetensors", ".npz"])
def test_file_of_a_resized_model_is_loaded_and_resized_again(
    suffix, tmp_path, images, caplog
):
    small = family_model("mixer", activation="gelu")
    randomise(small)
    large = keras_mixer.resize(small, (8, 24, 3), "tile")
    path = tmp_path / f"large{suffix}"
    if suffix == ".keras":
        large.save(path)
    else:
        keras_mixer.export_weights(large, path)
    options = {"weights": path, "activation": "gelu"}
    with caplog.at_level("INFO", "keras_mixer"):
        same = family_model("mixer", input_shape=(8, 24, 3), **options)
    assert "MLP over tokens is 2 times as wide" in caplog.text
    assert_equal(weights_of(same), weights_of(large))
    larger = family_model("mixer", input_shape=(16, 24, 3), **options)
    assert larger.get_layer("block_0").tokens_mlp_dim == 4 * 7
    expected = keras_mixer.resize(large, (16, 24, 3))
    assert_equal(weights_of(larger), weights_of(expected))


def test_model_of_the_other_data_format_is_refused_by_its_reason(tiny):
    last = tiny()
    keras.config.set_image_data_format("channels_first")
    try:
        first = tiny(input_shape=(3, 8, 12))
        with pytest.raises(ValueError, match="in the format 'channels_last'"):
            keras_mixer.resize(last, (3, 16, 24))
        # The format is not told by names.
        image = keras.Input((3, 8, 12))
        x = keras.layers.Permute((2, 3, 1), name="to_last")(image)
        x = keras.layers.Conv2D(10, 4, 4, data_format="channels_last")(x)
        x = keras.layers.Reshape((-1, 10))(x)
        own = keras.Model(
            image, keras_mixer.MixerBlock(7, 11, name="block_0")(x)
        )
        large = keras_mixer.resize(own, (3, 16, 36))
        assert large.output_shape == (None, 36, 10)
    finally:
        keras.config.set_image_data_format("channels_last")
    for function, argument in (
        (keras_mixer.resize, (16, 24, 3)),
        (visualizing.occlusion_map, np.ones((3, 8, 12))),
    ):
        with pytest.raises(ValueError, match="in the format 'channels_first'"):
            function(first, argument)
