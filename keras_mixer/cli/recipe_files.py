"""Recipes from JSON files.

A file has the fields of `recipes.Recipe` as a JSON object. It is checked here
without importing Keras. `run.json` stores its content, so the file is not
needed to resume a training.
"""

import dataclasses
import json
import math
import pathlib

SUFFIX = ".json"


@dataclasses.dataclass(frozen=True)
class _Number:
    """A number between two bounds, which may be allowed themselves."""

    low: float
    high: float = math.inf
    low_allowed: bool = True
    high_allowed: bool = False
    whole: bool = False

    def accepts(self, value):
        kinds = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return False
        above = value >= self.low if self.low_allowed else value > self.low
        below = value <= self.high if self.high_allowed else value < self.high
        return above and below

    def __str__(self):
        kind = "an integer" if self.whole else "a number"
        left = "[" if self.low_allowed else "("
        right = "]" if self.high_allowed else ")"
        return f"{kind} in {left}{self.low}, {self.high}{right}"


@dataclasses.dataclass(frozen=True)
class _OneOf:
    """One of some strings or booleans."""

    values: tuple

    def accepts(self, value):
        # 1 and 0 are not booleans.
        return any(
            type(value) is type(each) and value == each for each in self.values
        )

    def __str__(self):
        return "one of " + ", ".join(json.dumps(each) for each in self.values)


class _Text:
    def accepts(self, value):
        return isinstance(value, str)

    def __str__(self):
        return "a string"


class _Layers:
    """The number of operations and the magnitude of RandAugment."""

    def accepts(self, value):
        return (
            isinstance(value, list)
            and len(value) == 2
            and _COUNT.accepts(value[0])
            and _Number(0).accepts(value[1])
        )

    def __str__(self):
        return "a list of a positive integer and a non-negative number"


_COUNT = _Number(1, whole=True)
_NATURAL = _Number(0, whole=True)
_POSITIVE = _Number(0, low_allowed=False)
_NOT_NEGATIVE = _Number(0)
_RATE = _Number(0, 1)
_FRACTION = _Number(0, 1, high_allowed=True)

FIELDS = {
    "source": _Text(),
    "optimizer": _OneOf(("adam", "sgd", "lamb", "muon")),
    "learning_rate": _POSITIVE,
    "batch_size": _COUNT,
    "epochs": _COUNT,
    "steps": _COUNT,
    "decay": _OneOf(("linear", "cosine")),
    "warmup_steps": _NATURAL,
    "warmup_epochs": _NATURAL,
    "final_fraction": _FRACTION,
    "weight_decay": _NOT_NEGATIVE,
    "clip_norm": _POSITIVE,
    "loss": _OneOf(("softmax", "sigmoid")),
    "label_smoothing": _RATE,
    "dropout_rate": _RATE,
    "stochastic_depth_rate": _RATE,
    "ema": _Number(0, 1, low_allowed=False),
    "image_size": _COUNT,
}

AUGMENTATION = {
    "crop": _OneOf(("inception", "pad", "resize")),
    "flip": _OneOf((True, False)),
    "randaugment": _Layers(),
    "mixup": _NOT_NEGATIVE,
    "cutmix": _NOT_NEGATIVE,
    "erasing": _FRACTION,
}

REQUIRED = ("optimizer", "learning_rate")

# `null` means that the recipe does not have it.
OPTIONAL = (
    "epochs",
    "steps",
    "warmup_steps",
    "warmup_epochs",
    "clip_norm",
    "ema",
    "randaugment",
)


def load(path, run):
    """Returns the content of a recipe file, a checked dict.

    Args:
        path: Path of the file.
        run: Path of the folder of a training. If the file does not exist any
            more, its content is read from `run.json`.

    Raises:
        ValueError: If the file does not exist, or a field is unknown, missing
            or has a wrong value.
    """
    path, record = pathlib.Path(path), pathlib.Path(run, "run.json")
    if not path.is_file() and record.is_file():
        stored = json.loads(record.read_text("utf-8"))["settings"]["recipe"]
        if isinstance(stored, dict):
            return stored
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            "`--recipe` must be the name of a recipe, or a JSON file. "
            f"Received: '{path}': {error}"
        ) from error
    try:
        check(content)
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from None
    return {"source": path.name, **content}


def check(recipe):
    """Raises an error if a dict is not the content of a recipe file."""
    if not isinstance(recipe, dict):
        raise ValueError(
            "A recipe must be a JSON object with the fields of "
            f"`keras_mixer.recipes.Recipe`. Received: {recipe!r}"
        )
    missing = [name for name in REQUIRED if name not in recipe]
    if missing:
        raise ValueError(f"The recipe must have the fields {missing}.")
    fields = dict(recipe)
    augmentation = fields.pop("augmentation", {})
    if not isinstance(augmentation, dict):
        raise ValueError(
            "`augmentation` must be a JSON object with the fields "
            f"{list(AUGMENTATION)}. Received: {augmentation!r}"
        )
    _check_fields(fields, FIELDS, "")
    _check_fields(augmentation, AUGMENTATION, "augmentation.")
    given = {name for name, value in fields.items() if value is not None}
    for pair in (("epochs", "steps"), ("warmup_epochs", "warmup_steps")):
        if given.issuperset(pair):
            raise ValueError(f"The recipe must not have both of {pair}.")
    if "warmup_epochs" in given and "epochs" not in given:
        raise ValueError("`warmup_epochs` needs the field `epochs`.")


def _check_fields(fields, known, prefix):
    for name, value in fields.items():
        if name not in known:
            raise ValueError(
                f"There is no field `{prefix}{name}`. Use: "
                + ", ".join([*known, *([] if prefix else ["augmentation"])])
            )
        if value is None and name in OPTIONAL:
            continue
        if not known[name].accepts(value):
            raise ValueError(
                f"`{prefix}{name}` must be {known[name]}. "
                f"Received: {json.dumps(value)}"
            )
