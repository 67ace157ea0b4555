"""Images to train on and images held out: digits, or a folder of photos.

Not a script: the others use it. Folders are read by TensorFlow, on whatever
backend the training runs. `keras_mixer.data` does more: it reads the data sets
of TFDS, augments images, and begins at any step.
"""

from typing import NamedTuple

import keras
import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split


class Data(NamedTuple):
    train: tuple  # what `model.fit` takes: (images, labels), or (dataset,)
    held_out: tuple
    counts: tuple  # images in the two
    image_shape: tuple
    classes: int


def load_digits(size):
    """The handwritten digits of scikit-learn, enlarged from 8 x 8 pixels.

    Those to train on come five times, in place and shifted by one of the 8 x 8
    pixels: there are few of them, and a shifted digit remains what it is.
    """
    digits = datasets.load_digits()
    images = (digits.images[..., None] * (255 / 16)).astype("uint8")
    if size != 8:
        images = keras.ops.image.resize(images, (size, size))
        images = keras.ops.convert_to_numpy(images)
    x, x_held_out, y, y_held_out = train_test_split(
        images,
        digits.target,
        test_size=0.2,
        random_state=0,
        stratify=digits.target,
    )
    step = max(size // 8, 1)
    shifts = ((0, 0), (step, 0), (-step, 0), (0, step), (0, -step))
    x = np.concatenate([np.roll(x, shift, axis=(1, 2)) for shift in shifts])
    y = np.tile(y, len(shifts))
    return Data(
        train=(x, y),
        held_out=(x_held_out, y_held_out),
        counts=(len(y), len(y_held_out)),
        image_shape=(size, size, 1),
        classes=10,
    )


def load_folder(folder, size, batch_size):
    """Images in folders named like their classes.

    The folders lie in `folder / "train"` and `folder / "test"`, or all in
    `folder`, where a fifth of the images is held out.
    """
    options = {
        "image_size": (size, size),
        "batch_size": batch_size,
        "crop_to_aspect_ratio": True,
        "seed": 0,
    }
    read = keras.utils.image_dataset_from_directory
    parts = (folder / "train", folder / "test")
    in_parts = all(part.is_dir() and _folders(part) for part in parts)
    names = _folders(parts[0] if in_parts else folder)
    if len(names) < 2:
        raise ValueError(
            f"'{folder}' must hold a folder of images for each class, and two "
            f"classes at least. Received the folders {names}"
        )
    if in_parts:
        train = read(parts[0], **options)
        held_out = read(parts[1], class_names=names, shuffle=False, **options)
    else:
        train, held_out = read(
            folder, validation_split=0.2, subset="both", **options
        )
    return Data(
        train=(train,),
        held_out=(held_out,),
        counts=(len(train.file_paths), len(held_out.file_paths)),
        image_shape=(size, size, 3),
        classes=len(names),
    )


def _folders(path):
    return sorted(child.name for child in path.iterdir() if child.is_dir())
