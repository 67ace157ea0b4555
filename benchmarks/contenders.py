"""Who is measured: this library on each backend, and its peers."""

import dataclasses

from benchmarks import cases

BACKENDS = ("tensorflow", "jax", "torch")

# The form of a row that is no contender: a matrix product of the size of those
# of the model.
ROOF = "gemm"


@dataclasses.dataclass(frozen=True)
class Contender:
    """A row of the table.

    Args:
        process: Name of the process that runs it, a key of `PROCESSES`.
        form: What the process does; see the module in `benchmarks.peers`.
        modes: Names from `cases.MODES`.
        dtypes: Names from `cases.DTYPES`.
        families: Families of models that it has.
        is_ours: Whether it runs a model of this library.
        cheap_only: Measured only in columns that take a short time, unless it
            is asked for by name.
    """

    process: str
    form: str
    modes: tuple
    dtypes: tuple = cases.DTYPES
    families: tuple = ("mixer", "resmlp")
    is_ours: bool = False
    cheap_only: bool = False

    @property
    def name(self):
        return f"{self.process}.{self.form}"

    @property
    def framework(self):
        """The software that computes: peers of one framework share it."""
        return self.process.rpartition("-")[2].replace("timm", "torch")

    def is_in(self, column, modes, chosen):
        """Whether it is a row of a column.

        Args:
            column: A `cases.Column`.
            modes: The modes that the user asked for. A peer is measured for
                each of them: it has no `predict` and no `fit`.
            chosen: Names that the user asked for, or `None`.
        """
        works = {cases.WORKS[mode] for mode in self.modes}
        wanted = not self.is_ours or bool({*self.modes} & {*modes})
        listed = not self.cheap_only or column.is_cheap
        return (
            column.work in works
            and wanted
            and column.dtype in self.dtypes
            and cases.MODELS[column.model].family in self.families
            and (listed if chosen is None else self.is_chosen(chosen))
        )

    def is_chosen(self, chosen):
        """Whether one of these names or beginnings of names is its own."""
        return any(
            self.name == each or self.name.startswith(each + ".")
            for each in chosen
        )


@dataclasses.dataclass(frozen=True)
class Process:
    """A process with one framework.

    Args:
        module: Module of `benchmarks.peers` that it imports.
        backend: Backend of Keras, or `None` without Keras.
        needs: Modules that must be installed.
        devices: Devices that it can use.
    """

    module: str
    backend: str | None
    needs: tuple
    devices: tuple = ("cpu", "gpu")


PROCESSES = {
    **{
        f"ours-{backend}": Process("keras_models", backend, ("keras", backend))
        for backend in BACKENDS
    },
    "timm": Process("timm_models", None, ("torch", "timm")),
    "flax": Process("flax_models", None, ("jax", "flax")),
    **{
        f"zeromodels-{backend}": Process(
            "zeromodels_models", backend, ("keras", backend, "zeromodels")
        )
        for backend in BACKENDS
    },
    "onnxruntime": Process("files", None, ("onnxruntime",), ("cpu",)),
    "openvino": Process("files", None, ("openvino",), ("cpu",)),
}


def _ours(backend, form, modes=("forward",), **options):
    return Contender(f"ours-{backend}", form, modes, is_ours=True, **options)


def _zeromodels(backend, form):
    return Contender(
        f"zeromodels-{backend}", form, ("forward",), cheap_only=True
    )


TRAIN, FIT, PREDICT = ("train",), ("fit",), ("predict",)
RARE = {"cheap_only": True}

CONTENDERS = (
    _ours("torch", "eager"),
    _ours("torch", "eager_fused", **RARE),
    _ours("torch", "compiled"),
    _ours("torch", "predict", PREDICT),
    _ours("torch", "predict_on_batch", PREDICT),
    _ours("jax", "eager", **RARE),
    _ours("jax", "xla"),
    _ours("jax", "xla_fused", **RARE),
    _ours("jax", "predict", PREDICT),
    _ours("jax", "predict_on_batch", PREDICT),
    _ours("tensorflow", "eager", **RARE),
    _ours("tensorflow", "graph"),
    _ours("tensorflow", "xla"),
    _ours("tensorflow", "xla_fused", **RARE),
    _ours("tensorflow", "predict", PREDICT),
    _ours("tensorflow", "predict_on_batch", PREDICT),
    _ours("torch", "train", TRAIN),
    _ours("torch", "fit", FIT, **RARE),
    _ours("jax", "train_xla", TRAIN),
    _ours("jax", "fit", FIT, **RARE),
    _ours("tensorflow", "train_graph", TRAIN),
    _ours("tensorflow", "train_xla", TRAIN),
    _ours("tensorflow", "fit", FIT, **RARE),
    Contender("timm", "eager", ("forward",), cheap_only=True),
    Contender("timm", "inference_mode", ("forward",)),
    Contender("timm", "compiled", ("forward",)),
    Contender("timm", "train", TRAIN),
    Contender("timm", "train_compiled", TRAIN, cheap_only=True),
    Contender("flax", "jit", ("forward",), families=("mixer",)),
    Contender("flax", "train_jit", TRAIN, families=("mixer",)),
    _zeromodels("torch", "eager"),
    _zeromodels("jax", "xla"),
    _zeromodels("tensorflow", "xla"),
    *(
        Contender(
            runtime,
            file,
            ("forward",),
            dtypes,
            is_ours=file.startswith("ours"),
            cheap_only=file.endswith("fused"),
        )
        for runtime, dtypes in (
            ("onnxruntime", ("float32",)),
            ("openvino", ("float32", "bfloat16")),
        )
        for file in ("timm", "ours", "ours_fused")
    ),
    # Matrix products alone: the roof of a column, no contender.
    *(Contender(f"ours-{backend}", ROOF, cases.MODES) for backend in BACKENDS),
)

# What a row runs, the row, and the peer that runs the same.
PAIRS = (
    ("PyTorch, eager", "ours-torch.eager", "timm.inference_mode"),
    ("PyTorch, compiled", "ours-torch.compiled", "timm.compiled"),
    ("PyTorch, training", "ours-torch.train", "timm.train"),
    ("PyTorch, `fit`", "ours-torch.fit", "timm.train"),
    ("JAX, XLA", "ours-jax.xla", "flax.jit"),
    ("JAX, `predict`", "ours-jax.predict", "flax.jit"),
    ("JAX, training", "ours-jax.train_xla", "flax.train_jit"),
    ("JAX, `fit`", "ours-jax.fit", "flax.train_jit"),
    ("TensorFlow, XLA", "ours-tensorflow.xla", "zeromodels-tensorflow.xla"),
    ("TensorFlow, XLA", "ours-tensorflow.xla", "flax.jit"),
    ("TensorFlow, training", "ours-tensorflow.train_xla", "flax.train_jit"),
    ("ONNX Runtime", "onnxruntime.ours_fused", "onnxruntime.timm"),
    ("OpenVINO", "openvino.ours_fused", "openvino.timm"),
)


def groups():
    """The names that `--contenders` takes: processes and single rows."""
    return [*PROCESSES, *(each.name for each in CONTENDERS)]
