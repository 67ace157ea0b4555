"""Trains tiny models on several devices, in a separate process.

`python tests/distributing/distributed.py FILE RUN...`, where a run is
`kind:family:xla` or `kind:family:xla:accumulate`, writes the losses and the
weights of each run.
"""

import dataclasses
import sys

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_mixer
from keras_mixer import distributing
from keras_mixer import recipes

# All sizes are different, also from the parts of a batch: 10 on two replicas, 5
# on four.
IMAGE = (8, 6, 1)
TOKENS, TOKENS_DIM, HIDDEN_DIM, CHANNELS_DIM = 12, 14, 18, 22
CLASSES = 7
BATCH = 20
STEPS = 20


def digits():
    """Returns real digits, sorted by class within each batch.

    So the replicas get different classes.
    """
    data = load_digits()
    chosen = np.flatnonzero(data.target < CLASSES)[: STEPS * BATCH]
    batches = chosen.reshape(STEPS, BATCH)
    order = np.argsort(data.target[batches], axis=1, kind="stable")
    chosen = np.take_along_axis(batches, order, axis=1).ravel()
    images = data.images[chosen, :, 1:7, None] * (255 / 16)
    labels = np.eye(CLASSES)[data.target[chosen]]
    return images, labels


def tiny_model(family):
    options = {
        "input_shape": IMAGE,
        "classes": CLASSES,
        "classifier_activation": None,
    }
    if family == "mixer":
        model = keras_mixer.Mixer(
            2, 1, HIDDEN_DIM, TOKENS_DIM, CHANNELS_DIM, **options
        )
    else:
        model = keras_mixer.ResMLP(
            2, 1, HIDDEN_DIM, CHANNELS_DIM, 0.1, **options
        )
    # Weights must not be zero, or other gradients would be zero.
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        array = keras.ops.convert_to_numpy(variable)
        variable.assign(array + 0.2 * rng.standard_normal(array.shape))
    return model


def tiny_recipe(family):
    """Returns a recipe with decay and averages that clips in some steps."""
    if family == "mixer":
        recipe = recipes.RECIPES["finetune.cifar"]
        return dataclasses.replace(
            recipe, learning_rate=0.03, weight_decay=0.1, clip_norm=0.6
        )
    recipe = recipes.RECIPES["resmlp.imagenet"]
    return dataclasses.replace(recipe, learning_rate=0.02, ema=0.9)


class Losses(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))


def train(kind, family, xla, accumulate):
    """Returns the losses of 20 updates, then all weights and averages."""
    keras.utils.set_random_seed(3)
    options = {"model_devices": 2} if kind == "model" else {}
    with distributing.devices(kind, jit_compile=xla, **options) as devices:
        model = tiny_model(family)
        compile_options = recipes.compile_options(
            tiny_recipe(family), STEPS, warmup_steps=2, accumulate=accumulate
        )
        model.compile(**devices.compile_options(**compile_options))
        losses = Losses()
        model.fit(
            *digits(),
            batch_size=devices.local_batch_size(BATCH // accumulate),
            shuffle=False,
            verbose=0,
            callbacks=[losses],
        )
        variables, optimizer = model.weights, model.optimizer
        if optimizer.use_ema:
            variables = [*variables, *optimizer._model_variables_moving_average]
        return [
            # At the last batch of each update: means since the first batch.
            np.array(losses.losses[accumulate - 1 :: accumulate]),
            *map(keras.ops.convert_to_numpy, variables),
            np.array(devices.replicas),
        ]


def cut_cpu():
    """Splits TensorFlow's CPU into two devices."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )


def train_all(file, *runs):
    if keras.backend.backend() == "tensorflow":
        cut_cpu()
    arrays = {}
    for run in runs:
        kind, family, xla, *accumulate = run.split(":")
        accumulate = int(*accumulate or [1])
        trained = train(kind, family, xla == "xla", accumulate)
        for i, array in enumerate(trained):
            arrays[f"{run}/{i:03}"] = array
    np.savez(file, **arrays)


if __name__ == "__main__":
    keras.config.set_floatx("float64")  # Adam and LAMB would amplify rounding
    train_all(*sys.argv[1:])
