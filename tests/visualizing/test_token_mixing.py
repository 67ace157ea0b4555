"""Maps of the weights of token mixing."""

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import visualizing
from keras_mixer.visualizing import token_mixing
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import family_model
from support.helpers import matches
from support.helpers import randomise


def expected_maps(model, arrays, block):
    """The maps, from the arrays that were assigned, element by element."""
    rows, columns = 2, 3
    path = f"block_{block}/token_mixing/dense"
    kernel = arrays.get(f"{path}_0/kernel", arrays.get(f"{path}/kernel"))
    maps = np.empty((kernel.shape[1], rows, columns))
    for unit, row, column in np.ndindex(maps.shape):
        maps[unit, row, column] = kernel[row * columns + column, unit]
    return maps


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("change", ["none", "saved", "fused", "extended"])
def test_maps_are_columns_of_the_kernel(family, change, tmp_path):
    model = family_model(family)
    arrays = randomise(model)
    if change == "saved":
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    elif change == "fused":
        model = keras_mixer.fuse(model)
    elif change == "extended":
        head = keras.layers.Dense(2, name="other_head")
        model = keras.Model(
            model.input, head(model.get_layer("avg_pool").output)
        )
    maps = visualizing.token_mixing_maps(model, 1)
    assert maps.dtype == "float32"
    np.testing.assert_allclose(maps, expected_maps(model, arrays, 1))


def test_maps_of_a_resized_model_have_its_grid(tiny):
    model = keras_mixer.resize(tiny(), (16, 24, 3), method="interpolate")
    assert visualizing.token_mixing_maps(model, 0).shape == (7, 4, 6)
    tiled = keras_mixer.resize(tiny(), (16, 24, 3), method="tile")
    assert visualizing.token_mixing_maps(tiled, 0).shape == (28, 4, 6)


def test_lora_is_part_of_the_maps(tiny):
    model = tiny()
    dense = model.get_layer("block_0").token_mixing.dense_0
    before = visualizing.token_mixing_maps(model, 0)
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    added = keras.ops.convert_to_numpy(dense.lora_kernel_a).sum(1) * (
        dense.lora_alpha / dense.lora_rank
    )
    maps = visualizing.token_mixing_maps(model, 0)
    np.testing.assert_allclose(
        maps - before, np.tile(added.reshape(2, 3), (7, 1, 1)), atol=1e-6
    )


def quantized(tiny):
    model = tiny()
    model.quantize("int8")
    return model


def test_maps_of_an_inner_model(tiny):
    backbone = tiny(include_top=False, pooling="avg")
    outer = keras.Sequential([backbone, keras.layers.Dense(2)])
    np.testing.assert_array_equal(
        visualizing.token_mixing_maps(outer, "block_1"),
        visualizing.token_mixing_maps(backbone, -1),
    )


@pytest.mark.parametrize(
    ("make", "block", "error", "message"),
    [
        (
            quantized,
            0,
            ValueError,
            "The weights of a quantized model cannot be shown. Use the model "
            "as it was before it was quantized. Received: model='mixer', "
            "quantized to 'int8'",
        ),
        (
            lambda tiny: tiny(),
            2,
            ValueError,
            "There is no block 2 in 'mixer', which has 2 blocks...",
        ),
        (
            lambda tiny: tiny(),
            "0",
            ValueError,
            "There is no block '0' in 'mixer'. Use one of: block_0, block_1...",
        ),
        (
            lambda tiny: "mixer",
            0,
            TypeError,
            "`model` must be a Keras model. Received: model of type str",
        ),
    ],
)
def test_wrong_models_and_blocks_raise_errors(
    make, block, error, message, tiny
):
    with pytest.raises(error, match=matches(message)):
        visualizing.token_mixing_maps(make(tiny), block)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "size"}, "`order` must be one of ['auto', 'frequency', ..."),
        ({"blocks": []}, "`blocks` must have at least one block, or be..."),
        ({"blocks": [0, 5]}, "There is no block 5 in..."),
        ({"limit": 0}, "`limit` must be a positive integer. Received: limit=0"),
        ({"axes": object()}, "`axes` can show one block. Use one block..."),
    ],
)
def test_wrong_options_raise_errors(options, message, tiny):
    with pytest.raises(ValueError, match=matches(message)):
        visualizing.plot_token_mixing(tiny(), **options)


def waves():
    """Cosines over 8 x 12 tokens, their frequencies, and a constant map."""
    y, x = np.mgrid[:8, :12]
    cycles = [(0, 1), (3, 0), (1, 1), (0, 5), (2, 3)]
    maps = [np.cos(2 * np.pi * (a * y / 8 + b * x / 12)) for a, b in cycles]
    frequencies = [np.hypot(a / 8, b / 12) for a, b in cycles]
    return np.stack([*maps, np.ones((8, 12))]), np.array([*frequencies, 0])


def test_mean_frequency_is_that_of_cosines():
    maps, frequencies = waves()
    np.testing.assert_allclose(
        token_mixing.mean_frequency(maps), frequencies, atol=1e-12
    )
    # Two waves of the same power have the mean of their frequencies.
    both = token_mixing.mean_frequency(maps[:1] + maps[1:2])
    np.testing.assert_allclose(both, frequencies[:2].mean())
    assert token_mixing.mean_frequency(np.zeros((1, 8, 12))) == [0]


def test_maps_are_sorted_by_frequency():
    maps, frequencies = waves()
    order = token_mixing.ORDERS["frequency"](maps)
    np.testing.assert_array_equal(order, np.argsort(frequencies))


def test_similar_and_opposite_maps_are_neighbors():
    maps, _ = waves()
    noise = np.random.default_rng(0).normal(0, 0.1, (11, 8, 12))
    # 0 and 7 are opposite, 1 and 4 similar; the last map has no partner.
    mixed = np.stack([maps[i] for i in (0, 1, 2, 3, 1, 3, 2, 0, 4, 5, 5)])
    mixed[[7, 5]] *= -1
    order = token_mixing.ORDERS["similarity"](mixed + noise)
    pairs = [set(order[i : i + 2]) for i in range(0, 11, 2)]
    assert pairs == [{9, 10}, {0, 7}, {2, 6}, {1, 4}, {3, 5}, {8}]


def test_maps_are_placed_side_by_side():
    maps = np.arange(5 * 2 * 3, dtype="float32").reshape(5, 2, 3)
    image = token_mixing.tiled(maps, columns=2)
    assert image.shape == (3 * 3 + 1, 2 * 4 + 1)
    for i in range(5):
        top, left = 1 + 3 * (i // 2), 1 + 4 * (i % 2)
        np.testing.assert_array_equal(
            image[top : top + 2, left : left + 3], maps[i]
        )
    assert np.isnan(image).sum() == image.size - maps.size


def test_limit_keeps_the_largest_units_of_mixer(tiny):
    model = tiny()
    maps = randomise(model)["block_0/token_mixing/dense_0/kernel"].T
    kept = np.argsort(-np.square(maps).sum(1))[:4]
    image = token_mixing.mosaic(model, 0, order=None, limit=4)
    shown = np.sort(image[np.isfinite(image)])
    np.testing.assert_array_equal(shown, np.sort(maps[kept].ravel()))


def test_limit_keeps_the_central_tokens_of_resmlp():
    model = family_model("resmlp", input_shape=(16, 20, 3))  # 4 x 5 tokens
    kernel = randomise(model)["block_0/token_mixing/dense/kernel"]
    image = token_mixing.mosaic(model, 0, limit=7)
    assert image.shape == (2 * 5 + 1, 3 * 6 + 1)
    for row, column in np.ndindex(2, 3):
        token = (1 + row) * 5 + 1 + column
        top, left = 1 + 5 * row, 1 + 6 * column
        np.testing.assert_array_equal(
            image[top : top + 4, left : left + 5],
            kernel[:, token].reshape(4, 5),
        )


def test_all_maps_of_resmlp_are_placed_as_in_the_image():
    model = family_model("resmlp")
    randomise(model)
    rows, columns = (side // 4 for side in IMAGE[:2])
    image = token_mixing.mosaic(model, 0)
    assert image.shape == (rows * (rows + 1) + 1, columns * (columns + 1) + 1)
