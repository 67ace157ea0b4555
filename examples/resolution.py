"""Trains a Mixer on small images, then takes it to images twice the size.

    python examples/resolution.py
    python examples/resolution.py --data photos --epochs 10 --fine-tune-epochs 2
    python examples/resolution.py --images 200

The first needs no download: its handwritten digits come with scikit-learn, and
are enlarged from 8 x 8 pixels. `--data` takes what `train.py` takes, and needs
TensorFlow as that does; photos are flipped and shifted while training.

For each method of `keras_mixer.resize`, the table tells the held-out accuracy
of the resized model as it is, and after a short training on the large images
at a quarter of the learning rate. To compare with: "not resized" has the same
short training, on the small images; models trained from scratch on the large
images, as narrow as "interpolate", have the epochs of the short training, or of
both. Seconds are of the training in the row, compiling included.
"""

import argparse
import pathlib
import time

import keras
import numpy as np
from train import positive

import keras_mixer
from data import load_digits
from data import load_folder

METHODS = ("tile", "interleave", "interpolate")
LEARNING_RATE = 2e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=pathlib.Path, help="folder of folders")
    add("--low", type=positive, help="side of the small images in pixels")
    add("--images", type=positive, help="at most so many, for a quick trial")
    add("--epochs", type=positive, default=4)
    add("--fine-tune-epochs", type=positive, default=1)
    add("--batch-size", type=positive, default=64)
    args = parser.parse_args()
    try:
        low, high = load(args)
        small = mixer(low)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))

    def row(name, model, data, epochs, rate, before=""):
        seconds = fit(model, data, epochs, args.batch_size, rate)
        numbers = f"{before} | {accuracy(model, data)} | {seconds:.0f}"
        print(f"| {name} | {model.count_params():,} | {numbers} |", flush=True)

    seconds = fit(small, low, args.epochs, args.batch_size, LEARNING_RATE)
    print(f"Trained on small images, epochs: {args.epochs}, {seconds:.0f} s.\n")
    print("| method | parameters | before [%] | after [%] | seconds |")
    print("|---|--:|--:|--:|--:|")
    short, long = args.fine_tune_epochs, args.epochs + args.fine_tune_epochs
    resized = [(method, method, high) for method in METHODS]
    for name, method, data in [("not resized", "auto", low), *resized]:
        model = keras_mixer.resize(small, data[0][0].shape[1:], method=method)
        before = accuracy(model, data)
        row(name, model, data, short, LEARNING_RATE / 4, before)
    for epochs in (short, long):
        name = f"from scratch, epochs: {epochs}"
        row(name, mixer(high), high, epochs, LEARNING_RATE)


def load(args):
    """The same images, small and large: each to train on and held out."""
    low = args.low or (8 if args.data is None else 16)
    if args.data is None:
        both = [load_digits(size)[:2] for size in (low, 2 * low)]
    else:
        parts = load_folder(args.data, 2 * low, args.batch_size)[:2]
        high = [in_memory(dataset) for (dataset,) in parts]
        both = [[(halved(x), y) for x, y in high], high]
    return [[some(*part, args.images) for part in parts] for parts in both]


def in_memory(dataset):
    batches = [(x.numpy().round().astype("uint8"), y) for x, y in dataset]
    return [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]


def halved(x):
    """Each pixel is the mean of four."""
    x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3])
    return x.mean(axis=(2, 4), dtype="float32").round().astype("uint8")


def some(x, y, count):
    order = np.random.default_rng(0).permutation(len(y))[:count]
    return x[order], y[order]


def mixer(data):
    keras.utils.set_random_seed(0)
    x, y = data[0]
    return keras_mixer.Mixer(
        patch_size=2 if x.shape[-1] == 1 else 4,  # of digits, of photos
        num_blocks=4,
        hidden_dim=64,
        tokens_mlp_dim=32,
        channels_mlp_dim=256,
        input_shape=x.shape[1:],
        classes=int(y.max()) + 1,
        stochastic_depth_rate=0.1,
    )


def fit(model, data, epochs, batch_size, rate):
    """Trains with warm-up and cosine decay; returns the seconds it took."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, y = data[0]
    steps = epochs * -(-len(y) // batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=rate, warmup_steps=max(steps // 10, 1)
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.05)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    start = time.perf_counter()
    for _ in range(epochs):  # one schedule through all of them
        images = x if x.shape[-1] == 1 else augmented(x, rng)
        model.fit(images, y, batch_size=batch_size, verbose=0)
    return time.perf_counter() - start


def augmented(x, rng):
    """Flips and shifts each, an eighth at most; the edge is repeated."""
    count, size = x.shape[:2]
    shift = rng.integers(-(size // 8), size // 8 + 1, (2, count, 1))
    rows, columns = np.clip(np.arange(size) + shift, 0, size - 1)
    is_flipped = rng.random((count, 1)) < 0.5
    columns = np.where(is_flipped, columns[:, ::-1], columns)
    return x[np.arange(count)[:, None, None], rows[..., None], columns[:, None]]


def accuracy(model, data):
    x, y = data[1]
    predictions = model.predict(x, batch_size=500, verbose=0)
    return f"{100 * np.mean(predictions.argmax(axis=-1) == y):.1f}"


if __name__ == "__main__":
    main()
