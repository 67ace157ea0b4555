"""Published training recipes: records of hyper-parameters.

The values in a record are from the papers and the official code. Its `source`
gives the place. `compile_options` creates Keras's optimizer, schedule and loss
from a recipe and a number of steps. Two values have another definition here:

- Weight decay. In the papers, in Keras and here it is multiplied by the
  learning rate and its schedule. In big_vision it is not multiplied by the peak
  learning rate, so its 1e-4 is 0.1 here. Weight decay only applies to kernels,
  not to biases, norms, `Affine` and `LayerScale`.
- The final value of a linear decay, 1e-5, is a fraction of the peak.

The help of the command line lists the recipes, so Keras, which takes seconds to
import, is imported only with the names that need it.
"""

import dataclasses
import importlib
import typing
from typing import Any

from keras_mixer.arguments import COUNT
from keras_mixer.arguments import NATURAL
from keras_mixer.arguments import NOT_NEGATIVE
from keras_mixer.arguments import POSITIVE
from keras_mixer.arguments import Rule
from keras_mixer.arguments import check_fields
from keras_mixer.arguments import check_positive_int
from keras_mixer.arguments import instance_of
from keras_mixer.arguments import number_in
from keras_mixer.arguments import one_of

if typing.TYPE_CHECKING:
    from keras_mixer.training.losses import sigmoid_crossentropy
    from keras_mixer.training.optimizers import LinearDecay
    from keras_mixer.training.optimizers import compile_options

__all__ = [
    "RECIPES",
    "Augmentation",
    "LinearDecay",
    "Recipe",
    "compile_options",
    "shortened",
    "sigmoid_crossentropy",
]


def __getattr__(name):
    if name == "sigmoid_crossentropy":
        module = importlib.import_module("keras_mixer.training.losses")
    elif name in ("LinearDecay", "compile_options"):
        module = importlib.import_module("keras_mixer.training.optimizers")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)


def _is_randaugment(value):
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return COUNT.accepts(value[0]) and NOT_NEGATIVE.accepts(value[1])


_AUGMENTATION = {
    "crop": one_of("inception", "pad", "resize"),
    "flip": one_of(True, False),
    "randaugment": Rule(
        "a pair of a positive integer and a non-negative number",
        _is_randaugment,
    ),
    "mixup": NOT_NEGATIVE,
    "cutmix": NOT_NEGATIVE,
    "erasing": number_in("[0, 1]"),
}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The augmentation of the training images.

    Args:
        crop: `"inception"` crops a box of random size and aspect ratio. `"pad"`
            shifts the image by up to an eighth of its sides, as is usual for
            small images. `"resize"` crops the largest box in the center.
        flip: Boolean, whether to flip images horizontally with probability 0.5.
        randaugment: Tuple `(layers, magnitude)` of RandAugment, or `None`. A
            magnitude of 10 is the full range of each operation.
        mixup: Alpha of the Beta distribution of MixUp, or 0 for no MixUp.
        cutmix: Alpha of the Beta distribution of CutMix, or 0 for no CutMix.
            With MixUp and CutMix, each is applied to half of the batches.
        erasing: Float, the probability that a box of an image is erased.

    Raises:
        ValueError: If a field has a wrong value.
    """

    crop: str = "inception"
    flip: bool = True
    randaugment: tuple | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    erasing: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, _AUGMENTATION)


_RECIPE = {
    "source": instance_of(str, "a string"),
    "optimizer": one_of("adam", "sgd", "lamb", "muon"),
    "learning_rate": POSITIVE,
    "batch_size": COUNT,
    "epochs": COUNT,
    "steps": COUNT,
    "decay": one_of("linear", "cosine"),
    "warmup_steps": NATURAL,
    "warmup_epochs": NATURAL,
    "final_fraction": number_in("[0, 1]"),
    "weight_decay": NOT_NEGATIVE,
    "clip_norm": POSITIVE,
    "loss": one_of("softmax", "sigmoid"),
    "label_smoothing": number_in("[0, 1)"),
    "dropout_rate": number_in("[0, 1)"),
    "stochastic_depth_rate": number_in("[0, 1)"),
    "ema": number_in("(0, 1)"),
    "augmentation": instance_of(Augmentation, "an `Augmentation`"),
    "image_size": COUNT,
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The hyper-parameters with which a model was trained.

    Args:
        source: Where the recipe is published.
        optimizer: `"adam"`, `"sgd"` (with momentum 0.9), `"lamb"` or `"muon"`.
        learning_rate: Float, the peak of the learning rate.
        batch_size: Integer, the number of images per step on all devices.
        epochs: Integer, or `None` if `steps` is published.
        steps: Integer, or `None` if `epochs` is published.
        decay: `"linear"` or `"cosine"`, the decay after a linear warm-up.
        warmup_steps: Integer, or `None` if `warmup_epochs` is published.
        warmup_epochs: Integer, or `None`.
        final_fraction: Float, the final learning rate divided by the peak.
        weight_decay: Float, the decay of kernels. It is multiplied by the
            learning rate.
        clip_norm: Float, the maximum global norm of the gradients, or `None`.
        loss: `"softmax"` or `"sigmoid"`, the kind of cross-entropy.
        label_smoothing: Float in [0, 1).
        dropout_rate: Float, the argument of the model.
        stochastic_depth_rate: Float, the argument of the model.
        ema: Float, the momentum of the moving average of the weights that is
            used for evaluation, or `None`.
        augmentation: An `Augmentation`.
        image_size: Integer, the height and width of the images in pixels.

    Raises:
        ValueError: If a field has a wrong value, or two fields exclude each
            other.

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

    def __post_init__(self) -> None:
        check_fields(self, _RECIPE)
        for pair in (("epochs", "steps"), ("warmup_epochs", "warmup_steps")):
            if None not in (getattr(self, pair[0]), getattr(self, pair[1])):
                raise ValueError(f"A recipe must not have both of {pair}.")
        if self.warmup_epochs is not None and self.epochs is None:
            raise ValueError("`warmup_epochs` needs the field `epochs`.")


def _mixer(epochs, rate, decay, randaugment, mixup, stochastic_depth):
    """Returns a row of table 4 of MLP-Mixer."""
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
    """Returns the fine-tuning recipe of ViT, which MLP-Mixer uses."""
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
    "facebookresearch/deit for values that are not in the paper",
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


# For fine-tuning, several learning rates from 0.003 to 0.06 were tried on each
# data set. The recipes contain one of them. To use another:
# `dataclasses.replace(recipe, learning_rate=...)`. The warm-up of ViT has 500
# steps. The shortest trainings also have 500 steps, so a fifth of them is used.
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
    """Adapts a published recipe to fewer steps than it was published for.

    The warm-up and the time span of the moving average are limited to a tenth
    of the steps. Nothing else changes. A recipe that was published for at most
    as many steps does not change.

    Args:
        recipe: A `Recipe` of `RECIPES`. Of a recipe of your own, the warm-up is
            what you wrote: do not shorten it.
        steps: Positive integer, the total number of training steps.

    Returns:
        A `Recipe`.

    Example:

    >>> from keras_mixer import recipes
    >>> recipe = recipes.RECIPES["finetune.cifar"]
    >>> recipe.warmup_steps, recipes.shortened(recipe, 300).warmup_steps
    (500, 30)
    """
    steps = check_positive_int("steps", steps)
    if recipe.steps is not None and steps >= recipe.steps:
        return recipe
    changes: dict[str, Any] = {}
    if recipe.warmup_steps is not None:
        changes["warmup_steps"] = min(recipe.warmup_steps, steps // 10)
    if recipe.ema is not None:
        changes["ema"] = min(recipe.ema, 1 - 1 / max(steps / 10, 2))
    return dataclasses.replace(recipe, **changes)
