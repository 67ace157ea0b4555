"""What is measured: models, columns of the table, and the standard plan."""

import dataclasses
import math

DTYPES = ("float32", "mixed_bfloat16", "bfloat16")
DEVICES = ("auto", "cpu", "gpu")

# The modes of inference and of training. In a column for inference, `predict`
# of this library is compared with the same peers as its bare function.
WORKS = {"forward": "inference", "predict": "inference"}
WORKS |= {"train": "training", "fit": "training"}
MODES = tuple(WORKS)


@dataclasses.dataclass(frozen=True)
class Model:
    """The sizes of a model. Equal to those of `keras_mixer`, as a test checks.

    The commands must not import Keras, so they cannot read them there.
    """

    family: str  # "mixer", "resmlp", or the name of another architecture
    side: int
    classes: int
    patch: int = 16
    blocks: int = 12
    hidden: int = 768
    tokens_mlp: int = 0
    channels_mlp: int = 0
    layer_scale: float = 0.0
    optimizer: str = "sgd"
    # The side at which the model is built before it is resized with tiles.
    tiled_from: int = 0

    @property
    def tokens(self):
        return (self.side // self.patch) ** 2

    def macs(self):
        """Multiply-adds of one image, forward, in the matrix products."""
        tokens, hidden = self.tokens, self.hidden
        stem = tokens * 3 * self.patch**2 * hidden
        if self.family == "resmlp":
            token_mixing = tokens**2 * hidden
        else:
            tiles = (
                (self.side // self.tiled_from) ** 2 if self.tiled_from else 1
            )
            token_mixing = 2 * tokens * tiles * self.tokens_mlp * hidden
        channel_mixing = 2 * tokens * hidden * self.channels_mlp
        blocks = self.blocks * (token_mixing + channel_mixing)
        if self.family == "vit":
            attention = 4 * tokens * hidden**2 + 2 * tokens**2 * hidden
            blocks = self.blocks * (attention + channel_mixing)
        return stem + blocks + hidden * self.classes


# fmt: off
_SIZES = {
    # In the order of the fields of `Model`.
    "mixer_b16":   ("mixer",  224, 1000, 16, 12, 768, 384, 3072),
    "mixer_s32":   ("mixer",  224, 1000, 32,  8, 512, 256, 2048),
    "mixer_nano":  ("mixer",   32,   10,  4,  8, 128,  64,  256, 0.0, "adamw"),
    "resmlp_s24":  ("resmlp", 224, 1000, 16, 24, 384,   0, 1536, 1e-5),
    # For tests.
    "mixer_tiny":  ("mixer",   12,    5,  4,  2,  10,   7,   11),
    "resmlp_tiny": ("resmlp",  12,    5,  4,  2,  10,   0,   20, 0.1),
}
# fmt: on

MODELS = {name: Model(*sizes) for name, sizes in _SIZES.items()}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table: the same work for all contenders."""

    model: str
    work: str  # "inference" or "training"
    batch: int
    dtype: str = "float32"
    # Whether a fresh process measures the peak memory of each contender.
    memory: bool = False

    @property
    def name(self):
        return f"{self.model}, {self.work}, batch {self.batch}, {self.dtype}"

    @property
    def is_cheap(self):
        """Whether more forms of the contenders can be measured in short time.

        The limit is in multiply-adds: 30 GMAC, a quarter of a second or a
        second on two cores.
        """
        times = 3 if self.work == "training" else 1
        return MODELS[self.model].macs() * self.batch * times < 30e9

    def request(self):
        """The column as JSON values, for a worker."""
        return {
            "work": self.work,
            "batch": self.batch,
            "dtype": self.dtype,
            **dataclasses.asdict(MODELS[self.model]),
        }


# About an hour on two cores.
# fmt: off
STANDARD = (
    Column("mixer_b16",  "inference",  1),
    Column("mixer_b16",  "inference", 16, memory=True),
    Column("mixer_b16",  "inference",  4, "bfloat16"),
    Column("mixer_b16",  "training",   8, memory=True),
    Column("mixer_b16",  "training",   8, "mixed_bfloat16"),
    Column("mixer_s32",  "inference",  1),
    Column("mixer_s32",  "inference",  8),
    Column("resmlp_s24", "inference",  4),
    Column("mixer_nano", "training", 128),
    Column("mixer_nano", "training", 128, "mixed_bfloat16"),
)
# What `--short` measures.
SHORT = (
    Column("mixer_nano", "inference",  1),
    Column("mixer_nano", "training",  32),
)
# fmt: on


def choose(columns, models, modes, batch, dtypes):
    """Returns the columns for the options of the command.

    Args:
        columns: The columns of the plan.
        models: List of names, or `None` for those of the plan. A model that is
            not in the plan gets a column for inference and one for training.
        modes: List of names from `MODES`.
        batch: Integer that replaces the batch sizes of the plan, or `None`.
        dtypes: List of names from `DTYPES`, or `None` for those of the plan.
    """
    works = {WORKS[mode] for mode in modes}
    chosen = [each for each in columns if each.work in works]
    if models is not None:
        chosen = [each for each in chosen if each.model in models]
        planned = {each.model for each in columns}
        chosen += [
            Column(model, work, 8)
            for model in models
            if model not in planned
            for work in ("inference", "training")
            if work in works
        ]
    if batch is not None:
        chosen = [dataclasses.replace(each, batch=batch) for each in chosen]
    if dtypes is not None:
        chosen = [
            dataclasses.replace(each, dtype=dtype)
            for each in dict.fromkeys(
                dataclasses.replace(each, dtype="float32") for each in chosen
            )
            for dtype in dtypes
        ]
    # Columns that differ only in the measurement of memory are one column.
    unique = {}
    for each in chosen:
        if each.name not in unique or each.memory:
            unique[each.name] = each
    return list(unique.values())


def inner_calls(seconds, target, most):
    """How many calls are a round that takes at least `target` seconds."""
    return max(1, min(most, math.ceil(target / max(seconds, 1e-6))))
