"""Reproducible batches of images with labels.

A resumed training must get the same images as one that was not stopped. So the
batch of step `k` depends only on the seed and on `k`, not on earlier batches:

- The order of the images is a stateless shuffle of indices, a new one for each
  pass, and images are read by index.
- All random numbers of an image (see `augmenting`) depend only on the seed and
  on the number of the image in the training.
- Images are processed in parallel, but each operation runs in one thread: sums
  that are split over threads would differ in the last bit.

Pixels are uint8 until the first layer of the network scales them: it would take
four times as long to copy a batch of float32 to a device.

TensorFlow creates the batches on all backends of Keras.
"""

import dataclasses
from typing import Any

import numpy as np

from keras_mixer.arguments import check_crop_ratio
from keras_mixer.arguments import check_natural
from keras_mixer.arguments import check_positive_int
from keras_mixer.arguments import check_seed
from keras_mixer.data.augmenting import Seeds
from keras_mixer.data.augmenting import batch_mixing
from keras_mixer.data.indexed import IMAGES_AT_A_TIME
from keras_mixer.data.indexed import Images
from keras_mixer.data.indexed import mapped
from keras_mixer.data.indexed import numbered_indices
from keras_mixer.data.photos import CROP_RATIO
from keras_mixer.data.photos import INTERPOLATION
from keras_mixer.data.photos import check_interpolation
from keras_mixer.data.preparing import evaluation_preparation
from keras_mixer.data.preparing import training_preparation
from keras_mixer.optional import require

BATCHES_AT_A_TIME = min(4, IMAGES_AT_A_TIME)


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Images with labels, to train, validate and test on.

    Validation images are used after each epoch, and test images once, at the
    end. If there is only one held-out part, it is used for both.

    Args:
        name: Name of the data set, or path of the folder.
        class_names: Tuple of strings.
        image_shape: `(height, width, channels)` of the batches.
        skipped: Tuple of `(path, reason)` of files that are not used.
        train_images: `Images` to train on.
        test_images: `Images` to test on.
        validation_images: `Images` to validate on. If `None`, `test_images`
            are used.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer import data
    >>> def read(index):
    ...     return tf.zeros((16, 24, 3), "uint8"), index % 2
    >>> train, test = (
    ...     data.Images(count, read, decoded=True) for count in (8, 2))
    >>> colors = data.Data(
    ...     "colors", ("navy", "teal"), (16, 24, 3), (), train, test)
    >>> images, labels = next(iter(colors.train(None, batch_size=4)))
    >>> images.shape.as_list(), labels.shape.as_list()
    ([4, 16, 24, 3], [4, 2])
    """

    name: str
    class_names: tuple
    image_shape: tuple
    skipped: tuple
    train_images: Images = dataclasses.field(repr=False)
    test_images: Images = dataclasses.field(repr=False)
    validation_images: Images | None = dataclasses.field(
        default=None, repr=False
    )

    @property
    def train_count(self) -> int:
        """Number of images to train on."""
        return self.train_images.count

    @property
    def validation_count(self) -> int:
        """Number of images to validate on."""
        return self._images_to_validate_on.count

    @property
    def test_count(self) -> int:
        """Number of images to test on."""
        return self.test_images.count

    @property
    def train_paths(self) -> tuple[str, ...]:
        """Tuple of the paths of the images to train on, as strings.

        They are sorted by class and path. The order in batches is another one.
        Empty for TFDS data sets, whose images are not files.
        """
        return self.train_images.paths

    @property
    def validation_paths(self) -> tuple[str, ...]:
        """Tuple of the paths of the images of `validation()`, in its order.

        Empty for TFDS data sets, whose images are not files.
        """
        return self._images_to_validate_on.paths

    @property
    def test_paths(self) -> tuple[str, ...]:
        """Tuple of the paths of the images of `test()`, in its order.

        Empty for TFDS data sets, whose images are not files.
        """
        return self.test_images.paths

    @property
    def _images_to_validate_on(self):
        if self.validation_images is None:
            return self.test_images
        return self.validation_images

    def steps_per_epoch(
        self, batch_size: int, drop_remainder: bool = True
    ) -> int:
        """Returns the number of batches of training images in an epoch.

        Args:
            batch_size: Positive integer.
            drop_remainder: As in `train`. If `False`, the number is rounded to
                the nearest integer, so an epoch is only about one pass over
                the images.

        Raises:
            ValueError: If `batch_size` is larger than the number of images.
            TypeError: If `batch_size` is not an integer.
        """
        batch_size = check_positive_int("batch_size", batch_size)
        if batch_size > self.train_count:
            raise ValueError(
                "A batch must not be larger than the training set. Received: "
                f"batch_size={batch_size} for {self.train_count} images"
            )
        rest = 0 if drop_remainder else batch_size // 2
        return (self.train_count + rest) // batch_size

    def train(
        self,
        augmentation: Any,
        batch_size: int,
        *,
        seed: int = 0,
        start: int = 0,
        hosts: int = 1,
        host: int = 0,
        drop_remainder: bool = True,
    ) -> Any:
        """Returns an infinite data set of batches to train on.

        The batch of a step depends only on the seed and the step, bit for bit.
        All images are shuffled, used once, shuffled again, and so on.

        Args:
            augmentation: A `keras_mixer.recipes.Augmentation`. If `None`, the
                images are resized and cropped around the center.
            batch_size: Positive integer, the images of all hosts together.
            seed: Non-negative integer.
            start: Non-negative integer, the first step.
            hosts: Positive integer, the number of processes that train
                together. Each gets its part of each batch. The concatenation of
                the parts, in the order of the hosts, is the batch of one host.
            host: Integer below `hosts`, the index of this process.
            drop_remainder: Boolean. All batches have `batch_size` images. If
                `True`, the last images of each order are left out if they are
                fewer than a batch. If `False`, they are in a batch with the
                first images of the next order, so that all images are used
                equally often.

        Returns:
            A `tf.data.Dataset` of uint8 images of shape `(batch, height,
            width, channels)` in [0, 255], and float32 labels of shape
            `(batch, classes)`, which are one-hot or mixed.

        Raises:
            ValueError: If the batch is larger than the training set, cannot be
                split equally over the hosts, or another argument has a wrong
                value.
            TypeError: If an argument has the wrong type.
            ImportError: If RandAugment is used and keras-cv is not installed.
        """
        self.steps_per_epoch(batch_size)  # checks the batch size
        start = check_natural("start", start)
        seeds = Seeds.of(check_seed(seed))
        positions = _positions(batch_size, hosts, host, augmentation)
        indices = numbered_indices(
            self.train_count,
            batch_size,
            positions,
            seeds.order,
            start,
            drop_remainder,
        )
        prepare = training_preparation(
            self.train_images,
            self.image_shape,
            len(self.class_names),
            augmentation,
            seeds,
        )
        batches = mapped(indices, prepare).batch(
            len(positions), drop_remainder=True
        )
        mix = batch_mixing(augmentation, seeds, batch_size)
        return _endless(_finished(mapped(batches, mix, BATCHES_AT_A_TIME)))

    def test(
        self,
        batch_size: int,
        crop_ratio: float = CROP_RATIO,
        interpolation: str = INTERPOLATION,
        drop_remainder: bool = False,
    ) -> Any:
        """Returns batches of all test images, in order.

        A centered box is resized with antialiasing, as in
        `keras_mixer.load_image`.

        Args:
            batch_size: Positive integer. The last batch can be smaller.
            crop_ratio: Float in (0, 1], the fraction to keep of the height and
                width of the largest centered box with the aspect ratio of the
                batches.
            interpolation: One of `"nearest"`, `"bilinear"`, `"bicubic"`,
                `"lanczos"` and `"area"`.
            drop_remainder: Boolean, whether to leave out a smaller last batch,
                for devices that need equal parts.

        Returns:
            A finite `tf.data.Dataset` of images and labels as in `train`.

        Raises:
            ValueError: If an argument has a wrong value.
            TypeError: If an argument has the wrong type.
        """
        tf = require("tensorflow")
        batch_size = check_positive_int("batch_size", batch_size)
        check_crop_ratio(crop_ratio)
        check_interpolation(interpolation)
        prepare = evaluation_preparation(
            self.test_images,
            self.image_shape,
            len(self.class_names),
            crop_ratio,
            interpolation,
        )
        indices = tf.data.Dataset.range(self.test_count)
        return _finished(
            mapped(indices, prepare).batch(
                batch_size, drop_remainder=drop_remainder
            )
        )

    def validation(
        self,
        batch_size: int,
        crop_ratio: float = CROP_RATIO,
        interpolation: str = INTERPOLATION,
        drop_remainder: bool = False,
    ) -> Any:
        """Returns batches of all validation images, in order.

        If there are no validation images, the test images are used.

        Args:
            batch_size: As in `test`.
            crop_ratio: As in `test`.
            interpolation: As in `test`.
            drop_remainder: As in `test`.

        Returns:
            A `tf.data.Dataset` as in `test`.

        Raises:
            ValueError: If an argument has a wrong value.
            TypeError: If an argument has the wrong type.
        """
        validated = dataclasses.replace(
            self, test_images=self._images_to_validate_on
        )
        return validated.test(
            batch_size, crop_ratio, interpolation, drop_remainder
        )


def _finished(dataset):
    tf = require("tensorflow")
    options = tf.data.Options()
    options.deterministic = True
    options.threading.max_intra_op_parallelism = 1
    # The data is already split over the hosts.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def _endless(dataset):
    tf = require("tensorflow")
    return dataset.apply(
        tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    )


def _positions(batch_size, hosts, host, augmentation):
    """Returns the positions in a batch of the images that a host reads."""
    hosts = check_positive_int("hosts", hosts)
    host = check_natural("host", host)
    if batch_size % hosts:
        raise ValueError(
            "A batch must divide evenly over the hosts. "
            f"Received: batch_size={batch_size} for {hosts} hosts"
        )
    if host >= hosts:
        raise ValueError(
            "`host` must be below `hosts`. "
            f"Received: host={host} of hosts={hosts}"
        )
    share = batch_size // hosts
    # An image is mixed with the previous one, which can be that of another
    # host. So this host reads it too.
    mixed = bool(augmentation and (augmentation.mixup or augmentation.cutmix))
    return np.arange(host * share - mixed, (host + 1) * share) % batch_size
