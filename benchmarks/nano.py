"""Trains `MixerNano(weights="cifar10")`, from the photos to the file.

    KERAS_BACKEND=torch python benchmarks/nano.py --data FOLDER

`FOLDER` has `train` and `test`, each with a folder of images for each class.
Killed and started again, it goes on after the last epoch that was done.

The recipe is `RECIPES["nano.cifar10"]`. What it has no field for is here: two
initial values, which spare a short training what a long one learns by itself,
and the exact GELU, which PyTorch has in half the time of the tanh form on a
CPU. The file is for the tanh form, as every Mixer's, and measured with it.

- The stem begins with the principal components of the patches, whitened, each
  with its negative, as in the fast trainings of convolutional networks.
- Token mixing begins local: each hidden unit looks at the patches around one
  place, with random weights, and writes to the patches around it.
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np

import keras_mixer
from keras_mixer import data
from keras_mixer import training
from keras_mixer.recipes import RECIPES
from keras_mixer.training.optimizers import compile_options

SIDE, PATCH = 32, 4
WIDTH = 1.5  # of what a hidden unit looks at, in patches
SEED = 0


def main():
    args = parse_arguments()
    recipe = RECIPES["nano.cifar10"]
    keras.utils.set_random_seed(SEED)
    images = data.load_folder(args.data, SIDE)
    run = training.open_run(
        args.output,
        {"epochs": args.epochs, "seed": SEED},
        {"recipe": dataclasses.asdict(recipe)},
    )
    model = build(weights=None, activation="gelu", classifier_activation=None)
    whiten(model.get_layer("stem"), sample(images))
    rng = np.random.default_rng(SEED)
    for layer in model.layers:
        if layer.name.startswith("block_"):
            localise(layer.token_mixing, rng)
    steps = args.epochs * images.steps_per_epoch(recipe.batch_size)
    model.compile(**compile_options(recipe, steps))
    training.fit(
        model,
        images,
        recipe.augmentation,
        run,
        batch_size=recipe.batch_size,
        epochs=args.epochs,
        seed=SEED,
        # A tenth of them, in passing; all are counted in the end.
        validation_data=images.test(100, crop_ratio=1.0).shard(10, 0),
        verbose=2,
    )
    file = run / "mixer_nano.cifar10.npz"
    keras_mixer.export_weights(model, file)
    exported = build(weights=file)
    exported.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    training.finish(
        run,
        exported.evaluate(images.test(500, crop_ratio=1.0), return_dict=True),
    )


def build(**options):
    return keras_mixer.MixerNano(
        input_shape=(SIDE, SIDE, 3), classes=10, **options
    )


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=pathlib.Path, required=True)
    add("--epochs", type=int, default=RECIPES["nano.cifar10"].epochs)
    add("--output", type=pathlib.Path, default=pathlib.Path("runs", "nano"))
    return parser.parse_args()


def sample(images):
    """5000 of the images, as they are, between -1 and 1."""
    ((pixels, _),) = images.train(None, 5000).take(1)
    return pixels.numpy() / 127.5 - 1


def whiten(stem, images):
    patches = images.reshape(len(images), -1, PATCH, SIDE // PATCH, PATCH, 3)
    patches = patches.swapaxes(2, 3).reshape(-1, PATCH * PATCH * 3)
    variances, components = np.linalg.eigh(np.cov(patches.T))
    filters = (components / np.sqrt(variances + 0.01))[:, ::-1]
    kernel = keras.ops.convert_to_numpy(stem.kernel)
    flat = kernel.reshape(filters.shape[0], -1).copy()
    flat[:, : 2 * filters.shape[1]] = np.hstack([filters, -filters])
    stem.kernel.assign(flat.reshape(kernel.shape))


def localise(token_mixing, rng):
    side = SIDE // PATCH
    places = np.stack(np.divmod(np.arange(side**2), side), axis=1)
    for kernel in (token_mixing.dense_0.kernel, token_mixing.dense_1.kernel):
        rows, columns = (np.resize(places, (n, 2)) for n in kernel.shape)
        squares = ((rows[:, None] - columns[None]) ** 2).sum(-1)
        near = np.exp(-squares / (2 * WIDTH**2))
        weights = near * rng.standard_normal(near.shape)
        kernel.assign(weights / np.linalg.norm(weights, axis=0))


if __name__ == "__main__":
    main()
