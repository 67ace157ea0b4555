"""The published recipes: hyper-parameters as records, and what `compile` takes.

A record holds what the papers and the official code say, with its source, and
nothing else; `compile_options` turns one and a number of steps into Keras's own
optimizer, schedule and loss. Three things are not said in the same words there
and here:

- Weight decay. The papers' and Keras's is multiplied by the learning rate, with
  its schedule; that of big_vision is not by the peak, so its 1e-4 is 0.1 here.
  It acts on kernels alone, not on biases, norms, `Affine` and `LayerScale`.
- The end of a linear decay, 1e-5, is a fraction of the peak.
- LAMB. Keras decays the weights beside the step, PyTorch's implementations
  within it, where the decay takes part in the ratio of norms.
"""

import dataclasses
import re

import keras
from keras import ops

from keras_mixer.accumulating import Accumulate
from keras_mixer.checking import check_positive_int
from keras_mixer.checking import check_real


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to the images of a training set.

    Args:
        crop: `"inception"` cuts a box of random size and proportions, `"pad"`
            moves the whole image by up to an eighth of its sides, as is usual
            for small ones, and `"resize"` cuts the largest box of the centre.
        flip: Whether half of the images are mirrored.
        randaugment: Layers and magnitude of RandAugment, where 10 is the whole
            range of each operation; none if `None`.
        mixup: Alpha of MixUp's Beta distribution, or 0.
        cutmix: Alpha of CutMix's, or 0; where both are given, each takes half
            of the batches.
        erasing: Probability that a box of an image is erased.
    """

    crop: str = "inception"
    flip: bool = True
    randaugment: tuple | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    erasing: float = 0.0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model was trained.

    Args:
        source: Where it is published.
        optimizer: `"adam"`, `"sgd"` (with momentum 0.9), `"lamb"` or `"muon"`.
        learning_rate: Float, the peak.
        batch_size: Integer, images for one update, on all devices together.
        epochs: Integer, or `None` where `steps` are published.
        steps: Integer, or `None` where `epochs` are.
        decay: `"linear"` or `"cosine"`, behind a linear warm-up.
        warmup_steps: Integer, or `None` where epochs are published.
        warmup_epochs: Integer, or `None`.
        final_fraction: What of the peak is left in the end.
        weight_decay: Float, multiplied by the learning rate; on kernels alone.
        clip_norm: Float, the largest norm of all gradients together, or `None`.
        loss: `"softmax"` or `"sigmoid"`, the cross-entropy of either.
        label_smoothing: Float in [0, 1).
        dropout_rate: Of the model.
        stochastic_depth_rate: Of the model.
        ema: Momentum of the average of weights to evaluate with, or `None`.
        augmentation: An `Augmentation`.
        image_size: Side of the images in pixels.

    Example:

    >>> from keras_mixer.recipes import RECIPES
    >>> recipe = RECIPES["mixer_b.imagenet"]
    >>> recipe.learning_rate, recipe.batch_size, recipe.augmentation.mixup
    (0.001, 4096, 0.5)
    """

    source: str
    optimizer: str
    learning_rate: float
    batch_size: int
    epochs: int | None = None
    steps: int | None = None
    decay: str = "linear"
    warmup_steps: int | None = None
    warmup_epochs: int | None = None
    final_fraction: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    loss: str = "softmax"
    label_smoothing: float = 0.0
    dropout_rate: float = 0.0
    stochastic_depth_rate: float = 0.0
    ema: float | None = None
    augmentation: Augmentation = Augmentation()
    image_size: int = 224


def _mixer(epochs, rate, decay, randaugment, mixup, stochastic_depth):
    """A row of Table 4 of MLP-Mixer."""
    return Recipe(
        source="MLP-Mixer (arXiv 2105.01601), section 3 and table 4",
        optimizer="adam",
        learning_rate=rate,
        batch_size=4096,
        epochs=epochs,
        warmup_steps=10_000,
        weight_decay=decay,
        clip_norm=1.0,
        stochastic_depth_rate=stochastic_depth,
        augmentation=Augmentation(
            randaugment=randaugment and (2, randaugment), mixup=mixup
        ),
    )


def _fine_tuning(steps, rate):
    """The setup of ViT, which MLP-Mixer takes over."""
    return Recipe(
        source="MLP-Mixer (arXiv 2105.01601), section 3, and appendix B.1.1 of "
        "ViT (arXiv 2010.11929)",
        optimizer="sgd",
        learning_rate=rate,
        batch_size=512,
        steps=steps,
        decay="cosine",
        warmup_steps=min(500, steps // 5),
        clip_norm=1.0,
        augmentation=Augmentation(),
    )


_BIG_VISION = Recipe(
    source="big_vision/configs/mlp_mixer_i1k.py of google-research/big_vision",
    optimizer="adam",
    learning_rate=0.001,
    batch_size=4096,
    epochs=300,
    warmup_steps=10_000,
    final_fraction=1e-5,
    weight_decay=0.1,
    clip_norm=1.0,
    loss="sigmoid",
    stochastic_depth_rate=0.1,
    augmentation=Augmentation(randaugment=(2, 15), mixup=0.5),
)
_RESMLP = Recipe(
    source="ResMLP (arXiv 2105.03404), section 3, and main.py of "
    "facebookresearch/deit for what it does not say",
    optimizer="lamb",
    learning_rate=5e-3,
    batch_size=1024,
    epochs=400,
    decay="cosine",
    warmup_epochs=5,
    final_fraction=1e-5 / 5e-3,
    weight_decay=0.2,
    label_smoothing=0.1,
    stochastic_depth_rate=0.1,
    ema=0.99996,
    augmentation=Augmentation(
        randaugment=(2, 9), mixup=0.8, cutmix=1.0, erasing=0.25
    ),
)

_NANO = Recipe(
    source="this library: benchmarks/nano.py, for MixerNano on CIFAR-10",
    optimizer="muon",
    learning_rate=3e-3,
    batch_size=128,
    epochs=26,
    warmup_epochs=1,
    weight_decay=0.05,
    label_smoothing=0.1,
    augmentation=Augmentation(crop="pad", mixup=0.2, cutmix=1.0),
    image_size=32,
)

# Fine-tuning has one of the rates that were tried for a data set, from 0.003 to
# 0.06: `dataclasses.replace(recipe, learning_rate=...)` gives another. The
# warm-up of ViT, 500 steps, is as long as the shortest trainings: a fifth then.
# fmt: off
RECIPES = {
    #                            epochs   rate  decay randaug mixup depth
    "mixer_b.imagenet":     _mixer(300, 0.001,  0.10,    15,  0.5,  0.1),
    "mixer_l.imagenet":     _mixer(300, 0.001,  0.10,    15,  0.5,  0.1),
    "mixer_b.imagenet21k":  _mixer(300, 0.001,  0.10,    10,  0.2,  0.1),
    "mixer_l.imagenet21k":  _mixer(300, 0.001,  0.10,    20,  0.5,  0.1),
    "mixer_s.jft":          _mixer(  5, 0.003,  0.03,  None,  0.0,  0.0),
    "mixer_b.jft":          _mixer(  7, 0.003,  0.03,  None,  0.0,  0.0),
    "mixer_l.jft":          _mixer( 14, 0.001,  0.03,  None,  0.0,  0.0),
    "mixer_h.jft":          _mixer( 14, 0.001,  0.03,  None,  0.0,  0.0),
    #                                   steps    rate
    "finetune.imagenet":   _fine_tuning(20_000, 0.03),
    "finetune.cifar":      _fine_tuning(10_000, 0.01),
    "finetune.pets":       _fine_tuning(   500, 0.01),
    "finetune.flowers":    _fine_tuning(   500, 0.01),
    "finetune.vtab":       _fine_tuning( 2_500, 0.01),
    "big_vision.imagenet": _BIG_VISION,
    "resmlp.imagenet":     _RESMLP,
    "nano.cifar10":        _NANO,
}
# fmt: on


def compile_options(
    recipe,
    steps,
    warmup_steps=None,
    *,
    layer_decay=1.0,
    model=None,
    accumulate=1,
    metrics=(),
):
    """What `model.compile` takes to train as a recipe says.

    Args:
        recipe: A `Recipe`, such as `RECIPES["big_vision.imagenet"]`.
        steps: Positive integer, the number of updates of the weights in all.
        warmup_steps: Integer below `steps`; the recipe's by default, which is
            too long for a short training.
        layer_decay: Float in (0, 1], what the learning rate of a block is
            multiplied by for that of the block before it; the head, and the
            norm before it, have the recipe's. As in BEiT (arXiv 2106.08254),
            whose other name for it is layer-wise decay. The norm of the
            gradients is then clipped for each block by itself.
        model: The model that will be trained; for `layer_decay` alone.
        accumulate: Positive integer, the number of batches for one update of
            the weights. The update uses the mean gradient of these batches, so
            `fit` with batches of 64 images and `accumulate=8` trains as with
            batches of 512. `steps` and `warmup_steps` count updates.
        metrics: List of further Keras metrics, beside the accuracy. The labels
            are one-hot or mixed, the predictions are logits.

    Returns:
        A dict with `optimizer`, `loss` and `metrics`, for models that give
        logits (`classifier_activation=None`) and labels that are one-hot, or
        mixed.

    Raises:
        ValueError: If the warm-up is not shorter than the training,
            `accumulate` is not positive, or `layer_decay` is given without a
            model that has blocks.
        TypeError: If a number has the wrong type.

    Example:

    >>> from keras_mixer import recipes
    >>> recipe = recipes.RECIPES["finetune.cifar"]
    >>> options = recipes.compile_options(recipe, steps=10_000)
    >>> sorted(options)
    ['loss', 'metrics', 'optimizer']
    """
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
            "`layer_decay` must be in (0, 1]: 1 is none. "
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
        "loss": _loss(recipe),
        "metrics": ["accuracy", *metrics],
    }


def shortened(recipe, steps):
    """A recipe for fewer steps than it was published for.

    The warm-up is at most a tenth of the training, and the average of weights
    at most as long: a tenth of the steps. Nothing else changes, nor does
    anything for as many steps as were published.

    Source: this library.

    Args:
        recipe: A `Recipe`.
        steps: Positive integer, the number of updates of the weights in all.

    Returns:
        A `Recipe`.

    Example:

    >>> from keras_mixer import recipes
    >>> recipe = recipes.RECIPES["finetune.cifar"]
    >>> recipe.warmup_steps, recipes.shortened(recipe, 300).warmup_steps
    (500, 30)
    """
    steps = check_positive_int("steps", steps)
    changes = {}
    if recipe.warmup_steps is not None:
        changes["warmup_steps"] = min(recipe.warmup_steps, steps // 10)
    if recipe.ema is not None:
        changes["ema"] = min(recipe.ema, 1 - 1 / max(steps / 10, 2))
    return dataclasses.replace(recipe, **changes)


def _warmup_steps(recipe, steps):
    if recipe.warmup_epochs is None:
        return recipe.warmup_steps
    return round(steps * recipe.warmup_epochs / recipe.epochs)


def _layerwise(recipe, steps, warmup_steps, layer_decay, model):
    """An optimizer for the stem and for each block, and one for the rest."""
    names = _names_of_blocks(model)
    if not names:
        raise ValueError(
            "`layer_decay` needs `model`, to know how many blocks there are: "
            f"one that this package built. Received: model={model!r}"
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
    """`block_0` and those behind it, as they are in the paths of weights."""
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
        # Keras 3.15 does not save this. A loaded model that is to be trained
        # further must be compiled with these options again.
        optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer


# The names of all weights that are no kernels.
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
    """A linear warm-up, then a linear decay; Keras has none with a warm-up.

    Source: section 3 of MLP-Mixer (arXiv 2105.01601); the schedule "linear" of
    google-research/big_vision.

    Args:
        learning_rate: Float, the peak, which is reached after the warm-up.
        steps: Integer, the warm-up and the decay together.
        warmup_steps: Integer below `steps`; without, it begins at the peak.
        final_fraction: Float, what of the peak is left in the end.

    Example:

    >>> from keras_mixer.recipes import LinearDecay
    >>> schedule = LinearDecay(0.5, steps=12, warmup_steps=2)
    >>> [float(schedule(step)) for step in (0, 1, 2, 7, 12, 20)]
    [0.0, 0.25, 0.5, 0.25, 0.0, 0.0]
    """

    def __init__(
        self, learning_rate, steps, warmup_steps=0, final_fraction=0.0
    ):
        super().__init__()
        self.learning_rate = learning_rate
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.final_fraction = final_fraction

    def __call__(self, step):
        step = ops.cast(step, keras.config.floatx())
        progress = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        left = 1.0 - ops.clip(progress, 0.0, 1.0)
        rate = self.final_fraction + (1.0 - self.final_fraction) * left
        if self.warmup_steps:
            rate = rate * ops.minimum(1.0, step / self.warmup_steps)
        return self.learning_rate * rate

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "final_fraction": self.final_fraction,
        }


def _loss(recipe):
    if recipe.loss == "sigmoid":
        return sigmoid_crossentropy
    return keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=recipe.label_smoothing
    )


@keras.saving.register_keras_serializable(package="keras_mixer")
def sigmoid_crossentropy(y_true, y_pred):
    """The binary cross-entropies of all classes, summed.

    Keras's `BinaryCrossentropy` is their mean: with 1000 classes its gradients
    are a thousandth of what the recipe clips.

    Source: `sigmoid_xent` of google-research/big_vision.

    Args:
        y_true: Tensor of shape `(batch, classes)`, in [0, 1].
        y_pred: Logits of shape `(batch, classes)`.

    Returns:
        A tensor of shape `(batch,)`.

    Example:

    >>> import numpy as np
    >>> from keras_mixer.recipes import sigmoid_crossentropy
    >>> loss = sigmoid_crossentropy(np.eye(2, 4), np.zeros((2, 4)))
    >>> [round(float(value), 3) for value in loss]  # 4 times log(2)
    [2.773, 2.773]
    """
    y_pred = ops.convert_to_tensor(y_pred)
    y_true = ops.cast(y_true, y_pred.dtype)
    losses = ops.binary_crossentropy(y_true, y_pred, from_logits=True)
    return ops.sum(losses, axis=-1)
