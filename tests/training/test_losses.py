"""The losses of the recipes, and checks that a model and its loss fit."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from keras_mixer import data
from keras_mixer import recipes
from keras_mixer import training
from keras_mixer.training.losses import check_outputs
from support.helpers import BATCH
from support.helpers import CLASSES
from support.helpers import IMAGE
from support.helpers import compile_model
from support.helpers import family_model

LOSSES = ["nano.cifar10", "big_vision.imagenet"]  # softmax, sigmoid


def options_of(name, **options):
    recipe = recipes.RECIPES[name]
    return recipes.compile_options(recipe, 12, warmup_steps=2, **options)


@pytest.mark.backends
@pytest.mark.parametrize("jit_compile", [False, "auto"])
@pytest.mark.parametrize("name", LOSSES)
def test_integer_labels_raise_an_error_in_fit(tiny, images, name, jit_compile):
    model = tiny(classifier_activation=None)
    model.compile(**options_of(name), jit_compile=jit_compile)
    labels = np.arange(BATCH) % CLASSES
    with pytest.raises(ValueError, match=r"keras.ops.one_hot\(labels, 5\)"):
        model.fit(images, labels, batch_size=BATCH, verbose=0)


@pytest.mark.parametrize("name", LOSSES)
def test_labels_of_other_classes_raise_an_error(tiny, images, name):
    model = tiny(classifier_activation=None)
    model.compile(**options_of(name))
    labels = np.eye(4)[np.arange(BATCH) % 4]
    with pytest.raises(ValueError, match=r"labels of shape \(13, 4\)"):
        model.evaluate(images, labels, batch_size=BATCH, verbose=0)


@pytest.mark.backends
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_loss_equals_numpy(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 7))
    labels = rng.dirichlet(np.ones(7), 3)
    smooth = labels * (1 - smoothing) + smoothing / 7
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    recipe = recipes.RECIPES["resmlp.imagenet" if smoothing else "mixer_b.jft"]
    loss = recipes.compile_options(recipe, 12, warmup_steps=2)["loss"]
    assert loss.label_smoothing == smoothing
    assert float(loss(labels, logits)) == pytest.approx(
        np.mean(-(smooth * logs).sum(-1)), rel=1e-5
    )


@pytest.mark.backends
@pytest.mark.parametrize("name", LOSSES)
def test_compiled_model_is_saved_with_its_loss(tiny, images, tmp_path, name):
    model = tiny(classifier_activation=None)
    compile_model(model, **options_of(name))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    labels = np.eye(CLASSES)[np.arange(BATCH) % CLASSES]
    losses = [
        each.evaluate(images, labels, verbose=0)[0] for each in (model, loaded)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    with pytest.raises(ValueError, match="must be one-hot"):
        loaded.fit(images, labels.argmax(1), verbose=0)


def sequential(*added, shape=(6,)):
    return keras.Sequential([keras.Input(shape), *added])


def softmax_after_a_head():
    model = family_model("mixer", classifier_activation=None)
    return keras.Model(model.input, layers.Softmax()(model.output))


def nested_model():
    return sequential(layers.RandomFlip(), family_model("mixer"), shape=IMAGE)


PROBABILITIES = {
    "mixer": lambda: family_model("mixer"),
    "resmlp": lambda: family_model("resmlp", classifier_activation="sigmoid"),
    "softmax layer": softmax_after_a_head,
    "nested": nested_model,
    "nested twice": lambda: sequential(nested_model(), shape=IMAGE),
    "activation": lambda: sequential(
        layers.Dense(5), layers.Activation("softmax")
    ),
    "einsum": lambda: sequential(
        layers.EinsumDense("ab,bc->ac", 5, activation="softmax")
    ),
}
ON_LOGITS = {
    "softmax": lambda: options_of("nano.cifar10")["loss"],
    "sigmoid": lambda: options_of("big_vision.imagenet")["loss"],
    "keras": lambda: keras.losses.BinaryCrossentropy(from_logits=True),
}


@pytest.mark.parametrize("loss", ON_LOGITS)
@pytest.mark.parametrize("name", PROBABILITIES)
def test_probabilities_with_a_loss_on_logits_raise_an_error(name, loss):
    model, loss = PROBABILITIES[name](), ON_LOGITS[loss]()
    for compiled in (loss, [loss], {"predictions": loss}):
        with pytest.raises(
            ValueError,
            match=r"returns probabilities. .*`classifier_activation=None`",
        ):
            check_outputs(model, compiled)


LOGITS = {
    "mixer": lambda: family_model("mixer", classifier_activation=None),
    "nested": lambda: sequential(
        family_model("resmlp", classifier_activation=None), shape=IMAGE
    ),
    "dense": lambda: sequential(layers.Dense(5)),
}
ON_PROBABILITIES = {
    "name": "categorical_crossentropy",
    "class": "CategoricalCrossentropy",
    "function": keras.losses.binary_crossentropy,
    "focal": keras.losses.CategoricalFocalCrossentropy(),
    "sparse": keras.losses.SparseCategoricalCrossentropy(),
}


@pytest.mark.parametrize("loss", ON_PROBABILITIES)
@pytest.mark.parametrize("name", LOGITS)
def test_logits_with_a_loss_on_probabilities_raise_an_error(name, loss):
    with pytest.raises(ValueError, match=r"returns logits. .*from_logits=True"):
        check_outputs(LOGITS[name](), ON_PROBABILITIES[loss])


class Own(layers.Dense):
    """A layer that does something after its activation."""

    def call(self, inputs):
        return keras.ops.log(super().call(inputs))


def several_outputs():
    inputs = keras.Input((6,))
    heads = [layers.Dense(5, activation="softmax") for _ in range(2)]
    return keras.Model(inputs, [head(inputs) for head in heads])


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def test_models_that_may_be_right_are_accepted():
    on_logits = [make() for make in ON_LOGITS.values()]
    on_probabilities = list(ON_PROBABILITIES.values())
    others = ["mse", None, lambda y_true, y_pred: y_pred, "unknown"]
    probabilities = [make() for make in PROBABILITIES.values()]
    logits = [make() for make in LOGITS.values()]
    undecided = [
        sequential(Own(5, activation="softmax")),
        sequential(layers.Dense(5, activation="softplus")),
        sequential(layers.Dense(5, kernel_constraint="non_neg")),
        sequential(layers.Dense(5), layers.Activation("linear")),
        sequential(
            layers.Dense(5, activation="softmax"), layers.Rescaling(4.0)
        ),
        several_outputs(),
        Subclassed(),
        keras.Sequential([layers.Dense(5, activation="softmax")]),
    ]
    for models, losses in (
        (probabilities, on_probabilities + others),
        (logits, on_logits + others),
        (undecided, on_logits + on_probabilities + others),
    ):
        for model in models:
            for loss in losses:
                check_outputs(model, loss)
    check_outputs(several_outputs(), [on_logits[0]] * 2)


def test_options_for_a_model_with_probabilities_raise_an_error(tiny):
    with pytest.raises(ValueError, match="returns probabilities"):
        options_of("nano.cifar10", model=tiny())
    options_of("nano.cifar10", model=tiny(classifier_activation=None))


@functools.cache
def photos():
    import tensorflow as tf

    pixels = np.random.default_rng(0).integers(0, 256, (11, *IMAGE), "uint8")
    pixels, labels = tf.constant(pixels), tf.constant(np.arange(11) % CLASSES)
    part = data.Images(11, lambda i: (pixels[i], labels[i]), decoded=True)
    return data.Data("photos", tuple("abcde"), IMAGE, (), part, part)


@pytest.mark.parametrize(
    ("activation", "loss", "message"),
    [
        (
            "softmax",
            keras.losses.CategoricalCrossentropy(from_logits=True),
            "returns probabilities",
        ),
        (None, "categorical_crossentropy", "returns logits"),
        (
            None,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "The labels of the images are one-hot",
        ),
        (
            "softmax",
            "sparse_categorical_crossentropy",
            "The labels of the images are one-hot",
        ),
    ],
)
def test_fit_refuses_a_wrong_loss(tiny, tmp_path, activation, loss, message):
    model = tiny(classifier_activation=activation)
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match=message):
        training.fit(
            model, photos(), None, tmp_path, batch_size=11, epochs=1, verbose=0
        )
    assert not any(tmp_path.iterdir())
