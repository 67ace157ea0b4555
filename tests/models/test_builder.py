"""The interface of Keras Applications: shapes, heads, input tensors."""

import itertools

import keras
import numpy as np
import pytest

import keras_mixer
from support import oracle
from support.helpers import BATCH
from support.helpers import CLASSES
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import SIZES
from support.helpers import call
from support.helpers import family_model
from support.helpers import randomise

WIDTH = SIZES["hidden_dim"]


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (None, CLASSES)),
        ({"classes": 1, "classifier_activation": None}, (None, 1)),
        ({"include_top": False}, (None, 6, WIDTH)),
        ({"include_top": False, "pooling": "avg"}, (None, WIDTH)),
        ({"include_top": False, "pooling": "max"}, (None, WIDTH)),
        ({"include_top": False, "input_shape": (4, 20, 2)}, (None, 5, WIDTH)),
        ({"include_top": False, "input_shape": [20, 4, 1]}, (None, 5, WIDTH)),
        ({"input_shape": np.array(IMAGE).tolist()}, (None, CLASSES)),
    ],
)
def test_output_shape(tiny, options, shape):
    model = tiny(**options)
    assert model.output_shape == shape
    batch = np.zeros((BATCH, *model.input_shape[1:]))
    assert call(model, batch).shape == (BATCH, *shape[1:])


class Batches(keras.utils.PyDataset):
    """One batch of images of each shape."""

    def __init__(self, *shapes):
        super().__init__()
        self.shapes = shapes

    def __len__(self):
        return len(self.shapes)

    def __getitem__(self, i):
        return (np.ones((3, *self.shapes[i]), "float32"),)


# As many patches of 4 x 4, or a remainder that would be cut off.
@pytest.mark.backends
@pytest.mark.parametrize("other", [(12, 8, 3), (11, 15, 3), (9, 12, 3)])
def test_images_of_another_size_are_refused(tiny, other, tmp_path):
    built = tiny()
    built.save(tmp_path / "model.keras")
    for model in (built, keras.saving.load_model(tmp_path / "model.keras")):
        assert model.predict(Batches(IMAGE), verbose=0).shape == (3, CLASSES)
        variables = [v.value for v in model.trainable_variables]
        with pytest.raises(ValueError, match="'stem' is incompatible"):
            model.stateless_call(variables, [], np.ones((3, *other)))
        # TensorFlow does not know the size of the image while it traces. On
        # JAX, Keras loses the variables of a model whose `predict` fails.
        with pytest.raises(Exception, match="shape"):
            model.predict(Batches(IMAGE, other), verbose=0)


@pytest.mark.parametrize("include_top", [True, False])
def test_default_input_shape_is_224_by_224_by_3(tiny, include_top):
    model = tiny(include_top=include_top, input_shape=None, patch_size=56)
    assert model.input_shape == (None, 224, 224, 3)


def test_patches_may_be_rectangles(tiny, images, tmp_path):
    model = tiny(patch_size=(4, 2), include_top=False)  # 2 x 6 tokens
    weights = randomise(model)
    expected = oracle.mixer(images, weights, (4, 2))["norm"]
    received = call(model, images)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    files = [
        tmp_path / "a.weights.h5",
        tmp_path / "a.npz",
        tmp_path / "a.keras",
    ]
    model.save_weights(files[0])
    keras_mixer.export_weights(model, files[1])
    model.save(files[2])
    for file in files:
        options = {"include_top": False, "weights": file}
        loaded = tiny(patch_size=[4, 2], **options)
        np.testing.assert_array_equal(call(loaded, images), received)
        with pytest.raises(ValueError, match="stem/kernel"):
            tiny(patch_size=(2, 4), input_shape=(4, 24, 3), **options)
    square = tiny(patch_size=(4, 4))
    assert square.get_layer("stem").kernel.shape == (4, 4, 3, WIDTH)


def test_classes_are_not_used_without_the_top(tiny):
    for classes in (None, 0, "seven"):
        model = tiny(include_top=False, classes=classes)
        assert model.output_shape == (None, 6, WIDTH)


def test_last_layer_has_softmax(tiny):
    layer = tiny().layers[-1]
    assert layer.name == "predictions"
    assert layer.activation is keras.activations.softmax


def test_pooling_is_the_mean_or_maximum_over_tokens(tiny, images):
    weights = randomise(tiny(include_top=False))
    outputs = {}
    for pooling in (None, "avg", "max"):
        model = tiny(include_top=False, pooling=pooling)
        assert randomise(model).keys() == weights.keys()
        outputs[pooling] = call(model, images)
    tokens = outputs[None]
    np.testing.assert_allclose(outputs["avg"], tokens.mean(1), atol=1e-6)
    np.testing.assert_allclose(outputs["max"], tokens.max(1), atol=1e-6)


def test_avg_pooling_is_the_input_of_the_head(tiny, images):
    model = tiny()
    randomise(model)
    backbone = tiny(include_top=False, pooling="avg")
    backbone.set_weights(model.get_weights()[:-2])
    head = keras.Model(model.input, model.get_layer("predictions").input)
    assert (call(backbone, images) == call(head, images)).all()


def test_preprocessing_has_no_weights_and_can_be_left_out(tiny, images):
    model, bare = tiny(), tiny(include_preprocessing=False)
    randomise(model)
    bare.set_weights(model.get_weights())
    np.testing.assert_allclose(
        call(bare, images / 127.5 - 1),
        call(model, images),
        atol=1e-6,
    )


@pytest.mark.backends
def test_integer_and_float_pixels_give_the_same_predictions(tiny):
    model = tiny()
    randomise(model)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, *IMAGE))
    np.testing.assert_array_equal(
        model.predict(pixels.astype("uint8"), verbose=0),
        model.predict(pixels.astype("float32"), verbose=0),
    )


def test_model_includes_the_layers_before_input_tensor(tiny, images):
    inputs = keras.Input((4, 6, 2), name="small")
    upsampled = keras.layers.UpSampling2D(2)(inputs)
    joined = keras.layers.Conv2D(3, 1, name="colors")(upsampled)
    model = tiny(input_tensor=joined)
    assert model.input is inputs
    assert [layer.name for layer in model.layers[:3]] == [
        "small",
        "up_sampling2d",
        "colors",
    ]
    assert call(model, np.zeros((BATCH, 4, 6, 2))).shape == (
        BATCH,
        CLASSES,
    )


def test_input_shape_may_repeat_the_shape_of_input_tensor(tiny):
    image = keras.Input(IMAGE)
    assert tiny(input_tensor=image, input_shape=IMAGE).input is image


def test_weights_are_loaded_with_an_input_tensor(tiny, tmp_path):
    saved = tiny()
    arrays = randomise(saved)
    saved.save_weights(tmp_path / "tiny.weights.h5")
    joined = keras.layers.Conv2D(3, 1)(keras.Input((8, 12, 2)))
    model = tiny(input_tensor=joined, weights=tmp_path / "tiny.weights.h5")
    np.testing.assert_array_equal(
        model.get_layer("stem").kernel.numpy(), arrays["stem/kernel"]
    )


def test_two_models_can_be_used_in_one_graph(tiny, images):
    first, second = tiny(name="first"), tiny(name="second")
    randomise(first, seed=1)
    randomise(second, seed=2)
    image = keras.Input(IMAGE)
    both = keras.Model(image, [first(image), second(image)])
    received = call(both, images)
    np.testing.assert_allclose(received[0], call(first, images), atol=1e-6)
    np.testing.assert_allclose(received[1], call(second, images), atol=1e-6)
    assert np.abs(received[0] - received[1]).max() > 0.01


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.backends
def test_channels_first_images_give_the_same_predictions(tiny, images, request):
    model = tiny()
    arrays = randomise(model)
    expected = call(model, images)
    request.getfixturevalue("channels_first")
    transposed = tiny(input_shape=(3, 8, 12))
    assert randomise(transposed).keys() == arrays.keys()
    received = call(transposed, images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(received, expected, atol=1e-6)
    default = tiny(input_shape=None, patch_size=56)
    assert default.input_shape == (None, 3, 224, 224)


def test_the_head_is_float32_under_mixed_precision(tiny, images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny()
        assert model.get_layer("block_0").compute_dtype == "bfloat16"
        assert model.get_layer("preprocessing").compute_dtype == "float32"
        assert model.predict(images, verbose=0).dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def test_layer_names_do_not_depend_on_other_models():
    models = [keras_mixer.MixerNano(weights=None) for _ in range(2)]
    names = [[layer.name for layer in model.layers] for model in models]
    assert names[0] == names[1]
    blocks = [f"block_{i}" for i in range(8)]
    assert names[0] == [
        "image",
        "preprocessing",
        "stem",
        "tokens",
        *blocks,
        "norm",
        "avg_pool",
        "predictions",
    ]


@pytest.fixture
def global_dtypes():
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


def test_added_layers_take_the_dtype_of_the_model(tiny, images, global_dtypes):
    model = tiny()
    randomise(model)
    keras.config.set_image_data_format("channels_first")

    def added():
        head = keras_mixer.new_head(model, 4, dropout_rate=0.5)
        pooled = keras_mixer.features(model, -1, form="pooled")
        return [keras_mixer.features(model, 0), pooled, head]

    expected = added()
    keras.config.set_dtype_policy("mixed_float16")
    for received, other in zip(added(), expected, strict=True):
        dtypes = {layer.name: layer.compute_dtype for layer in received.layers}
        assert {*dtypes.values()} == {"float32"}, dtypes
        for one, two in zip(received.outputs, other.outputs, strict=True):
            assert one.dtype == two.dtype == "float32"


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "mixed_bfloat16"])
def test_pixels_are_not_rounded(tiny, dtype, data_format, global_dtypes):
    keras.config.set_image_data_format(data_format)
    if not dtype.startswith("mixed"):
        keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    model = tiny(input_shape=IMAGE if data_format[9:] == "last" else (3, 8, 12))
    assert model.input.dtype == "float32"
    stem = model.layers.index(model.get_layer("stem"))
    dtypes = {layer.compute_dtype for layer in model.layers[1:stem]}
    assert dtypes == {"float32"}
    assert model.get_layer("stem").compute_dtype == dtype.removeprefix("mixed_")


@pytest.mark.parametrize("family", FAMILIES)
def test_all_kernels_have_different_initial_values(family):
    """In one model and in two models."""
    kernels = [
        weight.numpy()
        for _ in range(2)
        for weight in family_model(family).weights
        if weight.path.endswith("kernel") and weight.numpy().any()
    ]
    assert len(kernels) == {"mixer": 18, "resmlp": 16}[family]
    for one, other in itertools.combinations(kernels, 2):
        assert one.shape != other.shape or (one != other).any()
