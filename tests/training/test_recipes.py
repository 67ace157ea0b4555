"""The published recipes, compared with NumPy."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_mixer import recipes
from keras_mixer.models.anatomy import weights_of
from keras_mixer.recipes import RECIPES
from keras_mixer.training.optimizers import PerUpdate
from support.helpers import CLASSES
from support.helpers import FAMILIES
from support.helpers import compile_model
from support.helpers import family_model
from support.helpers import randomise

# One of each optimizer and schedule, with and without averages.
SOME = (
    "big_vision.imagenet",
    "mixer_s.jft",
    "finetune.cifar",
    "resmlp.imagenet",
    "nano.cifar10",
)
STEPS = 40
WARMUP = 4


def expected_rate(recipe, step):
    progress = min(max((step - WARMUP) / (STEPS - WARMUP), 0), 1)
    left = {
        "linear": 1 - progress,
        "cosine": (1 + np.cos(np.pi * progress)) / 2,
    }[recipe.decay]
    end = recipe.final_fraction
    return (
        recipe.learning_rate * min(1, step / WARMUP) * (end + (1 - end) * left)
    )


@pytest.mark.parametrize("name", SOME)
def test_learning_rates_equal_the_published_schedules(name):
    recipe = RECIPES[name]
    options = recipes.compile_options(recipe, STEPS, warmup_steps=WARMUP)
    schedule = options["optimizer"]._learning_rate
    for step in (0, 1, 3, 4, 5, 22, 39, 40, 50):
        received = float(keras.ops.convert_to_numpy(schedule(step)))
        expected = expected_rate(recipe, step)
        assert received == pytest.approx(expected, rel=1e-5, abs=1e-9), step
    config = keras.optimizers.schedules.serialize(PerUpdate(schedule, 3))
    again = keras.optimizers.schedules.deserialize(config)
    for batch in (0, 14, 15, 17, 90):
        assert float(again(batch)) == float(schedule(batch // 3))


SHAPES = {"kernel": (3, 5), "bias": (5,), "gamma": (5,), "alpha": (2,)}


def adam(state, gradient, weight, rate, step):
    m, v = state
    m = 0.9 * m + 0.1 * gradient
    v = 0.999 * v + 0.001 * gradient**2
    m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.999**step)
    return (m, v), -rate * m_hat / (np.sqrt(v_hat) + 1e-8)


def sgd(state, gradient, weight, rate, step):
    momentum, _ = state
    momentum = 0.9 * momentum - rate * gradient
    return (momentum, 0), momentum


def lamb(state, gradient, weight, rate, step):
    state, change = adam(state, gradient, weight, 1, step)
    ratio = np.linalg.norm(weight) / np.linalg.norm(change)
    return state, rate * ratio * change


def muon(state, gradient, weight, rate, step):
    """Keller Jordan's Muon, scaled as in Moonlight; Adam for vectors."""
    if weight.ndim != 2:
        return adam(state, gradient, weight, rate, step)
    momentum, _ = state
    momentum = 0.95 * momentum + gradient
    x = gradient + 0.95 * momentum
    x = x / np.linalg.norm(x)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (momentum, 0), -rate * 0.2 * np.sqrt(max(x.shape)) * x


@pytest.mark.backends
@pytest.mark.parametrize("name", SOME[1:])
def test_ten_steps_equal_numpy(name):
    """Clipping, schedule, decoupled decay of kernels only, and averages."""
    recipe = RECIPES[name]
    options = recipes.compile_options(recipe, STEPS, warmup_steps=WARMUP)
    optimizer = options["optimizer"]
    rng = np.random.default_rng(0)
    weights = {key: 1 + rng.standard_normal(s) for key, s in SHAPES.items()}
    variables = [
        keras.Variable(weight, name=key, dtype="float32")
        for key, weight in weights.items()
    ]
    optimizer.build(variables)
    states = {key: (np.zeros(s), np.zeros(s)) for key, s in SHAPES.items()}
    average = dict(weights)
    change_of = {"adam": adam, "sgd": sgd, "lamb": lamb, "muon": muon}
    change_of = change_of[recipe.optimizer]
    for step in range(10):
        gradients = {key: rng.standard_normal(s) for key, s in SHAPES.items()}
        optimizer.apply(
            [
                keras.ops.convert_to_tensor(gradients[key], "float32")
                for key in SHAPES
            ],
            variables,
        )
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        clip = min(1, (recipe.clip_norm or np.inf) / norm)
        rate = expected_rate(recipe, step)
        for key, weight in weights.items():
            if key == "kernel":
                weight = weight * (1 - rate * recipe.weight_decay)
            states[key], change = change_of(
                states[key], clip * gradients[key], weight, rate, step + 1
            )
            weights[key] = weight + change
            momentum = (recipe.ema or 0) if step else 0
            average[key] = (
                momentum * average[key] + (1 - momentum) * weights[key]
            )
    assert_close(variables, weights)
    if recipe.ema:
        assert_close(optimizer._model_variables_moving_average, average)


def assert_close(variables, expected):
    for key, variable in zip(SHAPES, variables, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(variable),
            expected[key],
            rtol=1e-5,
            atol=1e-6,
            err_msg=key,
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_only_kernels_decay(family):
    recipe = RECIPES["big_vision.imagenet"]
    options = recipes.compile_options(recipe, STEPS, warmup_steps=WARMUP)
    model = family_model(family)
    decayed = {
        variable.path.rpartition("/")[2]
        for variable in model.trainable_variables
        if options["optimizer"]._use_weight_decay(variable)
    }
    assert decayed == {"kernel"}


def test_sigmoid_loss_is_summed_over_classes():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((3, 7)), rng.uniform(size=(3, 7))
    sigmoid = 1 / (1 + np.exp(-logits))
    expected = -labels * np.log(sigmoid) - (1 - labels) * np.log(1 - sigmoid)
    received = recipes.sigmoid_crossentropy(labels, logits)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(received), expected.sum(1), rtol=1e-5
    )


@pytest.mark.backends
@pytest.mark.parametrize("name", ["big_vision.imagenet", "resmlp.imagenet"])
def test_each_recipe_trains_a_model(name, images):
    model = family_model(
        "resmlp" if "resmlp" in name else "mixer", classifier_activation=None
    )
    recipe = dataclasses.replace(RECIPES[name], learning_rate=0.01)
    options = recipes.compile_options(recipe, 12, warmup_steps=2)
    compile_model(model, **options)
    labels = np.eye(5)[np.arange(len(images)) % 5]
    history = model.fit(
        images, labels, batch_size=len(images), epochs=12, verbose=0
    ).history
    assert history["loss"][-1] < history["loss"][0]
    assert history.keys() == {"accuracy", "loss"}


def test_recipes_are_complete():
    for name, recipe in RECIPES.items():
        assert (recipe.epochs is None) != (recipe.steps is None), name
        assert (recipe.warmup_steps is None) != (
            recipe.warmup_epochs is None
        ), name
        assert recipe.source, name


def test_warm_up_is_that_of_the_recipe():
    resmlp = recipes.compile_options(RECIPES["resmlp.imagenet"], 800)
    assert resmlp["optimizer"]._learning_rate.warmup_steps == 10


def test_recipes_change_only_for_fewer_steps_than_published():
    recipe = RECIPES["finetune.cifar"]
    assert recipes.shortened(recipe, recipe.steps) == recipe
    fewer = recipes.shortened(recipe, recipe.steps // 2)
    assert fewer.warmup_steps == min(recipe.warmup_steps, recipe.steps // 20)


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_decay_lowers_the_rates_of_early_blocks(family, images):
    """In one step of plain SGD, the change is proportional to the rate."""
    model = family_model(family, classifier_activation=None)
    plain = dataclasses.replace(
        RECIPES["finetune.cifar"],
        decay="linear",
        clip_norm=None,
        learning_rate=0.5,
    )
    steps = {}
    for decay in (1.0, 0.25):
        randomise(model)
        before = weights_of(model)
        options = recipes.compile_options(
            plain, 100, warmup_steps=0, layer_decay=decay, model=model
        )
        compile_model(model, **options)
        model.train_on_batch(images, np.eye(len(images), CLASSES))
        after = weights_of(model)
        steps[decay] = {key: after[key] - before[key] for key in before}
    assert [each.name for each in model.optimizer.optimizers] == [
        "block_1",
        "block_0",
        "stem",
        "head",
    ]
    assert float(model.optimizer.learning_rate) == pytest.approx(0.5, rel=0.1)
    depths = {"stem": 3, "block_0": 2, "block_1": 1, "norm": 0}
    for path, moved in steps[0.25].items():
        depth = depths.get(path.split("/")[0], 0)
        np.testing.assert_allclose(
            moved,
            0.25**depth * steps[1.0][path],
            rtol=1e-3,
            atol=1e-6,
            err_msg=path,
        )
        # The gradient of some biases is 0: the next norm removes a shift that
        # is equal in all channels.
        assert np.abs(moved).max() > 1e-5 or path.endswith("bias"), path


UPDATES, BATCHES = 4, 3


def after_updates(recipe, gradients, accumulate):
    """Returns weights after some gradients, and their averages."""
    optimizer = recipes.compile_options(
        recipe, STEPS, warmup_steps=WARMUP, accumulate=accumulate
    )["optimizer"]
    rng = np.random.default_rng(0)
    variables = [
        keras.Variable(
            1 + rng.standard_normal(shape), name=name, dtype="float32"
        )
        for name, shape in SHAPES.items()
    ]
    optimizer.build(variables)
    for step in gradients:
        optimizer.apply(
            [keras.ops.convert_to_tensor(each, "float32") for each in step],
            variables,
        )
    assert int(optimizer.iterations) == len(gradients) // accumulate
    if recipe.ema:
        variables += optimizer._model_variables_moving_average
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


@pytest.mark.backends
@pytest.mark.parametrize("name", ["finetune.cifar", "resmlp.imagenet"])
def test_accumulated_batches_update_as_one_large_batch(name):
    """With the clipping, schedule, decay and averages of the recipe."""
    recipe = RECIPES[name]
    if recipe.ema:
        recipe = dataclasses.replace(recipe, ema=0.9)
    rng = np.random.default_rng(1)
    small = [
        [rng.standard_normal(shape) for shape in SHAPES.values()]
        for _ in range(UPDATES * BATCHES + BATCHES - 1)
    ]
    large = [
        [np.mean(each, 0) for each in zip(*small[i : i + BATCHES], strict=True)]
        for i in range(0, UPDATES * BATCHES, BATCHES)
    ]
    expected = after_updates(recipe, large, 1)
    # The last batches change no weight. After them, the averages have moved as
    # far as with large batches.
    received = after_updates(recipe, small, BATCHES)
    for value, wanted in zip(received, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-5)


def test_accumulation_of_keras_counts_batches():
    """The reason for `PerUpdate`. If this test fails, remove it."""
    schedule = recipes.LinearDecay(0.5, steps=10)
    sgd = keras.optimizers.SGD(schedule, gradient_accumulation_steps=5)
    weight = keras.Variable([1.0])
    sgd.build([weight])
    for _ in range(5):
        sgd.apply([keras.ops.ones(1)])
    assert int(sgd.iterations) == 1
    assert float(sgd.learning_rate) == float(schedule(5))


@pytest.mark.backends
def test_fit_with_accumulated_batches_equals_fit_with_large_batches():
    recipe = dataclasses.replace(
        RECIPES["finetune.cifar"], learning_rate=0.03, weight_decay=0.1
    )
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (60, 8, 12, 3))
    labels = rng.dirichlet(np.ones(CLASSES), 60)
    weights = []
    for batch_size, accumulate in ((12, 1), (4, 3)):
        model = family_model("mixer", classifier_activation=None)
        before = randomise(model)
        compile_model(
            model,
            **recipes.compile_options(
                recipe,
                STEPS,
                warmup_steps=WARMUP,
                layer_decay=0.7,
                model=model,
                accumulate=accumulate,
            ),
        )
        model.fit(
            images, labels, batch_size=batch_size, shuffle=False, verbose=0
        )
        weights.append(weights_of(model))
    large, small = weights
    for path, array in large.items():
        np.testing.assert_allclose(
            small[path], array, rtol=0, atol=1e-5, err_msg=path
        )
    kernel = "block_0/channel_mixing/dense_0/kernel"
    assert np.abs(large[kernel] - before[kernel]).max() > 1e-3


WRONG = [
    ({"accumulate": 0}, ValueError, "`accumulate` must be a positive int"),
    ({"accumulate": 2.0}, TypeError, "`accumulate` must be a positive int"),
    ({"steps": 1000.0}, TypeError, "`steps` must be a positive int"),
    ({"steps": 300}, ValueError, "Received: 500 steps of 300"),
    ({"layer_decay": 0.5}, ValueError, "`layer_decay` needs `model`"),
    ({"layer_decay": 0}, ValueError, r"must be in \(0, 1\]"),
    ({"layer_decay": 1.5}, ValueError, r"must be in \(0, 1\]"),
    ({"layer_decay": np.nan}, ValueError, "must be a finite number"),
]


@pytest.mark.parametrize(("changed", "error", "message"), WRONG)
def test_wrong_options_raise_errors(changed, error, message):
    given = {"steps": 1000, **changed}
    with pytest.raises(error, match=message):
        recipes.compile_options(RECIPES["finetune.cifar"], **given)


def test_more_metrics_are_compiled():
    metric = keras.metrics.TopKCategoricalAccuracy(2)
    options = recipes.compile_options(
        RECIPES["finetune.cifar"], 1000, metrics=[metric]
    )
    assert options["metrics"] == ["accuracy", metric]
