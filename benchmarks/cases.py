"""What is measured: models, columns and plans."""

import dataclasses

# Images of fewer patches take the time of the calls more than of the products.
SIDES = (112, 224, 336, 448, 672, 896)


@dataclasses.dataclass(frozen=True)
class Model:
    """The sizes of a model. Equal to those of `keras_mixer`, as a test checks.

    The command must not import Keras, so it cannot read them there.
    """

    name: str
    family: str  # "mixer", "resmlp", "vit" or "resnet50"
    side: int
    classes: int
    patch: int = 16
    blocks: int = 12
    hidden: int = 768
    tokens_mlp: int = 0
    channels_mlp: int = 0
    layer_scale: float = 0.0
    # The side at which the model is built before it is resized with tiles.
    tiled_from: int = 0

    @property
    def tokens(self):
        return (self.side // self.patch) ** 2

    def macs(self):
        """Multiply-adds of one image in the matrix products, or `None`."""
        if self.family == "resnet50":
            return None
        tokens, hidden = self.tokens, self.hidden
        channel_mixing = 2 * tokens * hidden * self.channels_mlp
        tiles = (self.side // self.tiled_from) ** 2 if self.tiled_from else 1
        token_mixing = {
            "mixer": 2 * tokens * tiles * self.tokens_mlp * hidden,
            "resmlp": tokens**2 * hidden,
            "vit": 4 * tokens * hidden**2 + 2 * tokens**2 * hidden,
        }[self.family]
        stem = tokens * 3 * self.patch**2 * hidden
        blocks = self.blocks * (token_mixing + channel_mixing)
        return stem + blocks + hidden * self.classes


# fmt: off
MODELS = {model.name: model for model in (
    # In the order of the fields of `Model`.
    Model("mixer_b16",   "mixer",  224, 1000, 16, 12, 768, 384, 3072),
    Model("mixer_s32",   "mixer",  224, 1000, 32,  8, 512, 256, 2048),
    Model("mixer_nano",  "mixer",   32,   10,  4,  8, 128,  64,  256),
    Model("resmlp_s24",  "resmlp", 224, 1000, 16, 24, 384,   0, 1536, 1e-5),
    Model("mixer_b16 tiled", "mixer", 224, 1000, 16, 12, 768, 384, 3072,
          tiled_from=224),
    Model("vit_b16",     "vit",    224, 1000, 16, 12, 768,   0, 3072),
    # Its patch only serves to count tokens.
    Model("resnet50",    "resnet50", 224, 1000),
    # For tests.
    Model("mixer_tiny",  "mixer",   12,    5,  4,  2,  10,   7,   11),
    Model("resmlp_tiny", "resmlp",  12,    5,  4,  2,  10,   0,   20, 0.1),
)}
# fmt: on


@dataclasses.dataclass(frozen=True)
class Column:
    """The same work for all contenders that run it."""

    model: Model
    work: str  # "inference" or "training"
    batch: int
    dtype: str = "float32"
    # Whether it shows how the cost grows: only one form of each model is run.
    is_scaling: bool = False

    @property
    def name(self):
        size = f" at {self.model.side} px" if self.is_scaling else ""
        return (
            f"{self.model.name}{size}, {self.work}, batch {self.batch}, "
            f"{self.dtype}"
        )

    def with_batch(self, batch):
        return dataclasses.replace(self, batch=batch or self.batch)

    def request(self):
        """The column as plain values, for a process."""
        return {
            **dataclasses.asdict(self.model),
            "work": self.work,
            "batch": self.batch,
            "dtype": self.dtype,
        }


def _standard():
    # fmt: off
    rows = (
        ("mixer_b16",  "inference",  1),
        ("mixer_b16",  "inference", 16),
        ("mixer_b16",  "inference",  4, "bfloat16"),
        ("mixer_b16",  "training",   8),
        ("mixer_s32",  "inference",  1),
        ("mixer_s32",  "inference",  8),
        ("resmlp_s24", "inference",  4),
        ("mixer_nano", "training", 128),
        ("mixer_nano", "training", 128, "mixed_bfloat16"),
    )
    # fmt: on
    return tuple(Column(MODELS[name], *rest) for name, *rest in rows)


def _scaling(names, sides):
    columns = []
    for name in names:
        for side in sides:
            model = dataclasses.replace(MODELS[name], side=side)
            if side % (model.tiled_from or side) == 0:
                columns.append(Column(model, "inference", 1, is_scaling=True))
    return tuple(columns)


SCALED = ("mixer_b16", "mixer_b16 tiled", "resmlp_s24", "vit_b16", "resnet50")

PLANS = {
    "standard": _standard(),  # about an hour on two cores
    "short": (
        Column(MODELS["mixer_nano"], "inference", 1),
        Column(MODELS["mixer_nano"], "training", 32),
    ),
    "scaling": _scaling(SCALED, SIDES),
    "tiny": (  # for tests
        Column(MODELS["mixer_tiny"], "inference", 3),
        *_scaling(["resmlp_tiny"], (8, 16)),
    ),
}
