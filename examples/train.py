"""Trains a Mixer from scratch; saves it and its learning curves.

    python examples/train.py

It needs no download: its handwritten digits come with scikit-learn. This is the
loop to read and to change; `python -m keras_mixer train` is the one for photos
and data sets of your own, with recipes, augmentation and checkpoints.
"""

import argparse
import pathlib
import sys
import time

import keras
import numpy as np

import keras_mixer
from data import load_digits


def main():
    args = argument_parser().parse_args()
    keras_mixer.arguments.check_local_path("output", args.output)
    keras.utils.set_random_seed(0)
    data = load_digits(8)
    model = small_mixer(data.image_shape, weights=None, classes=data.classes)
    args.output.mkdir(parents=True, exist_ok=True)

    start = time.perf_counter()
    history = train(model, data, args.epochs, args.batch_size)
    seconds = time.perf_counter() - start
    log = [
        {"epoch": epoch, **dict(zip(history, measured, strict=True))}
        for epoch, measured in enumerate(zip(*history.values(), strict=True))
    ]
    keras_mixer.training.plot(log, args.output / "curves.png")
    save(model, args.output / "model.keras", data.held_out)
    epochs = "1 epoch" if args.epochs == 1 else f"{args.epochs} epochs"
    print(
        f"Held-out accuracy: {100 * history['val_accuracy'][-1]:.1f} % on "
        f"{data.counts[1]} images (after {epochs}, {seconds:.0f} s)"
    )


def argument_parser():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--epochs", type=positive, default=12)
    add("--batch-size", type=positive, default=64)
    add("--output", type=pathlib.Path, default=pathlib.Path("runs", "train"))
    return parser


def positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def small_mixer(input_shape, **options):
    """A Mixer that learns small images in a minute without a GPU."""
    return keras_mixer.Mixer(
        patch_size=2 if input_shape[0] < 32 else 4,
        num_blocks=4,
        hidden_dim=64,
        tokens_mlp_dim=32,
        channels_mlp_dim=256,
        input_shape=input_shape,
        stochastic_depth_rate=0.1,
        **options,
    )


def train(model, data, epochs, batch_size):
    """Returns the value of every measure after each epoch."""
    steps = epochs * -(-data.counts[0] // batch_size)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=2e-3, warmup_steps=max(steps // 10, 1)
    )
    model.compile(
        keras.optimizers.AdamW(learning_rate, weight_decay=0.05),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model.fit(
        *data.train,
        validation_data=data.held_out,
        epochs=epochs,
        batch_size=batch_size,
    ).history


def save(model, file, held_out):
    """Saves the model, and shows that the file holds all of it."""
    model.save(file)
    loaded = keras.models.load_model(file)
    predictions = [m.predict(held_out[0], verbose=0) for m in (model, loaded)]
    if not np.array_equal(*predictions):
        sys.exit(f"{file}, loaded again, predicts something else.")
    print(f"Saved {file}; loaded again, it predicts exactly the same.")


if __name__ == "__main__":
    main()
