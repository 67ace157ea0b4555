"""The arguments of `model.compile` for a recipe: optimizer, loss, metrics.

The optimizers and schedules are Keras's. LAMB differs from the authors'
code: Keras applies weight decay separately from the step. PyTorch's
implementations add it to the step, so that it changes the ratio of norms.

With `gradient_accumulation_steps`, Keras 3.15 counts batches instead of updates
in two places. `PerUpdate` corrects the learning rate schedule. The momentum of
the moving average of the weights (`use_ema`) becomes `momentum ** (1 / steps)`,
since Keras moves the average after each batch: after the last batch of an
update, it has moved towards the new weights once, and after the next `steps -
1` batches as far as it should.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mixer.arguments import check_positive_int
from keras_mixer.arguments import check_real
from keras_mixer.training.losses import check_outputs
from keras_mixer.training.losses import loss_of
from keras_mixer.types import Config
from keras_mixer.types import Tensor


def compile_options(
    recipe: Any,
    steps: int,
    warmup_steps: int | None = None,
    *,
    layer_decay: float = 1.0,
    model: keras.Model | None = None,
    accumulate: int = 1,
    metrics: Sequence[Any] = (),
) -> dict[str, Any]:
    """Returns the arguments of `model.compile` for a recipe.

    Args:
        recipe: A `Recipe`, such as `RECIPES["big_vision.imagenet"]`.
        steps: Positive integer, the total number of updates of the weights.
        warmup_steps: Integer below `steps`. The default is the recipe's, which
            is too long for a short training.
        layer_decay: Float in (0, 1], the learning rate of a block divided by
            that of the next block. The head and the norm before it have the
            recipe's learning rate. This is the layer-wise decay of BEiT (arXiv
            2106.08254). If it is not 1, the norm of the gradients is clipped
            separately for each block.
        model: The model to train. It is needed for `layer_decay`. If it is
            given, its last activation is checked.
        accumulate: Positive integer, the number of batches for one update of
            the weights. The update uses the mean gradient of these batches, so
            `fit` with batches of 64 images and `accumulate=8` trains as with
            batches of 512. `steps` and `warmup_steps` count updates.
        metrics: List of Keras metrics in addition to the accuracy. The labels
            are one-hot or mixed, the predictions are logits.

    Returns:
        A dict with `optimizer`, `loss` and `metrics`, for models that return
        logits (`classifier_activation=None`) and labels that are one-hot or
        mixed. The loss raises an error for integer labels.

    Raises:
        ValueError: If the warm-up is not shorter than the training,
            `accumulate` is not positive, `layer_decay` is given without a
            model of this package, or `model` returns probabilities.
        TypeError: If a number has the wrong type.

    Example:

    >>> from keras_mixer import recipes
    >>> recipe = recipes.RECIPES["finetune.cifar"]
    >>> options = recipes.compile_options(recipe, steps=10_000)
    >>> sorted(options)
    ['loss', 'metrics', 'optimizer']
    """
    loss = loss_of(recipe)
    if model is not None:
        check_outputs(model, loss)
    steps = check_positive_int("steps", steps)
    accumulate = check_positive_int("accumulate", accumulate)
    if warmup_steps is None:
        warmup_steps = _warmup_steps(recipe, steps)
    if not 0 <= warmup_steps < steps:
        raise ValueError(
            "The warm-up must be shorter than the training. Use a shorter "
            f"`warmup_steps`. Received: {warmup_steps} steps of {steps}"
        )
    check_real("layer_decay", layer_decay)
    if not 0 < layer_decay <= 1:
        raise ValueError(
            "`layer_decay` must be in (0, 1]; 1 means no decay. "
            f"Received: layer_decay={layer_decay}"
        )
    times = steps, warmup_steps, accumulate
    if layer_decay == 1:
        optimizer = _optimizer(recipe, times)
    else:
        optimizer = _layerwise(recipe, times, layer_decay, model)
    return {
        "optimizer": optimizer,
        "loss": loss,
        "metrics": ["accuracy", *metrics],
    }


def _warmup_steps(recipe, steps):
    if recipe.warmup_epochs is None:
        return recipe.warmup_steps
    return round(steps * recipe.warmup_epochs / recipe.epochs)


def _layerwise(recipe, times, layer_decay, model):
    """Returns one optimizer for the stem, each block and the rest."""
    names = _names_of_blocks(model)
    if not names:
        raise ValueError(
            "`layer_decay` needs `model`, a model of this package. "
            f"Received: model={model!r}"
        )

    def optimizer(depth, name):
        rate = recipe.learning_rate * layer_decay**depth
        slower = dataclasses.replace(recipe, learning_rate=rate)
        return _optimizer(slower, times, name)

    optimizers = keras.optimizers.OptimizerMap(optimizer(0, "head"))
    for depth, name in enumerate(reversed(["stem", *names]), start=1):
        optimizers[f"(.*/)?{name}/.*"] = optimizer(depth, name)
    return Layerwise(optimizers)


@keras.saving.register_keras_serializable(package="keras_mixer")
class Layerwise(keras.optimizers.MultiOptimizer):
    """A `MultiOptimizer` that answers for its learning rate.

    Loggers read `optimizer.learning_rate`. Keras's class raises an error.
    """

    @property
    def learning_rate(self):
        """The learning rate of the head, which is the largest."""
        return self.optimizers[-1].learning_rate


def _names_of_blocks(model):
    """Returns `["block_0", "block_1", ...]`, found in the paths of weights."""
    paths = [weight.path for weight in getattr(model, "weights", [])]
    found = (re.search(r"(?:^|/)block_(\d+)/", path) for path in paths)
    return [f"block_{i}" for i in sorted({int(m[1]) for m in found if m})]


# Muon is for the matrices between the first and the last layer.
_NOT_BY_MUON = (r"(^|/)stem/", r"(^|/)predictions/")


def _optimizer(recipe, times, name=None):
    steps, warmup_steps, accumulate = times
    schedule = _schedule(recipe, steps, warmup_steps)
    if accumulate > 1:
        schedule = PerUpdate(schedule, accumulate)
    decay = recipe.weight_decay or None
    make, options = {
        # `AdamW` does not take `None`.
        "adam": (
            keras.optimizers.AdamW if decay else keras.optimizers.Adam,
            {"epsilon": 1e-8},
        ),
        "sgd": (keras.optimizers.SGD, {"momentum": 0.9}),
        "lamb": (keras.optimizers.Lamb, {"epsilon": 1e-6}),
        "muon": (
            keras.optimizers.Muon,
            {"adam_weight_decay": decay, "exclude_layers": _NOT_BY_MUON},
        ),
    }[recipe.optimizer]
    optimizer = make(
        schedule,
        # Callbacks name columns of the log by it.
        name=name,
        weight_decay=decay,
        global_clipnorm=recipe.clip_norm,
        use_ema=recipe.ema is not None,
        ema_momentum=(recipe.ema or 0.99) ** (1 / accumulate),
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
        **options,
    )
    if recipe.weight_decay:
        # Keras 3.15 does not save this. To train a loaded model further,
        # compile it with these options again.
        optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer


# The names of all weights that are not kernels.
NOT_DECAYED = ("alpha", "beta", "bias", "gamma")


def _schedule(recipe, steps, warmup_steps):
    if recipe.decay == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            0.0,
            steps - warmup_steps,
            alpha=recipe.final_fraction,
            warmup_target=recipe.learning_rate,
            warmup_steps=warmup_steps,
        )
    return LinearDecay(
        recipe.learning_rate, steps, warmup_steps, recipe.final_fraction
    )


@keras.saving.register_keras_serializable(package="keras_mixer")
class LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then a linear decay.

    Keras has no linear decay with a warm-up.

    Source: section 3 of MLP-Mixer (arXiv 2105.01601); the schedule "linear" of
    google-research/big_vision.

    Args:
        learning_rate: Float, the peak, at the end of the warm-up.
        steps: Integer, the steps of the warm-up and the decay together.
        warmup_steps: Integer below `steps`. If 0, there is no warm-up.
        final_fraction: Float, the final learning rate divided by the peak.

    Example:

    >>> from keras_mixer.recipes import LinearDecay
    >>> schedule = LinearDecay(0.5, steps=12, warmup_steps=2)
    >>> [float(schedule(step)) for step in (0, 1, 2, 7, 12, 20)]
    [0.0, 0.25, 0.5, 0.25, 0.0, 0.0]
    """

    def __init__(
        self,
        learning_rate: float,
        steps: int,
        warmup_steps: int = 0,
        final_fraction: float = 0.0,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.final_fraction = final_fraction

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, keras.config.floatx())
        progress = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        left = 1.0 - ops.clip(progress, 0.0, 1.0)
        rate = self.final_fraction + (1.0 - self.final_fraction) * left
        if self.warmup_steps:
            rate = rate * ops.minimum(1.0, step / self.warmup_steps)
        return self.learning_rate * rate

    def get_config(self) -> Config:
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "final_fraction": self.final_fraction,
        }


@keras.saving.register_keras_serializable(package="keras_mixer")
class PerUpdate(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of updates, for an optimizer that counts batches.

    Keras calls the schedule of an optimizer that accumulates gradients with the
    number of batches.

    Args:
        schedule: A Keras `LearningRateSchedule`.
        batches: Positive integer, the number of batches for one update.

    Example:

    >>> from keras_mixer.recipes import LinearDecay
    >>> from keras_mixer.training.optimizers import PerUpdate
    >>> schedule = PerUpdate(LinearDecay(0.5, steps=2), batches=3)
    >>> [float(schedule(batch)) for batch in range(7)]
    [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.0]
    """

    def __init__(self, schedule, batches):
        super().__init__()
        self.schedule = schedule
        self.batches = batches

    def __call__(self, step):
        return self.schedule(ops.floor_divide(step, self.batches))

    def get_config(self):
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "batches": self.batches,
        }

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["batches"])
