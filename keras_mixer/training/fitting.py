"""Training with `model.fit`, in a folder from which it can be resumed.

The loop and most callbacks are Keras's. This module adds checkpoints, from
which a training is resumed, and an error if the loss is not finite.
"""

import contextlib
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from keras_mixer import atomic
from keras_mixer.arguments import check_local_path
from keras_mixer.arguments import check_positive_int
from keras_mixer.data.batches import Data
from keras_mixer.distributing.devices import Devices
from keras_mixer.optional import is_installed
from keras_mixer.training.best import KeepBest
from keras_mixer.training.best import StopEarly
from keras_mixer.training.best import is_over
from keras_mixer.training.callbacks import Averages
from keras_mixer.training.callbacks import SameMetrics
from keras_mixer.training.callbacks import StopOnLostLoss
from keras_mixer.training.callbacks import WithoutAverages
from keras_mixer.training.callbacks import check_callbacks
from keras_mixer.training.callbacks import optimizers_of
from keras_mixer.training.checkpoints import CHECKPOINTS
from keras_mixer.training.checkpoints import Checkpoints
from keras_mixer.training.class_weights import list_of_weights
from keras_mixer.training.class_weights import weighted
from keras_mixer.training.log import LOG_FILE
from keras_mixer.training.log import read_log
from keras_mixer.training.log import trim_log
from keras_mixer.training.losses import check_one_hot_loss
from keras_mixer.training.losses import check_outputs
from keras_mixer.training.runs import locked
from keras_mixer.types import Path
from keras_mixer.weights import assigning

ONE_DEVICE = Devices("none")


def fit(
    model: keras.Model,
    images: Data,
    augmentation: Any,
    folder: Path,
    *,
    batch_size: int,
    epochs: int,
    seed: int = 0,
    validation_data: Any = None,
    devices: Devices = ONE_DEVICE,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    class_weights: dict[str | int, float] | str | None = None,
    keep_best: bool = False,
    patience: int | None = None,
    drop_remainder: bool = True,
    verbose: int | str = "auto",
) -> list[dict[str, float]]:
    """Trains a compiled model in a folder, or resumes the training there.

    A checkpoint is saved after each epoch, and the last two are kept. A resumed
    training has the same weights, optimizer state, averages, random numbers and
    images as a training that was not stopped.

    Args:
        model: A compiled Keras model. With a recipe's loss, it must return
            logits. The labels are one-hot or mixed.
        images: What `keras_mixer.data.load_folder` or `load_tfds` returns.
        augmentation: A `recipes.Augmentation`, or `None`.
        folder: Path of the folder of the training, created by `open_run`.
        batch_size: Positive integer, the images in a step on all devices and
            processes together.
        epochs: Positive integer.
        seed: Integer, the seed of the order of the images and of their
            augmentation.
        validation_data: Dataset of images and labels to evaluate on after each
            epoch. The default is `images.validation(batch_size)`; on several
            devices, a smaller last batch is left out.
        devices: The `Devices` from `distributing.devices`.
        callbacks: More Keras callbacks. Their Python state is not in the
            checkpoints: it is lost when the training is resumed. If a callback
            stops the training early, the next call resumes it.
        class_weights: Optional dict from the name or the index of a class to
            its weight, 1 for classes that are not in it; or `"balanced"`, to
            use `balanced_class_weights`. The loss of an image is multiplied by
            the weight of its class. For a mixed image, this is the mean of the
            weights of its classes, weighted by its label.
        keep_best: Boolean, whether to keep the weights of the best epoch, for
            `load_best`.
        patience: Positive integer. The training stops early after this number
            of epochs without a better one. If `None`, it does not. See
            `best_epoch` for how epochs are compared.
        drop_remainder: Boolean, as in `images.train`: whether the last images
            of an epoch are left out if they are fewer than a batch.
        verbose: As in Keras; 0 prints nothing.

    Returns:
        What `read_log` returns.

    Raises:
        FloatingPointError: If the loss becomes NaN or infinite.
        OSError: If a checkpoint cannot be written.
        ValueError: If the batch size does not fit the images or the devices,
            a class in `class_weights` is unknown or has a wrong weight, the
            metrics differ from those of the training to resume, every
            checkpoint is damaged, the loss expects integer labels, or the loss
            expects logits and the model returns probabilities or vice versa.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> import keras_mixer
    >>> from keras_mixer import data, training
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     photos, run = pathlib.Path(folder, "p"), pathlib.Path(folder, "r")
    ...     for i, color in enumerate(["teal", "navy"] * 5):
    ...         path = photos / color / f"{i}.png"
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         Image.new("RGB", (8, 8), color).save(path)
    ...     images = data.load_folder(photos, image_size=8)
    ...     model = keras_mixer.Mixer(
    ...         patch_size=4, num_blocks=1, hidden_dim=8, tokens_mlp_dim=8,
    ...         channels_mlp_dim=8, input_shape=(8, 8, 3), classes=2,
    ...         classifier_activation=None)
    ...     recipe = keras_mixer.recipes.RECIPES["nano.cifar10"]
    ...     model.compile(**keras_mixer.recipes.compile_options(recipe, 4))
    ...     log = training.fit(
    ...         model, images, None, training.open_run(run, {}),
    ...         batch_size=4, epochs=2, verbose=0)
    >>> [row["epoch"] for row in log]
    [0, 1]
    """
    check_local_path("folder", folder)
    folder = pathlib.Path(folder)
    class_weights = list_of_weights(class_weights, images)
    check_callbacks(callbacks, model.optimizer, epochs)
    if patience is not None:
        patience = check_positive_int("patience", patience)
    loss = getattr(model, "loss", None)
    check_outputs(model, loss)
    check_one_hot_loss(loss)
    devices.local_batch_size(batch_size)
    steps = images.steps_per_epoch(batch_size, drop_remainder)
    with _alone_in(folder, devices):
        done = _resume(model, folder, devices)
        past = [row for row in read_log(folder) if row["epoch"] < done]
        if done < epochs and not is_over(past, patience):
            if devices.process == 0:
                trim_log(folder, done)
            batches = images.train(
                augmentation,
                batch_size,
                seed=seed,
                start=done * steps,
                hosts=devices.processes,
                host=devices.process,
                drop_remainder=drop_remainder,
            )
            with _callbacks(
                model, folder, past, devices, callbacks, keep_best, patience
            ) as added:
                model.fit(
                    weighted(batches, class_weights),
                    validation_data=validation_data
                    or images.validation(
                        batch_size, drop_remainder=devices.replicas > 1
                    ),
                    initial_epoch=done,
                    epochs=epochs,
                    steps_per_epoch=steps,
                    shuffle=False,  # the images are shuffled already
                    callbacks=added,
                    verbose=verbose if devices.process == 0 else 0,
                )
        else:
            # A checkpoint holds the weights and their averages separately.
            model.optimizer.finalize_variable_values(model.trainable_variables)
    if _has_averages(model):
        _unshare(model)
    return read_log(folder)


@contextlib.contextmanager
def _alone_in(folder, devices):
    """Locks the folder, and deletes unfinished files of killed processes.

    Folders stay: one can be the only copy of a report that was being replaced.
    """
    if devices.process != 0:
        yield
        return
    with locked(folder):
        for place in (folder, folder / CHECKPOINTS):
            for path in place.glob(".*"):
                if atomic.is_part(path) and path.is_file():
                    path.unlink()
        yield


def _resume(model, folder, devices):
    """Loads the last checkpoint; returns the number of epochs that are done."""
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    done, path = checkpoints.last()
    # Check before loading, which all processes do together.
    devices.check_equal("epochs that are done", done)
    checkpoints.load(model, path)
    return done


@contextlib.contextmanager
def _callbacks(model, folder, past, devices, callbacks, keep_best, patience):
    """Gives the callbacks of a training. Their order matters."""
    writes = devices.process == 0
    added = [StopOnLostLoss()]
    # At the end of an epoch, the averages of the weights are in the model until
    # all callbacks that look at what was validated have done so.
    averages = Averages() if _has_averages(model) else None
    if averages:
        added.append(averages)
    if keep_best and writes:
        added.append(KeepBest(folder, past))
    # Before the checkpoint, which saves what the callbacks change.
    added += callbacks
    if averages:
        added.append(WithoutAverages(averages))
    log = keras.callbacks.CSVLogger(folder / LOG_FILE, append=True)
    if writes:
        added += [SameMetrics(folder), log]
        if is_installed("tensorboard"):
            added.append(keras.callbacks.TensorBoard(folder / "tensorboard"))
    if patience is not None:
        added.append(StopEarly(past, patience))
    # After the log: each epoch with a checkpoint is then in the log. Epochs
    # that were logged without a checkpoint are repeated.
    added.append(Checkpoints(folder / CHECKPOINTS, writes=writes))
    try:
        yield added
    finally:
        # Keras leaves the log open if the training raises an error.
        if log.csv_file:
            log.csv_file.close()


def _has_averages(model):
    return any(each.use_ema for each in optimizers_of(model.optimizer))


def _unshare(model):
    """Copies the weights of a model, so that the averages do not share memory.

    At the end of `fit`, Keras 3.15 assigns the averages to the weights. On JAX
    both are then the same arrays, and the next `fit` fails: "Attempt to donate
    the same buffer twice". We found no upstream issue. Delete this function
    when `test_model_with_averaged_weights_is_trained_twice` passes without
    it.
    """
    for variable in model.trainable_variables:
        assigning.copy_value(variable, variable)
