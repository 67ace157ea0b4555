"""Batches of images are reproducible.

Batches must be a function of the seed and the step. The tests compare them bit
for bit, also between processes with other backends and numbers of threads.
"""

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest

from keras_mixer import data
from keras_mixer.data import indexed
from keras_mixer.data.photos import load_image
from keras_mixer.recipes import Augmentation
from keras_mixer.training import balanced_class_weights
from support.helpers import python
from support.images import EVERYTHING
from support.images import MIXED
from support.images import arrays
from support.images import assert_same
from support.images import model_of

tf = pytest.importorskip("tensorflow", reason="it reads the images")


def test_each_epoch_shuffles_all_images(numbered):
    images = data.load_folder(numbered, 8, held_out=0.1)
    assert (images.train_count, images.test_count) == (21, 2)
    assert images.steps_per_epoch(4) == 5
    batches = arrays(images.train(None, 4, seed=3), 15)
    numbers = [image[0, 0, 1] for x, _ in batches for image in x]
    epochs = [numbers[start : start + 20] for start in (0, 20, 40)]
    for epoch in epochs:
        assert len(set(epoch)) == 20
    assert len({tuple(epoch) for epoch in epochs}) == 3
    # In several epochs, all images are used.
    assert len(set(numbers)) == 21
    for x, y in batches:
        np.testing.assert_array_equal(y.argmax(1), x[:, 0, 0, 1] % 2)
    other = arrays(images.train(None, 4, seed=4), 1)
    assert (other[0][0] != batches[0][0]).any()


def test_images_that_do_not_fill_a_batch_are_in_the_next_epoch(numbered):
    images = data.load_folder(numbered, 8, held_out=0.1)
    assert images.train_count == 21
    counts = {4: 5, 6: 4, 13: 2, 21: 1, 14: 2, 15: 1}
    for batch_size, expected in counts.items():
        assert images.steps_per_epoch(batch_size, False) == expected
    batches = arrays(images.train(None, 4, seed=3, drop_remainder=False), 21)
    assert {x.shape for x, _ in batches} == {(4, 8, 8, 3)}
    numbers = [image[0, 0, 1] for x, _ in batches for image in x]
    passes = [numbers[start : start + 21] for start in (0, 21, 42, 63)]
    for each in passes:
        assert len(set(each)) == 21
    assert len({tuple(each) for each in passes}) == 4
    # The first epoch is the same as without the remainder, up to there.
    same = arrays(images.train(None, 4, seed=3), 5)
    assert_same(same, batches[:5])
    for start in (3, 5, 6, 17):
        again = images.train(None, 4, seed=3, start=start, drop_remainder=False)
        assert_same(arrays(again, 4), batches[start : start + 4])


# 11 images, batches of 4. Another order would be other trainings.
ORDER = [3, 1, 8, 6, 0, 5, 10, 9, 4, 10, 6, 9, 3, 7, 1, 2]
ORDER += [8, 3, 9, 1, 4, 7, 10, 6]


def test_order_of_the_images_does_not_change():
    order = indexed.numbered_indices(11, 4, np.arange(4), 5, 1, True)
    numbers, indices = zip(*order.take(20).as_numpy_iterator(), strict=True)
    assert list(numbers) == list(range(4, 24))
    assert list(indices) == ORDER[4:]


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read"])
def test_batches_can_start_at_any_step(jpegs, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr(indexed, "MAX_BYTES_KEPT", 0)
    images = data.load_folder(jpegs, (24, 20))
    assert images.train_images.decoded is kept
    assert images.steps_per_epoch(16) == 4
    batches = arrays(images.train(MIXED, 16, seed=5), 7)
    assert batches[0][0].shape == (16, 24, 20, 3)
    assert batches[0][0].dtype == "uint8"
    assert batches[0][1].shape == (16, 3)
    assert batches[0][1].dtype == "float32"
    for start in (1, 4, 6):  # in the first epoch, and in the second
        again = images.train(MIXED, 16, seed=5, start=start)
        assert_same(arrays(again, 7 - start), batches[start:])
    few = images.train(MIXED, 16, seed=5, start=2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    assert_same(arrays(few.with_options(options), 2), batches[2:4])
    other = arrays(images.train(MIXED, 16, seed=6), 1)
    assert (other[0][0] != batches[0][0]).any()


def test_earlier_images_are_not_decoded_when_starting_late(jpegs, monkeypatch):
    monkeypatch.setattr(indexed, "MAX_BYTES_KEPT", 0)
    images = data.load_folder(jpegs, 32)
    read = []

    def counting(index):
        def count(place):
            read.append(int(place))
            return place

        counted = tf.numpy_function(count, [index], index.dtype)
        return images.train_images.read(tf.ensure_shape(counted, ()))

    counted = dataclasses.replace(
        images, train_images=images.train_images._replace(read=counting)
    )
    # The second to last step of the fifth epoch.
    batches = counted.train(None, 10, start=33)
    (x, _), _ = arrays(batches, 2)
    # Prefetching reads more than two batches.
    assert 20 <= len(read) < 200
    expected = arrays(images.train(None, 10).skip(33), 1)[0][0]
    np.testing.assert_array_equal(x, expected)


def test_parts_of_the_hosts_make_the_batch_of_one_host(jpegs):
    images = data.load_folder(jpegs, 16)
    whole = arrays(images.train(MIXED, 12, seed=1, start=3), 4)
    parts = [
        arrays(images.train(MIXED, 12, seed=1, start=3, hosts=3, host=host), 4)
        for host in range(3)
    ]
    together = [
        tuple(np.concatenate(values) for values in zip(*step, strict=True))
        for step in zip(*parts, strict=True)
    ]
    assert_same(together, whole)


BATCHES = """
import hashlib
import sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[2]))
tf.config.threading.set_inter_op_parallelism_threads(int(sys.argv[2]))
from keras_mixer import data
from keras_mixer.recipes import Augmentation
from keras_mixer.training import balanced_class_weights
images = data.load_folder(sys.argv[1], 48)
everything = Augmentation(
    randaugment=(2, 9), mixup=0.8, cutmix=1.0, erasing=0.5)
digest = hashlib.sha256()
for x, y in images.train(everything, 10, seed=5, start=2).take(3):
    digest.update(x.numpy().tobytes() + y.numpy().tobytes())
for x, y in images.test(8):
    digest.update(x.numpy().tobytes() + y.numpy().tobytes())
print(digest.hexdigest())
"""


def test_batches_do_not_depend_on_backend_or_threads(photos):
    """In a process of its own, which starts at the third batch."""
    images = data.load_folder(photos, 48)
    digest = hashlib.sha256()
    for x, y in itertools.chain(
        images.train(EVERYTHING, 10, seed=5).skip(2).take(3), images.test(8)
    ):
        digest.update(x.numpy().tobytes() + y.numpy().tobytes())
    printed = python(BATCHES, photos, 5, backend="jax")
    assert printed.strip() == digest.hexdigest()


@pytest.mark.parametrize("size", [(32, 48), (224, 224)])
@pytest.mark.parametrize(
    ("crop_ratio", "interpolation"),
    [(0.875, "area"), (0.875, "bilinear"), (0.9, "bicubic"), (1.0, "lanczos"),
     (0.6, "nearest")],
)  # fmt: skip
def test_evaluation_batches_equal_load_image(
    size, crop_ratio, interpolation, photos
):
    images = data.load_folder(photos, size)
    model = model_of(size)
    batches = arrays(images.test(29, crop_ratio, interpolation), 9)
    assert [len(x) for x, _ in batches] == [29, 1]
    labels = np.concatenate([y for _, y in batches]).argmax(1)
    np.testing.assert_array_equal(labels, np.repeat(np.arange(10), 3))
    paths = sorted((photos / "test").rglob("*.jpg"))
    for place in (0, 7):
        expected = load_image(paths[place], model, crop_ratio, interpolation)
        differences = np.abs(batches[0][0][place] - expected[0])
        # With "area", Pillow rounds ties between two pixels differently.
        by_area = interpolation == "area"
        assert differences.mean() < (0.4 if by_area else 0.2)
        assert (differences > 2).mean() < (0.05 if by_area else 0.002)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 20}, ValueError, "Received: batch_size=20 for 19"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be a positive"),
        ({"hosts": 4}, ValueError, "batch_size=6 for 4 hosts"),
        ({"hosts": 3, "host": 3}, ValueError, "host=3 of hosts=3"),
        ({"start": -1}, ValueError, "`start` must be a non-negative"),
        ({"seed": None}, TypeError, "`seed` must be a non-negative"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_train_raise_errors(
    options, error, message, numbered
):
    images = data.load_folder(numbered, 8)
    with pytest.raises(error, match=message):
        images.train(**{"augmentation": None, "batch_size": 6, **options})


def data_of(pixels, label, **options):
    """Seven images of a user, of one label."""
    part = data.Images(
        7,
        lambda index: (tf.constant(pixels), tf.constant(label)),
        **{"decoded": True, **options},
    )
    return data.Data("own", ("cat", "dog"), pixels.shape, (), part, part)


@pytest.mark.parametrize(
    ("dtype", "label", "message"),
    [
        ("float32", 1, "must be of dtype uint8.*Received: .* dtype float32"),
        ("uint16", 1, "must be of dtype uint8.*Received: .* dtype uint16"),
        ("uint8", 1.0, "must be an integer.*Received: a label of dtype float"),
    ],
)
def test_pixels_and_labels_of_other_types_raise_errors(dtype, label, message):
    images = data_of(np.ones((8, 12, 3), dtype), label)
    for crop in ("resize", "inception"):
        with pytest.raises(ValueError, match=message):
            images.train(Augmentation(crop=crop), 4)
    with pytest.raises(ValueError, match=message):
        images.test(4)


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_that_are_not_of_a_class_raise_errors(label):
    images = data_of(np.ones((8, 12, 3), "uint8"), label)
    message = r"Labels must be in \[0, 2\)"
    for batches in (images.train(None, 4), images.test(4)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            next(iter(batches))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        balanced_class_weights(images)


def test_rand_augment_of_other_channels_is_refused():
    images = data_of(np.ones((8, 12, 4), "uint8"), 1)
    with pytest.raises(ValueError, match="Received: images of 4 channels"):
        images.train(Augmentation(randaugment=(2, 9)), 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_ratio": 0}, r"`crop_ratio` must be in \(0, 1\]"),
        ({"interpolation": "cubic"}, "Received: interpolation='cubic'"),
    ],
)
def test_wrong_arguments_of_test_and_validation_raise_errors(
    options, message, numbered
):
    images = data.load_folder(numbered, 8)
    with pytest.raises(ValueError, match=message):
        images.test(4, **options)
    with pytest.raises(ValueError, match=message):
        images.validation(4, **options)
