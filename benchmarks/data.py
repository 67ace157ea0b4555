"""How many images a core prepares in a second, and where the time goes.

    KERAS_BACKEND=jax python benchmarks/data.py FOLDER [SIDE]

FOLDER is as `keras_mixer.data.load_folder` takes it, of photos as JPEG; SIDE is
224 by default. Images are read, decoded and augmented as in training, in
batches of 64; nothing is kept in memory. Time is that of the processor, of all
threads together: it says what a core does, also where other work is going on
beside. Each row adds one stage to the crop with which all begin; the last rows
are whole recipes.
"""

import dataclasses
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_mixer import data
from keras_mixer.data import indexed
from keras_mixer.recipes import RECIPES
from keras_mixer.recipes import Augmentation

BATCH = 64
STEPS = 40

CROP = Augmentation(flip=False)
STAGES = {
    "resize and centre crop": None,
    "decode and inception crop": CROP,
    "+ flip": dataclasses.replace(CROP, flip=True),
    "+ RandAugment (2, 15)": dataclasses.replace(CROP, randaugment=(2, 15)),
    "+ MixUp": dataclasses.replace(CROP, mixup=0.5),
    "+ CutMix": dataclasses.replace(CROP, cutmix=1.0),
    "+ erasing (0.25)": dataclasses.replace(CROP, erasing=0.25),
}
NAMES = ("finetune.imagenet", "mixer_b.imagenet", "resmlp.imagenet")


def main():
    folder, side = sys.argv[1], int((sys.argv[2:] or ["224"])[0])
    indexed.MAX_BYTES_KEPT = 0
    start = time.process_time()
    images = data.load_folder(folder, side)
    count = images.train_count + images.test_count
    checking = (time.process_time() - start) / count
    print(f"{count} images of '{folder}' at {side} x {side}")
    print(f"{'checking while loading':28} {1e3 * checking:7.2f} ms")
    crop = None
    for name, augmentation in STAGES.items():
        seconds = seconds_per_image(images.train(augmentation, BATCH))
        beyond = ""
        if name.startswith("+"):
            beyond = f"   + {1e3 * (seconds - crop):.2f} ms"
        elif augmentation is CROP:
            crop = seconds
        show(name, seconds, beyond)
    for name in NAMES:
        augmentation = RECIPES[name].augmentation
        show(name, seconds_per_image(images.train(augmentation, BATCH)))
    show("evaluation", seconds_per_image(images.test(BATCH).repeat()))


def seconds_per_image(batches):
    batches = iter(batches)
    next(batches)
    start = time.process_time()
    for _ in range(STEPS):
        next(batches)
    return (time.process_time() - start) / (STEPS * BATCH)


def show(name, seconds, beyond=""):
    print(
        f"{name:28} {1e3 * seconds:7.2f} ms {1 / seconds:8.0f} images/s"
        + beyond,
        flush=True,
    )


if __name__ == "__main__":
    main()
