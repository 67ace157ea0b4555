"""Who is measured: this library on each backend, and its peers."""

import dataclasses

BACKENDS = ("tensorflow", "jax", "torch")

# Each process imports one framework: its module of `benchmarks.peers`, the
# backend of Keras, and what must be installed.
PROCESSES = {
    **{
        f"ours-{backend}": ("keras_models", backend, ("keras", backend))
        for backend in BACKENDS
    },
    "timm": ("timm_models", None, ("torch", "timm")),
    "flax": ("flax_models", None, ("jax", "flax")),
    "onnxruntime": ("files", None, ("onnxruntime",)),
    "openvino": ("files", None, ("openvino",)),
}


@dataclasses.dataclass(frozen=True)
class Contender:
    """A row of the table.

    Args:
        process: A key of `PROCESSES`.
        form: What the process does; see its module.
        peer: Name of the contender of another library that does the same.
        work: "inference" or "training".
        families: Families of models that it has.
        dtypes: Dtypes in which it computes.
        is_scaled: Whether it runs the columns that show how the cost grows.
    """

    process: str
    form: str
    peer: str | None = None
    work: str = "inference"
    families: tuple = ("mixer", "resmlp")
    dtypes: tuple = ("float32", "bfloat16", "mixed_bfloat16")
    is_scaled: bool = False

    @property
    def name(self):
        return f"{self.process}.{self.form}"

    def runs(self, column):
        return (
            column.work == self.work
            and column.dtype in self.dtypes
            and column.model.family in self.families
            and (self.is_scaled or not column.is_scaling)
        )

    def is_among(self, names):
        """Whether a list names it or its process. `None` names all."""
        return names is None or self.name in names or self.process in names


def _training(process, form, peer=None, **options):
    return Contender(process, form, peer, "training", **options)


_KERAS = {"families": ("mixer", "resmlp", "resnet50"), "is_scaled": True}
_FLAX = {"families": ("mixer",)}

CONTENDERS = (
    Contender("ours-torch", "eager", "timm.eager", **_KERAS),
    Contender("ours-torch", "eager_fused", "timm.eager"),
    Contender("ours-torch", "compiled", "timm.compiled"),
    Contender("ours-torch", "predict_on_batch", "timm.eager"),
    Contender("ours-jax", "xla", "flax.jit"),
    Contender("ours-jax", "xla_fused", "flax.jit"),
    Contender("ours-jax", "predict_on_batch", "flax.jit"),
    Contender("ours-tensorflow", "xla", "flax.jit"),
    Contender("ours-tensorflow", "xla_fused", "flax.jit"),
    Contender("ours-tensorflow", "predict_on_batch", "flax.jit"),
    _training("ours-torch", "train", "timm.train"),
    _training("ours-torch", "fit", "timm.train"),
    _training("ours-jax", "train", "flax.train"),
    _training("ours-jax", "fit", "flax.train"),
    _training("ours-tensorflow", "train", "flax.train"),
    _training("ours-tensorflow", "fit", "flax.train"),
    Contender("timm", "eager", is_scaled=True, families=("vit",)),
    Contender("timm", "eager"),
    Contender("timm", "compiled"),
    _training("timm", "train"),
    Contender("flax", "jit", **_FLAX),
    _training("flax", "train", **_FLAX),
    *(
        Contender(runtime, file, peer, dtypes=dtypes)
        for runtime, dtypes in (
            ("onnxruntime", ("float32",)),
            ("openvino", ("float32", "bfloat16")),
        )
        for file, peer in (("ours", f"{runtime}.timm"), ("timm", None))
    ),
)


def names():
    """The names that `--contenders` takes: processes and single rows."""
    return [*PROCESSES, *dict.fromkeys(each.name for each in CONTENDERS)]
