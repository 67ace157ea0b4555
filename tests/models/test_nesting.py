"""Models that contain models of this package as layers."""

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import training
from keras_mixer.models.anatomy import inner_models
from keras_mixer.models.anatomy import is_fused
from keras_mixer.models.anatomy import weights_of
from support.helpers import BATCH
from support.helpers import IMAGE
from support.helpers import assert_equal
from support.helpers import family_model
from support.helpers import matches
from support.helpers import randomise

WIDE = (8, 24, 3)


def backbone(family="mixer", **options):
    options = {"include_top": False, "pooling": "avg", **options}
    model = family_model(family, name=f"my_{family}", **options)
    randomise(model)
    return model


def sequential():
    return keras.Sequential(
        [
            keras.Input(IMAGE),
            keras.layers.RandomFlip("horizontal"),
            backbone(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(3, activation="softmax", name="mine"),
        ],
        name="photos",
    )


def functional():
    image = keras.Input(IMAGE, name="photo")
    x = keras.layers.RandomContrast(0.1)(image)
    x = backbone("resmlp")(x)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model({"photo": image}, {"class": keras.layers.Dense(3)(x)})


def two_backbones():
    image = keras.Input(IMAGE)
    normalization = keras.layers.Normalization()
    normalization.adapt(np.arange(2 * 8 * 12 * 3).reshape(2, *IMAGE))
    x = normalization(image)
    features = [backbone("mixer")(x), backbone("resmlp")(x)]
    x = keras.layers.Concatenate()(features)
    return keras.Model(image, keras.layers.Dense(3)(x))


def siamese():
    images = [keras.Input(IMAGE), keras.Input(IMAGE)]
    model = backbone()
    x = keras.ops.subtract(model(images[0]), model(images[1]))
    return keras.Model(images, keras.layers.Dense(3)(x))


def over_time():
    frames = keras.Input((4, *IMAGE))
    x = keras.layers.TimeDistributed(backbone(), name="each")(frames)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(frames, keras.layers.Dense(3)(x))


def deep():
    inner = keras.Sequential([backbone(), keras.layers.Dense(6)])
    image = keras.Input(IMAGE)
    x = keras.layers.Rescaling(0.5, offset=3)(image)
    return keras.Model([image], keras.layers.Dense(3)(inner(x)))


def any_size():
    image = keras.Input((None, None, 3))
    x = keras.layers.Resizing(*IMAGE[:2], interpolation="nearest")(image)
    return keras.Model(image, keras.layers.Dense(3)(backbone()(x)))


def twice():
    inner = backbone()
    image = keras.Input(IMAGE)
    x = keras.layers.Concatenate()(
        [inner(image), keras.Sequential([inner, keras.layers.Dense(6)])(image)]
    )
    return keras.Model(image, keras.layers.Dense(3)(x))


def augmented():
    """As Keras's guides do it, without the shape of the images."""
    flip = keras.Sequential([keras.layers.RandomFlip("horizontal")])
    image = keras.Input(IMAGE)
    x = keras.Sequential([keras.Input(IMAGE), keras.layers.RandomFlip()])(image)
    x = keras.Model(image, keras.layers.RandomBrightness(0.1)(image))(flip(x))
    return keras.Model(image, keras.layers.Dense(3)(backbone()(x)))


def augmented_sequential():
    flip = keras.Sequential([keras.layers.RandomFlip()])
    model = keras.Sequential([flip, backbone(), keras.layers.Dense(3)])
    model.build((None, *IMAGE))
    return model


class Custom(keras.Model):
    def train_step(self, *args):
        raise NotImplementedError


def flat():
    """A model of this package with operations and layers around it."""
    image = keras.Input(IMAGE)
    x = keras.layers.Lambda(lambda x: x + 3)(image / 50)
    model = backbone("resmlp", input_tensor=x, input_shape=None)
    x = keras.layers.Reshape((2, 5))(model.output)
    x = keras.layers.TimeDistributed(keras.layers.Dense(4))(x)
    x = keras.layers.Bidirectional(keras.layers.SimpleRNN(3))(x)
    x = keras.Sequential([keras.layers.Dense(7), keras.layers.ReLU()])(x)
    x = keras.layers.SpectralNormalization(keras.layers.Dense(3))(x)
    return Custom(image, keras.ops.tanh(x / 2))


def own_sequential():
    return keras.Sequential(backbone().layers)


class CustomSequential(keras.Sequential):
    pass


def custom_sequential():
    return CustomSequential(backbone().layers)


FORMS = (
    sequential,
    flat,
    custom_sequential,
    functional,
    two_backbones,
    siamese,
    over_time,
    deep,
    any_size,
    twice,
    augmented,
    augmented_sequential,
)
every_form = pytest.mark.parametrize("form", FORMS)
# Forms with one inner model that is not in a wrapper.
SINGLE = (sequential, own_sequential, functional, deep, any_size)


def inputs_of(model, images):
    """Images for each of the inputs of a model, each with other values."""

    def some(tensor):
        some.count += 1
        x = np.roll(images, some.count, axis=1)
        return x if len(tensor.shape) == 4 else np.stack([x, x, -x, x], axis=1)

    some.count = 0
    structure = model.input if hasattr(model, "input") else model.inputs[0]
    return keras.tree.map_structure(some, structure)


def call(model, inputs):
    inputs = keras.tree.map_structure(
        lambda x: keras.ops.convert_to_tensor(x, "float32"), inputs
    )
    return np.concatenate(
        [
            keras.ops.convert_to_numpy(x)
            for x in keras.tree.flatten(model(inputs, training=False))
        ]
    )


def widened(inputs):
    return keras.tree.map_structure(
        lambda x: np.concatenate([x, x], axis=-2), inputs
    )


def variables(model):
    return {id(variable) for variable in model.variables}


def names(model):
    return [
        (layer.name, type(layer).__name__)
        for layer in model._flatten_layers()
        if not isinstance(layer, keras.layers.InputLayer)
    ]


@pytest.mark.backends
@every_form
def test_resize_keeps_the_form_of_a_model(form, images):
    model = form()
    inputs = inputs_of(model, images)
    large = keras_mixer.resize(model, WIDE, "tile")
    assert type(large) is type(model)
    assert names(large) == names(model)
    # Each half of a wide image is processed as before, so the mean is equal.
    received = call(large, widened(inputs))
    np.testing.assert_allclose(
        received, call(model, inputs), rtol=1e-4, atol=1e-4
    )
    assert np.ptp(received) > 1e-2
    assert not variables(large) & variables(model)


@every_form
def test_fuse_keeps_the_form_of_a_model(form, images):
    model = form()
    inputs = inputs_of(model, images)
    fused = keras_mixer.fuse(model)
    assert type(fused) is type(model)
    assert [name for name, _ in names(fused) if name == "my_mixer"] == [
        name for name, _ in names(model) if name == "my_mixer"
    ]
    assert all(map(is_fused, inner_models(fused)))
    np.testing.assert_allclose(
        call(fused, inputs), call(model, inputs), rtol=1e-4, atol=1e-4
    )
    assert not variables(fused) & variables(model)
    assert keras_mixer.fuse(fused) is fused


@pytest.mark.parametrize("form", SINGLE)
def test_features_and_new_heads_keep_the_layers_in_front(form, images):
    model = form()
    inputs = inputs_of(model, images)
    (inner,) = inner_models(model)
    at = keras_mixer.features(model, -1, "pooled")
    expected = keras_mixer.features(inner, -1, "pooled")
    scaled = {deep: lambda x: 0.5 * x + 3}.get(form, lambda x: x)
    plain = scaled(np.concatenate(keras.tree.flatten(inputs)))
    np.testing.assert_allclose(
        call(at, inputs), call(expected, plain), rtol=1e-5, atol=1e-5
    )
    headed = keras_mixer.new_head(model, 2, activation=None)
    assert call(headed, inputs).shape == (BATCH, 2)
    headless = keras_mixer.new_head(model, None)
    np.testing.assert_allclose(
        call(headless, inputs), call(at, inputs), rtol=1e-5, atol=1e-5
    )


def test_head_of_a_nested_model_is_exported(tmp_path, images):
    model = sequential()
    keras_mixer.export_weights(model, tmp_path / "model.npz")
    loaded = family_model("mixer", classes=3, weights=tmp_path / "model.npz")
    np.testing.assert_allclose(
        call(loaded, images), call(model, images), rtol=1e-5, atol=1e-6
    )
    expected = weights_of(model.get_layer("my_mixer"))
    kernel, bias = model.get_layer("mine").get_weights()
    expected |= {"predictions/kernel": kernel, "predictions/bias": bias}
    assert_equal(weights_of(loaded), expected)


def test_tokens_of_a_nested_model_are_pooled_outside_of_it(tmp_path, images):
    model = keras.Sequential(
        [
            keras.Input(IMAGE),
            backbone(pooling=None),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    keras_mixer.export_weights(model, tmp_path / "model.npz")
    loaded = family_model("mixer", classes=3, weights=tmp_path / "model.npz")
    np.testing.assert_allclose(
        call(loaded, images), call(model, images), rtol=1e-5, atol=1e-6
    )


def test_settings_of_outer_layers_are_kept():
    model = sequential()
    model.get_layer("mine").kernel_regularizer = keras.regularizers.L2(0.1)
    model.get_layer("mine").trainable = False
    model.get_layer("my_mixer").get_layer("block_0").trainable = False
    for changed in (keras_mixer.resize(model, WIDE), keras_mixer.fuse(model)):
        mine = changed.get_layer("mine")
        assert not mine.trainable
        assert not mine.kernel.trainable
        assert mine.kernel_regularizer.l2 == pytest.approx(0.1)
        inner = changed.get_layer("my_mixer")
        assert not inner.get_layer("block_0").trainable_variables
        assert inner.get_layer("block_1").trainable_variables
        assert not changed.compiled


def test_model_built_from_a_list_is_resized(images):
    model = backbone()
    model = keras.Model(model.inputs, model.outputs)
    large = keras_mixer.resize(model, WIDE)
    np.testing.assert_allclose(
        call(large, [widened(images)]),
        call(model, [images]),
        rtol=1e-4,
        atol=1e-4,
    )


def test_compiled_model_with_an_own_loss_is_resized():
    model = backbone()
    model.compile(loss=lambda y, prediction: prediction - y)
    assert not keras_mixer.resize(model, WIDE).compiled


def nested_and_flat():
    inner = backbone()
    outer = keras.Sequential(
        [keras.Input(IMAGE), inner, keras.layers.Dense(10)]
    )
    return inner, outer


def pooled(model):
    made = keras_mixer.features(model, -1, "pooled")
    (output,) = made.output.values()
    return keras.Model(made.input, output)


@pytest.mark.backends
@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda model: keras_mixer.resize(model, IMAGE),
        keras_mixer.fuse,
        lambda model: keras_mixer.new_head(model, None),
        pooled,
    ],
    ids=["resize", "fuse", "new_head", "features"],
)
def test_two_models_from_one_are_trained_in_turn(make, is_nested, images):
    """On JAX, a training step deletes the values that it begins with."""
    model = nested_and_flat()[is_nested]
    made = make(model)
    images, targets = images.astype("float32"), np.ones((BATCH, 10))
    for trained, other in ((made, model), (model, made), (made, model)):
        if not trained.compiled:
            trained.compile("sgd", "mse")
        trained.train_on_batch(images, targets)
        assert np.isfinite(call(other, images)).all()


def test_new_head_keeps_an_own_class():
    assert type(keras_mixer.new_head(flat(), 2)) is Custom


def test_parts_are_found_under_other_names(images):
    image = keras.Input(IMAGE)
    x = keras.layers.Conv2D(10, 4, 4, name="patches")(image)
    x = keras.layers.Reshape((-1, 10))(x)
    x = keras_mixer.MixerBlock(7, 11, name="block_0")(x)
    x = keras.layers.LayerNormalization(name="last")(x)
    model = keras.Model(image, x)
    randomise(model)
    frozen = keras_mixer.freeze(model, "block_0")
    assert [x.name for x in frozen.layers if x.trainable_variables] == ["last"]
    mean = call(model, images).mean(1)
    at = keras_mixer.features(model, 0, "grid")
    assert at.output["block_0"].shape == (None, 2, 3, 10)
    for made in (keras_mixer.new_head(model, None), pooled(model)):
        np.testing.assert_allclose(call(made, images), mean, atol=1e-5)
    without = keras.Model(image, at.get_layer("block_0").output)
    message = "has no norm behind its last block. Use `norm=False`"
    with pytest.raises(ValueError, match=message):
        keras_mixer.features(without, norm=True)


class OwnArguments(keras.Model):
    def __init__(self, model):
        super().__init__(model.input, model.output)


class Halved(keras.Model):
    def call(self, inputs):
        return super().call(inputs) / 2


def halved():
    inner = backbone()
    return Halved(inner.input, keras.layers.Dense(3, "softmax")(inner.output))


def compiled_halved():
    model = halved()
    model.compile("sgd", "mse")
    return model


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.backbone = backbone()

    def call(self, inputs):
        return self.backbone(inputs)


ERRORS = [
    (
        twice,
        keras_mixer.features,
        "'my_mixer' must be in one layer of the model. Use the inner model.",
    ),
    (
        Subclassed,
        keras_mixer.fuse,
        "`model` must be a functional model, or a `Sequential`",
    ),
    (
        lambda: OwnArguments(backbone()),
        keras_mixer.fuse,
        "A model of the class `OwnArguments` cannot be built again, since its "
        "`__init__` may take other arguments. Use",
    ),
    (
        custom_sequential,
        lambda model: keras_mixer.new_head(model, 2),
        "A model of the class `CustomSequential` cannot be built again",
    ),
    (
        two_backbones,
        keras_mixer.features,
        "`model` must contain one model of this package. Pass one "
        "of the inner models, such as `model.get_layer('my_mixer')`. Received: "
        "model='...', which contains ['my_mixer', 'my_resmlp']",
    ),
    (
        two_backbones,
        lambda model: keras_mixer.export_weights(model, "unused.npz"),
        "`model` must contain one model of this package",
    ),
    (
        halved,
        lambda model: keras_mixer.export_weights(model, "unused.npz"),
        "`Halved.call` would be lost. Use a functional or `Sequential` model",
    ),
    (
        compiled_halved,
        lambda model: keras_mixer.push(model, "unused"),
        "`Halved.call` would be lost. Use a functional or `Sequential` model",
    ),
    (
        halved,
        lambda model: training.save_model("unused", model),
        "`Halved.call` would be lost. Use a functional or `Sequential` model",
    ),
    (
        over_time,
        keras_mixer.features,
        "The model 'my_mixer' is in the wrapper 'each'. Pass the "
        "inner model: `model.get_layer('each').layer`. Received",
    ),
    (
        siamese,
        keras_mixer.features,
        "'my_mixer' must be called once in the model. Received: "
        "model='...' with 2 calls",
    ),
]


@pytest.mark.parametrize(("form", "function", "message"), ERRORS)
def test_unsupported_forms_raise(
    form, function, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=matches(message)):
        function(form())


def check_resize_raises(model, message, shape=WIDE):
    with pytest.raises(ValueError, match=matches(message)):
        keras_mixer.resize(model, shape)


def test_resize_raises_if_outer_layers_do_not_fit():
    inner = backbone(pooling=None)
    flat = keras.layers.Flatten()
    model = keras.Sequential([inner, flat, keras.layers.Dense(3, name="mine")])
    check_resize_raises(
        model, "The weights of the layer 'mine' depend on the number of tokens"
    )
    image = keras.Input((16, 24, 3))
    halved = keras.layers.AveragePooling2D(2)(image)
    model = keras.Model(image, backbone()(halved))
    check_resize_raises(
        model, "A layer in front of the blocks, or behind them, does not fit"
    )
    image, other = keras.Input(IMAGE), keras.Input((16, 12, 3))
    taller = backbone("resmlp", input_shape=(16, 12, 3))
    model = keras.Model(
        [image, other],
        keras.layers.Concatenate()([backbone()(image), taller(other)]),
    )
    check_resize_raises(
        model, "The inner models must take images of the same shape"
    )
    check_resize_raises(
        sequential(), "`input_shape` must have the channels", (8, 25, 3)
    )
