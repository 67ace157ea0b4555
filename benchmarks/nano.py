"""Trains `MixerNano(weights="cifar10")`, from the photos to the file.

    KERAS_BACKEND=torch python benchmarks/nano.py --data FOLDER

`FOLDER` has `train` and `test`, each with a folder of images for each class.
Killed and started again, it goes on after the last epoch that was done.

The recipe is `RECIPES["nano.cifar10"]`, with borders that are mirrored, not
black, where an image is moved. What it has no field for is here: two initial
values, which spare a short training what a long one learns by itself.

- The stem begins with the principal components of the patches, whitened, each
  with its negative, as in the fast trainings of convolutional networks.
- Token mixing begins local: each hidden unit looks at the patches around one
  place, with random weights, and writes to the patches around it.
"""

import argparse
import json
import pathlib

import keras
import numpy as np
from PIL import Image

import keras_mixer
from keras_mixer.checkpoints import Checkpoints
from keras_mixer.recipes import RECIPES
from keras_mixer.recipes import compile_options
from keras_mixer.training import StopOnLostLoss

SIDE, PATCH, PAD = 32, 4, 4
WIDTH = 1.5  # of what a hidden unit looks at, in patches
SEED = 0


def main():
    args = parse_arguments()
    train, test = (read(args.data, part) for part in ("train", "test"))
    keras.utils.set_random_seed(SEED)
    model = build(weights=None, classifier_activation=None)
    whiten(model.get_layer("stem"), train[0])
    rng = np.random.default_rng(SEED)
    for layer in model.layers:
        if layer.name.startswith("block_"):
            localise(layer.token_mixing, rng)
    batches = Batches(*train, RECIPES["nano.cifar10"].batch_size)
    steps = args.epochs * len(batches)
    model.compile(**compile_options(RECIPES["nano.cifar10"], steps))
    checkpoints = Checkpoints(args.output / "checkpoints")
    done = batches.epoch = checkpoints.restore(model)
    model.fit(
        batches,
        # A tenth, in passing; all of them are counted in the end.
        validation_data=(test[0][::10], np.eye(10)[test[1][::10]]),
        initial_epoch=done,
        epochs=args.epochs,
        shuffle=False,
        verbose=2,
        callbacks=[
            checkpoints,
            StopOnLostLoss(),
            keras.callbacks.CSVLogger(args.output / "log.csv", append=True),
        ],
    )
    file = args.output / "mixer_nano.cifar10.npz"
    keras_mixer.export_weights(model, file)
    exported = build(weights=file)
    right = exported.predict(test[0], 500, verbose=0).argmax(1) == test[1]
    print(json.dumps({"epochs": args.epochs, "accuracy": right.mean()}))


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
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    return args


def read(folder, part):
    """The images and labels of a part; folders in the order of their names."""
    classes = sorted(path for path in (folder / part).iterdir())
    files = [sorted(path.iterdir()) for path in classes]
    images = [np.asarray(Image.open(f)) for row in files for f in row]
    return np.stack(images), np.repeat(range(len(files)), [*map(len, files)])


class Batches(keras.utils.PyDataset):
    """Images that are shifted and mirrored, as a function of the step."""

    def __init__(self, images, labels, batch_size):
        super().__init__()
        edges = ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0))
        self.images = np.pad(images, edges, mode="reflect")
        self.labels = np.eye(10, dtype="float32")[labels]
        self.batch_size = batch_size
        self.epoch = 0

    def __len__(self):
        return len(self.labels) // self.batch_size

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, step):
        order = np.random.default_rng((SEED, self.epoch))
        order = order.permutation(len(self.labels))
        chosen = order[step * self.batch_size :][: self.batch_size]
        rng = np.random.default_rng((SEED, self.epoch, step))
        rows, columns = rng.integers(
            0, 2 * PAD + 1, (2, self.batch_size, 1)
        ) + np.arange(SIDE)
        mirrored = rng.random(self.batch_size) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
        images = self.images[
            chosen[:, None, None], rows[:, :, None], columns[:, None, :]
        ]
        return images, self.labels[chosen]


def whiten(stem, images):
    images = images[:: len(images) // 5000] / 127.5 - 1
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
