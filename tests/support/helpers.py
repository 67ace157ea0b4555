"""Sizes, tiny models, comparisons and processes, for many tests."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np

import keras_mixer
from keras_mixer.weights import loading

ROOT = pathlib.Path(__file__).parents[2]


GOLDEN = ROOT / "tests" / "golden"


# Every size a different number, so that no two axes can be confused.
SIZES = {
    "patch_size": 4,
    "num_blocks": 2,
    "hidden_dim": 10,
    "tokens_mlp_dim": 7,
    "channels_mlp_dim": 11,
}


IMAGE = (8, 12, 3)  # a grid of 2 x 3: six tokens


CLASSES = 5


BATCH = 13


FAMILIES = ("mixer", "resmlp")


def family_model(family, **options):
    """A tiny model of a family."""
    options = {"input_shape": IMAGE, "classes": CLASSES, **options}
    if family == "mixer":
        return keras_mixer.Mixer(**SIZES, **options)
    return keras_mixer.ResMLP(SIZES["patch_size"], 2, 10, 11, 0.1, **options)


def split_digits():
    """The real handwritten digits of scikit-learn: train and test pairs."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    pixels = (data.images * (255 / 16))[..., None].astype("float32")
    x, x_test, y, y_test = train_test_split(
        pixels, data.target, test_size=0.2, random_state=0, stratify=data.target
    )
    return (x, y), (x_test, y_test)


def digits_model(family, **options):
    """A model of a family for the digits, small enough to be trained here."""
    options = {"input_shape": (8, 8, 1), "classes": 10, **options}
    if family == "mixer":
        return keras_mixer.Mixer(2, 2, 48, 24, 96, **options)
    return keras_mixer.ResMLP(2, 2, 48, 96, 0.1, **options)


def compile_model(model, *args, **options):
    """Compiles, and makes what the optimizer keeps.

    TensorFlow traces a step twice that makes it: a third of some tests.
    """
    model.compile(*args, **options)
    model.optimizer.build(model.trainable_variables)


def train_on_digits(family, images, labels):
    """A model that knows about 96 % of other digits."""
    keras.utils.set_random_seed(7)
    model = digits_model(family)
    rate = {"mixer": 4e-3, "resmlp": 1e-2}[family]
    optimizer = keras.optimizers.AdamW(rate)
    compile_model(model, optimizer, "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=64, epochs=12, verbose=0)
    return model


def randomise(model, seed=0):
    """Fills every weight of a model with numbers such as training leaves.

    Returns `{path: array}`. Kernels keep the scale of their input, scales lie
    around 1 and offsets around 0; nothing is 0 or 1, so nothing can be left out
    unseen.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for path, variable in loading.variables_of(model.layers).items():
        array = rng.standard_normal(tuple(variable.shape))
        if path.endswith("kernel"):
            array /= np.sqrt(np.prod(array.shape[:-1]))
        else:
            array = 0.1 * array + path.endswith(("alpha", "norm/gamma"))
        arrays[path] = array.astype("float32")
        variable.assign(arrays[path])
    return arrays


def call(model, images):
    """The outputs of a model as arrays. `predict` would compile it."""
    images = keras.ops.convert_to_tensor(images, "float32")
    return keras.tree.map_structure(
        keras.ops.convert_to_numpy, model(images, training=False)
    )


def random_model(family, **options):
    """A tiny model of a family with weights such as training leaves."""
    model = family_model(family, **options)
    randomise(model)
    return model


def outputs(model, images):
    """The only outputs of a model, as an array."""
    images = keras.ops.convert_to_tensor(images, "float32")
    return keras.ops.convert_to_numpy(model(images, training=False))


def assert_equal(arrays, expected):
    assert arrays.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(arrays[path], array, err_msg=path)


def matches(message):
    return "^" + re.escape(message).replace(re.escape("..."), ".*")


def fit_tiny(model, images, **compile_options):
    labels = np.arange(BATCH) % CLASSES
    compile_model(
        model,
        keras.optimizers.Adam(1e-2),
        "sparse_categorical_crossentropy",
        **compile_options,
    )
    history = model.fit(images, labels, epochs=8, batch_size=BATCH, verbose=0)
    return history.history["loss"]


def computations_of_gelu(model, images):
    """How often one step, forward and backward, computes an activation."""
    count = 0
    for i in range(2):
        block = model.get_layer(f"block_{i}")
        for mixing in (block.token_mixing, block.channel_mixing):

            def counted(x):
                nonlocal count
                count += 1
                return keras.ops.sin(x)  # once in JAX's expression

            mixing.activation = counted
    if keras.backend.backend() == "torch":
        model(images, training=True).sum().backward()
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = keras.ops.sum(model(images, training=True))
        tape.gradient(loss, model.trainable_weights)
    else:
        import jax

        def loss(trainable):
            variables = [v.value for v in model.non_trainable_variables]
            y, _ = model.stateless_call(
                trainable, variables, images, training=True
            )
            return y.sum()

        trainable = [v.value for v in model.trainable_variables]
        return str(jax.make_jaxpr(jax.grad(loss))(trainable)).count("= sin ")
    return count


def python(code, *arguments, backend=None):
    """Runs Python code in a process of its own; returns what it printed."""
    env = dict(os.environ)
    env["KERAS_BACKEND"] = backend or keras.backend.backend()
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=env,
        cwd=ROOT,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_example(script, *arguments, backend="jax", cwd=ROOT, **env):
    """Runs a script of `examples/` to its end, whatever that is."""
    # Long enough to pay for being compiled.
    env = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", **env}
    return subprocess.run(
        [sys.executable, ROOT / "examples" / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend, **env},
        cwd=cwd,
        timeout=300,
        check=False,
    )


def save_digits(folder, images):
    """Writes digits as PNG files."""
    from PIL import Image

    folder.mkdir(parents=True)
    for i, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0].astype("uint8"))
        image.save(folder / f"{i}.png")
