"""The published recipes: hyper-parameters as records.

A record holds what the papers and the official code say, with its source.
`compile_options` turns one and a number of steps into Keras's own optimizer,
schedule and loss. Two numbers are written differently here:

- Weight decay. In the papers and in Keras it is multiplied by the learning
  rate, with its schedule; in big_vision not by the peak, so its 1e-4 is 0.1
  here. It acts on kernels alone, not on biases, norms, `Affine` and
  `LayerScale`.
- The end of a linear decay, 1e-5, is a fraction of the peak.
"""

import dataclasses
from typing import Any

from keras_mixer.arguments import check_positive_int
from keras_mixer.training.optimizers import LinearDecay
from keras_mixer.training.optimizers import compile_options
from keras_mixer.training.optimizers import sigmoid_crossentropy

__all__ = [
    "RECIPES",
    "Augmentation",
    "LinearDecay",
    "Recipe",
    "compile_options",
    "shortened",
    "sigmoid_crossentropy",
]


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


def shortened(recipe: Recipe, steps: int) -> Recipe:
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
    changes: dict[str, Any] = {}
    if recipe.warmup_steps is not None:
        changes["warmup_steps"] = min(recipe.warmup_steps, steps // 10)
    if recipe.ema is not None:
        changes["ema"] = min(recipe.ema, 1 - 1 / max(steps / 10, 2))
    return dataclasses.replace(recipe, **changes)
