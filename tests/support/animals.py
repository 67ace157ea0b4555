"""Tiny trainings on images that nothing can be learned from."""

import keras
import numpy as np

import keras_mixer
from keras_mixer import training
from support.helpers import randomise

TRAIN, VALIDATION = 23, 197


class Animals:
    """What `training.fit` needs of `data.Data`, without TensorFlow."""

    class_names = ("cat", "dog", "eel")

    def __init__(self):
        self.images, self.validation_images = (
            self._part(count) for count in (TRAIN, VALIDATION)
        )

    def _part(self, count):
        rng = np.random.default_rng((count, 8))  # the last epoch is not best
        pixels = rng.integers(0, 256, (count, 8, 12, 3), "uint8")
        return pixels, np.eye(3)[rng.integers(0, 3, count)]

    def steps_per_epoch(self, batch_size, drop_remainder=True):
        return TRAIN // batch_size

    def train(self, augmentation, batch_size, *, seed, start, **others):
        step = start
        while True:
            order = np.random.default_rng((seed, step)).permutation(TRAIN)
            yield tuple(each[order[:batch_size]] for each in self.images)
            step += 1

    def validation(self, batch_size, **others):
        return self.validation_images


def animals_model(metrics=("accuracy",), optimizer=None, **options):
    model = keras_mixer.Mixer(
        4,
        1,
        10,
        7,
        11,
        input_shape=(8, 12, 3),
        classes=3,
        classifier_activation=None,
    )
    randomise(model)
    model.compile(
        optimizer or keras.optimizers.SGD(0.3, **options),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=list(metrics),
    )
    return model


def fitted(folder, epochs, model=None, **options):
    """Returns the model, and what `fit` returns."""
    model = model or animals_model()
    run = training.open_run(folder, {})
    options = {"batch_size": 11, "verbose": 0, **options}
    log = training.fit(model, Animals(), None, run, epochs=epochs, **options)
    return model, log


def validated(model):
    """Returns the accuracy and the loss on the validation images."""
    results = model.evaluate(
        *Animals().validation(11), verbose=0, return_dict=True
    )
    return {f"val_{key}": value for key, value in results.items()}
