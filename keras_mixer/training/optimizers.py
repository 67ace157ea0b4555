"""The arguments of `model.compile` for a recipe: optimizer, loss, metrics.

The optimizers and schedules are Keras's. LAMB differs from the authors'
code: Keras applies weight decay separately from the step. PyTorch's
implementations add it to the step, so that it changes the ratio of norms.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mixer.arguments import check_positive_int
from keras_mixer.arguments import check_real
from keras_mixer.training.accumulating import Accumulate
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
            "The warm-up must be shorter than the training. Give a shorter "
            f"`warmup_steps`. Received: {warmup_steps} steps of {steps}"
        )
    check_real("layer_decay", layer_decay)
    if not 0 < layer_decay <= 1:
        raise ValueError(
            "`layer_decay` must be in (0, 1]; 1 means no decay. "
            f"Received: layer_decay={layer_decay}"
        )
    if layer_decay == 1:
        optimizer = _optimizer(recipe, steps, warmup_steps)
    else:
        optimizer = _layerwise(recipe, steps, warmup_steps, layer_decay, model)
    if accumulate > 1:
        optimizer = Accumulate(optimizer, accumulate)
    return {
        "optimizer": optimizer,
        "loss": loss,
        "metrics": ["accuracy", *metrics],
    }


def _warmup_steps(recipe, steps):
    if recipe.warmup_epochs is None:
        return recipe.warmup_steps
    return round(steps * recipe.warmup_epochs / recipe.epochs)


def _layerwise(recipe, steps, warmup_steps, layer_decay, model):
    """Returns one optimizer for the stem, each block and the rest."""
    names = _names_of_blocks(model)
    if not names:
        raise ValueError(
            "`layer_decay` needs `model`, a model of this package. "
            f"Received: model={model!r}"
        )

    def optimizer(depth):
        rate = recipe.learning_rate * layer_decay**depth
        slower = dataclasses.replace(recipe, learning_rate=rate)
        return _optimizer(slower, steps, warmup_steps)

    optimizers = keras.optimizers.OptimizerMap(optimizer(0))
    for depth, name in enumerate(reversed(["stem", *names]), start=1):
        optimizers[f"(.*/)?{name}/.*"] = optimizer(depth)
    return keras.optimizers.MultiOptimizer(optimizers)


def _names_of_blocks(model):
    """Returns `["block_0", "block_1", ...]`, found in the paths of weights."""
    paths = [weight.path for weight in getattr(model, "weights", [])]
    found = (re.search(r"(?:^|/)block_(\d+)/", path) for path in paths)
    return [f"block_{i}" for i in sorted({int(m[1]) for m in found if m})]


# Muon is for the matrices between the first and the last layer.
_NOT_BY_MUON = (r"(^|/)stem/", r"(^|/)predictions/")


def _optimizer(recipe, steps, warmup_steps):
    decay = recipe.weight_decay or None
    make, options = {
        "adam": (keras.optimizers.AdamW, {"epsilon": 1e-8}),
        "sgd": (keras.optimizers.SGD, {"momentum": 0.9}),
        "lamb": (keras.optimizers.Lamb, {"epsilon": 1e-6}),
        "muon": (
            keras.optimizers.Muon,
            {"adam_weight_decay": decay, "exclude_layers": _NOT_BY_MUON},
        ),
    }[recipe.optimizer]
    optimizer = make(
        _schedule(recipe, steps, warmup_steps),
        weight_decay=decay,
        global_clipnorm=recipe.clip_norm,
        use_ema=recipe.ema is not None,
        ema_momentum=recipe.ema or 0.99,
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
