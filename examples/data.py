"""Images to train on and images held out: digits, folders, TFDS data sets.

Not a script: `train.py` and `features.py` use it. Folders and TFDS data sets
are read by TensorFlow, on whatever backend the training runs.
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


def load(args):
    """The data that the options of `train.py` ask for."""
    if args.data_dir is not None and args.dataset is None:
        raise ValueError("--data-dir is for --dataset: give that too")
    size = args.image_size or (224 if args.model else None)
    if args.data is not None:
        return load_folder(args.data, size or 32, args.batch_size)
    if args.dataset is not None:
        return load_tfds(
            args.dataset, args.data_dir, size or 32, args.batch_size
        )
    return load_digits(size or 8)


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


def load_tfds(name, data_dir, size, batch_size):
    """A data set of TFDS, prepared if it is not yet.

    Without a test split, a fifth of the training split is held out.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    features = builder.info.features
    if builder.info.supervised_keys != ("image", "label") or not isinstance(
        features["label"], tfds.features.ClassLabel
    ):
        raise ValueError(f"'{name}' does not have images with one label each")
    builder.download_and_prepare()
    splits = ("train", "test")
    if "test" not in builder.info.splits:
        splits = ("train[:80%]", "train[80%:]")
    train, held_out = builder.as_dataset(splits, as_supervised=True)

    resize = keras.layers.Resizing(size, size, crop_to_aspect_ratio=True)

    def batches(dataset):
        dataset = dataset.map(lambda image, label: (resize(image), label))
        return dataset.batch(batch_size).prefetch(2)

    return Data(
        train=(batches(train.shuffle(1000)),),
        held_out=(batches(held_out),),
        counts=tuple(builder.info.splits[s].num_examples for s in splits),
        image_shape=(size, size, features["image"].shape[-1]),
        classes=features["label"].num_classes,
    )
