"""Class activation maps and occlusion maps."""

import concurrent.futures

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import visualizing
from support.helpers import CLASSES
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import compile_model
from support.helpers import family_model
from support.helpers import matches
from support.helpers import randomise

GRID = (2, 3)


def logits_of(model, image):
    return keras.ops.convert_to_numpy(model(image[None], training=False))[0]


def photo(seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 255, IMAGE).astype("float32")


def flat(family):
    model = family_model(family, classifier_activation=None)
    randomise(model)
    return model, model, model.get_layer("predictions")


def fused(family):
    model = keras_mixer.fuse(flat(family)[0])
    return model, model, model.get_layer("predictions")


def as_saved_by_a_training(family):
    logits, _, head = flat(family)
    probabilities = keras.layers.Softmax(name="probabilities")(logits.output)
    return keras.Model(logits.input, probabilities), logits, head


def backbone_of(family):
    model = family_model(family, include_top=False, pooling="avg")
    randomise(model)
    return model


def with_dropout(family):
    backbone = backbone_of(family)
    x = keras.layers.Dropout(0.5)(backbone.output)
    head = keras.layers.Dense(4, bias_initializer="ones")
    model = keras.Model(backbone.input, head(x))
    return model, model, head


def nested(family):
    augmentation = keras.Sequential([keras.layers.RandomFlip("horizontal")])
    head = keras.layers.Dense(4, bias_initializer="ones")
    model = keras.Sequential([augmentation, backbone_of(family), head])
    model.build((None, *IMAGE))
    return model, model, head


def nested_twice(family):
    """The head and the backbone are in different models."""
    head = keras.layers.Dense(4, bias_initializer="ones")
    top = keras.Sequential([keras.layers.Dropout(0.5), head])
    image = keras.Input(IMAGE)
    scaled = keras.layers.Rescaling(0.5, offset=9)(image)
    backbone = backbone_of(family)
    wrapped = keras.Sequential([backbone])
    model = keras.Model(image, top(wrapped(scaled)))
    return model, model, head


@pytest.mark.backends
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "make",
    [flat, fused, as_saved_by_a_training, with_dropout, nested, nested_twice],
)
def test_mean_of_the_class_activation_map_is_the_logit(make, family):
    model, logits, head = make(family)
    expected = logits_of(logits, photo())
    bias = keras.ops.convert_to_numpy(head.bias)
    for index in (0, 3):
        values = visualizing.class_activation_map(model, photo(), index)
        assert values.shape == GRID
        np.testing.assert_allclose(
            values.mean() + bias[index], expected[index], atol=1e-5
        )
    assert np.ptp(values) > 1e-3
    default = visualizing.class_activation_map(model, photo()[None])
    best = visualizing.class_activation_map(
        model, photo(), int(expected.argmax())
    )
    np.testing.assert_array_equal(default, best)


@pytest.mark.parametrize("family", FAMILIES)
def test_class_activation_map_is_the_head_on_each_token(family):
    model, _, head = flat(family)
    norm = keras.Model(model.input, model.get_layer("norm").output)
    tokens = keras.ops.convert_to_numpy(norm(photo()[None]))[0]
    kernel = keras.ops.convert_to_numpy(head.kernel)
    values = visualizing.class_activation_map(model, photo(), 2)
    for row, column in np.ndindex(GRID):
        expected = np.sum(tokens[row * 3 + column] * kernel[:, 2])
        np.testing.assert_allclose(values[row, column], expected, atol=1e-5)


@pytest.mark.backends
@pytest.mark.parametrize(
    "draw", [visualizing.class_activation_map, visualizing.occlusion_map]
)
def test_maps_are_drawn_in_several_threads(draw):
    model, _, _ = flat("mixer")
    options = {"stride": 4} if draw is visualizing.occlusion_map else {}
    expected = draw(model, photo(), 2, **options)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        drawn = [
            pool.submit(draw, model, photo(), 2, **options) for _ in range(40)
        ]
    for future in drawn:
        np.testing.assert_allclose(future.result(), expected, atol=1e-6)


def max_pooled():
    model = family_model("mixer", include_top=False, pooling="max")
    return keras.Sequential([model, keras.layers.Dense(4)], name="m")


def two_layers():
    layers = [keras.layers.Dense(3), keras.layers.Dense(4)]
    return keras.Sequential([backbone_of("mixer"), *layers], name="m")


def quantized():
    model = family_model("mixer", name="m")
    model.quantize("int8")
    return model


def convolutional():
    image = keras.Input(IMAGE)
    x = keras.layers.Conv2D(5, 3, name="convolution")(image)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(image, keras.layers.Dense(4)(x), name="m")


def without_stem():
    image = keras.Input(IMAGE)
    x = keras.layers.Reshape((-1, 3))(image)
    x = keras.layers.GlobalAveragePooling1D(data_format="channels_last")(x)
    return keras.Model(image, keras.layers.Dense(4)(x), name="m")


def by_operation():
    model = backbone_of("mixer")
    output = keras.layers.Dense(4)(model.output) * 2
    return keras.Model(model.input, output, name="m")


class Subclass(keras.Model):
    def __init__(self):
        super().__init__(name="m")
        self.inner = convolutional()

    def call(self, inputs):
        return self.inner(inputs)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (max_pooled, "another head"),
        (two_layers, "another head"),
        (quantized, "another head"),
        (by_operation, "another head"),
        (convolutional, "no model of this package"),
        (without_stem, "no model of this package"),
        (Subclass, "no model of this package"),
    ],
)
def test_other_models_are_referred_to_the_occlusion_map(make, found):
    model = make()
    message = (
        "A class activation map needs a model of this package that ends in the "
        "mean over the tokens and one `Dense` layer that is not quantized. Use "
        "`occlusion_map`, which works for other models too. Received: "
        f"model='m' with {found}"
    )
    with pytest.raises(ValueError, match=matches(message)):
        visualizing.class_activation_map(model, photo())
    values = visualizing.occlusion_map(model, photo(), stride=4)
    assert values.shape == GRID
    assert np.isfinite(values).all()


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


def test_channels_first_images_have_the_same_maps(request):
    model, _, _ = flat("mixer")
    expected = [
        visualizing.class_activation_map(model, photo(), 1),
        visualizing.occlusion_map(model, photo(), 1, stride=4),
    ]
    request.getfixturevalue("channels_first")
    first = family_model(
        "mixer", input_shape=(3, 8, 12), classifier_activation=None
    )
    randomise(first)
    image = photo().transpose(2, 0, 1)
    for values, wanted in zip(
        (
            visualizing.class_activation_map(first, image, 1),
            visualizing.occlusion_map(first, image, 1, stride=4),
        ),
        expected,
        strict=True,
    ):
        np.testing.assert_allclose(values, wanted, atol=1e-5)
    figure = visualizing.plot_heatmap(image, expected[0])
    assert figure.axes[0].images[0].get_array().shape == IMAGE


# Occlusion.


def occluded_by_hand(model, image, index, rows, columns, fill):
    """The fall of a score for each pair of spans, one image after another."""
    whole = logits_of(model, image)[index]
    expected = np.empty((len(rows), len(columns)))
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            covered = image.copy()
            covered[top:bottom, left:right] = fill
            expected[i, j] = whole - logits_of(model, covered)[index]
    return expected


@pytest.mark.backends
@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_occlusion_map_equals_covering_by_hand(batch_size):
    model, _, _ = flat("mixer")
    values = visualizing.occlusion_map(
        model, photo(), 3, window=6, stride=4, fill=9, batch_size=batch_size
    )
    rows, columns = [(0, 5), (3, 9)], [(0, 5), (3, 9), (7, 13)]
    expected = occluded_by_hand(model, photo(), 3, rows, columns, fill=9)
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert np.ptp(values) > 1e-3


def test_positions_are_spread_over_sides_that_the_stride_does_not_divide():
    model, _, _ = flat("mixer")
    values = visualizing.occlusion_map(model, photo(), window=3, stride=5)
    # 8 rows: centers at 2 and 6; 12 columns: centers at 2, 6 and 10.
    rows, columns = [(0, 3), (4, 7)], [(0, 3), (4, 7), (8, 11)]
    index = int(logits_of(model, photo()).argmax())
    expected = occluded_by_hand(model, photo(), index, rows, columns, 127.5)
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_default_window_is_small_beside_the_image():
    model, _, _ = flat("mixer")
    assert visualizing.occlusion_map(model, photo()).shape == IMAGE[:2]


def several_outputs():
    image = keras.Input(IMAGE)
    return keras.Model(image, keras.layers.Dense(4)(image), name="m")


def on_vectors():
    vector = keras.Input((3,))
    return keras.Model(vector, keras.layers.Dense(4)(vector), name="m")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"image": np.ones((4, 4, 3))},
            ValueError,
            "`image` must be one image of shape (8, 12, 3), or a batch of one "
            "such image. `keras_mixer.load_image` returns such a batch. "
            "Received: image of shape (4, 4, 3)",
        ),
        (
            {"image": np.ones((2, *IMAGE))},
            ValueError,
            "`image` must be one image of shape (8, 12, 3)...",
        ),
        (
            {"class_index": CLASSES},
            ValueError,
            "`class_index` must be below the number of classes, 5. Received: "
            "class_index=5",
        ),
        (
            {"class_index": "cat"},
            TypeError,
            "`class_index` must be a non-negative integer. Received: ...",
        ),
        ({"stride": 0}, ValueError, "`stride` must be a positive integer..."),
        ({"window": 2.5}, TypeError, "`window` must be a positive integer..."),
        ({"fill": "gray"}, TypeError, "`fill` must be a number..."),
        (
            {"model": several_outputs()},
            ValueError,
            "`model` must return one...",
        ),
        (
            {"model": 7},
            TypeError,
            "`model` must be a Keras model. Received: ...",
        ),
        (
            {"model": on_vectors()},
            ValueError,
            "`model` must have one input: images of shape (height, width, "
            "channels). Received: model='m' with input_shape=(None, 3)",
        ),
    ],
)
def test_wrong_arguments_raise_errors(options, error, message, tiny):
    options = {"model": tiny(), "image": photo(), **options}
    with pytest.raises(error, match=matches(message)):
        visualizing.occlusion_map(**options)
    if {"stride", "window", "fill"}.isdisjoint(options):
        with pytest.raises(error, match=matches(message)):
            visualizing.class_activation_map(**options)


# One patch decides the class.


def patches(count, seed):
    """Dark images with one red, green or blue patch, or none (class 3).

    Returns the images, their classes, and the row and column of the patch.
    """
    rng = np.random.default_rng(seed)
    images = rng.uniform(20, 40, (count, 12, 20, 3)).astype("float32")
    classes = rng.integers(0, 4, count)
    places = rng.integers(0, (3, 5), (count, 2))
    for image, color, (row, column) in zip(
        images, classes, places, strict=True
    ):
        patch = image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        patch += 200 * np.eye(4, 3, dtype="float32")[color]
    return images, classes, places


@pytest.fixture(scope="module")
def trained_on_patches():
    """A Mixer without token mixing: only the token of the patch knows it."""
    keras.utils.set_random_seed(7)
    model = keras_mixer.Mixer(
        4, 1, 16, 7, 32, input_shape=(12, 20, 3), classes=4
    )
    mixing = model.get_layer("block_0").token_mixing
    mixing.trainable = False
    mixing.dense_1.kernel.assign(np.zeros(mixing.dense_1.kernel.shape))
    images, classes, _ = patches(256, seed=0)
    optimizer = keras.optimizers.Adam(1e-2)
    compile_model(model, optimizer, "sparse_categorical_crossentropy")
    model.fit(images, classes, batch_size=64, epochs=20, verbose=0)
    return model


@pytest.mark.parametrize(
    "draw",
    [
        visualizing.class_activation_map,
        lambda *args: visualizing.occlusion_map(*args, window=4, stride=4),
    ],
    ids=["activation", "occlusion"],
)
def test_maps_point_at_the_patch_that_decides(draw, trained_on_patches):
    shown = 0
    for image, color, place in zip(*patches(30, seed=1), strict=True):
        if color == 3:
            continue
        values = draw(trained_on_patches, image, int(color))
        assert np.unravel_index(values.argmax(), (3, 5)) == tuple(place)
        shown += 1
    assert shown > 15
