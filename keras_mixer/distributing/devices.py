"""Training on many devices, by the engines that Keras has for them.

`tf.distribute` on TensorFlow, `keras.distribution` on JAX, and on one device
neither: `devices` opens any of them, knows its number of replicas, and says
what `model.compile` needs there. A training ends with the weights that one
device reaches on the same batches; what Keras 3.15 needs help with for that:

- Clipping. Under `tf.distribute` Keras's optimizers clip the gradient of each
  replica, and sum what is left: the clipped norm is another one than that of
  the batch (tensorflow/tensorflow#33929 tells the history). Here the sum is
  clipped, which is what every recipe with `clip_norm` means.
- XLA. `jit_compile=True` fails under `MirroredStrategy`, since Keras compiles
  the steps of all replicas as one, for the first device
  (keras-team/keras#19005, #17187, tensorflow/tensorflow#53140). TensorFlow's
  auto-clustering compiles within each replica what can be compiled, and leaves
  the exchange of gradients between them; that is what is switched on here.
- `MultiWorkerMirroredStrategy` fails in `fit` (keras-team/keras#20585): several
  hosts train with JAX.
- A process that dies. JAX lets the others wait for 100 seconds, and Keras has
  no option for that: `join` starts JAX's service itself.

On PyTorch Keras has no engine for this: `DistributedDataParallel` takes a Keras
model as it takes any module, in a loop of your own; `fit` knows nothing of it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mixer.arguments import check_positive_int
from keras_mixer.distributing.layout import distribution_of
from keras_mixer.distributing.processes import process_count_and_index
from keras_mixer.distributing.processes import told_of_the_others
from keras_mixer.distributing.strategies import auto_clustering
from keras_mixer.distributing.strategies import clip_sums
from keras_mixer.distributing.strategies import mirrored_strategy
from keras_mixer.distributing.strategies import tpu_strategy

_BACKENDS = {
    "none": ("tensorflow", "jax", "torch"),
    "mirrored": ("tensorflow",),
    "tpu": ("tensorflow",),
    "multiworker": ("tensorflow",),
    "data": ("jax",),
    "model": ("jax",),
}


KINDS = ("auto", *_BACKENDS)


_INSTEAD = {
    "tensorflow": '"mirrored" for the GPUs of one host, "tpu" for a TPU',
    "jax": '"data" for any devices, "model" to cut the weights up as well',
    "torch": '"none": Keras has no engine for many devices on PyTorch. Set '
    "KERAS_BACKEND=jax or KERAS_BACKEND=tensorflow, or wrap the model in "
    "torch.nn.parallel.DistributedDataParallel, in a loop of your own",
}


@dataclasses.dataclass(frozen=True)
class Devices:
    """What trains a model together; `devices` makes it.

    Args:
        kind: One of `KINDS`, but not `"auto"`.
        replicas: Integer, into how many parts a batch is cut.
        processes: Integer, how many processes there are.
        process: Integer, which of them this one is; 0 is the one that saves.
        jit_compile: Boolean or `"auto"`, what `model.compile` takes.

    Example:

    >>> from keras_mixer.distributing import Devices
    >>> two_hosts = Devices("data", replicas=8, processes=2, process=1)
    >>> two_hosts.local_batch_size(64)
    32
    """

    kind: str
    replicas: int = 1
    processes: int = 1
    process: int = 0
    jit_compile: bool | str = "auto"

    def local_batch_size(self, batch_size: int) -> int:
        """How many samples of each batch this process feeds to `fit`.

        Args:
            batch_size: Positive integer, the samples of a batch on all devices.

        Returns:
            An integer: `batch_size` where there is one process.

        Raises:
            ValueError: If the replicas cannot have equal parts of a batch.
            TypeError: If `batch_size` is not an integer.

        Example:

        >>> from keras_mixer.distributing import Devices
        >>> Devices("mirrored", replicas=4).local_batch_size(20)
        20
        """
        batch_size = check_positive_int("batch_size", batch_size)
        if batch_size % self.replicas:
            near = max(batch_size // self.replicas, 1) * self.replicas
            raise ValueError(
                f"`batch_size` must be a multiple of {self.replicas}, since "
                f"each of {self.replicas} replicas takes an equal part of a "
                f"batch. Use {near}. Received: batch_size={batch_size}"
            )
        return batch_size // self.processes

    def check_equal(self, what: str, number: int) -> None:
        """Refuses to go on where the processes do not agree on a number.

        Args:
            what: What the number is, for the message.
            number: Integer, that of this process.

        Raises:
            ValueError: In all processes, if it differs between them.

        Example:

        >>> from keras_mixer.distributing import Devices
        >>> Devices("none").check_equal("epochs that are done", 3)
        """
        if self.processes == 1:
            return
        from jax.experimental import multihost_utils

        numbers = multihost_utils.process_allgather(np.array(number)).tolist()
        if len(set(numbers)) > 1:
            raise ValueError(
                f"The processes must agree on the {what}. Do they all see the "
                f"same folder? Received: {numbers}"
            )

    def compile_options(self, **options: Any) -> dict[str, Any]:
        """What `model.compile` takes on these devices.

        Args:
            **options: What it takes on one. An optimizer that clips is changed,
                to clip what the replicas found together.

        Returns:
            A dict, `options` with `jit_compile`.

        Example:

        >>> from keras_mixer.distributing import Devices
        >>> Devices("none").compile_options(loss="mse")
        {'loss': 'mse', 'jit_compile': 'auto'}
        """
        if self.kind in ("mirrored", "tpu"):
            optimizer = keras.optimizers.get(options.get("optimizer", "adam"))
            for each in getattr(optimizer, "optimizers", [optimizer]):
                clip_sums(each)
            options = {**options, "optimizer": optimizer}
        return {**options, "jit_compile": self.jit_compile}


@contextlib.contextmanager
def devices(
    kind: str = "auto",
    jit_compile: bool | str = "auto",
    model_devices: int | None = None,
    tpu: str | None = None,
) -> Iterator[Devices]:
    """Opens devices: what is built, compiled and trained within uses them all.

    A batch is cut into equal parts, one for each replica, so its size is a
    multiple of their number, also that of the last batch of an epoch (drop the
    remainder). With several processes (`join`) each feeds its own part, of
    `local_batch_size`; all of them build, load and train. The one whose
    `process` is 0 saves, once the devices are closed: Keras makes an optimizer
    when it saves, only to look at it, and what is made on devices of several
    processes is compared between them. The checkpoints of `training.fit` need
    none, and are written in between.

    Source: the guides of Keras, "Multi-GPU distributed training with
    TensorFlow" and "Distributed training with Keras 3", and TensorFlow's "Use
    TPUs".

    Args:
        kind: What to open:
            `"none"`: one device, on any backend.
            `"mirrored"`: the GPUs of this host, each with a copy of the model
            (TensorFlow; where there is no GPU its logical CPUs).
            `"tpu"`: the cores of a TPU, likewise (TensorFlow).
            `"data"`: the devices of all processes, likewise (JAX).
            `"model"`: the devices of this process, but groups of
            `model_devices` share a copy, whose MLPs are cut up as in
            `model_layout` (JAX).
            `"auto"`: `"mirrored"` or `"data"` where there is more than one
            device, else `"none"`.
        jit_compile: Boolean or `"auto"`, whether XLA compiles the step, as in
            `model.compile`. Under `"mirrored"`, `"auto"` is `False`, as in
            Keras, and `True` means TensorFlow's auto-clustering, which on CPUs
            needs `TF_XLA_FLAGS=--tf_xla_cpu_global_jit` in the environment.
            A TPU always compiles.
        model_devices: Positive integer, how many devices share a copy under
            `"model"`; all of them by default.
        tpu: The name or address of a TPU; by default the one that TensorFlow
            finds.

    Yields:
        `Devices`.

    Raises:
        ValueError: If the kind is unknown or does not work with the backend,
            XLA or several processes, or `model_devices` does not divide the
            number of devices.
        TypeError: If `model_devices` is not an integer.

    Example:

    >>> import keras_mixer
    >>> from keras_mixer import distributing
    >>> with distributing.devices("none") as devices:
    ...     model = keras_mixer.Mixer(
    ...         patch_size=4, num_blocks=1, hidden_dim=8, tokens_mlp_dim=8,
    ...         channels_mlp_dim=8, input_shape=(8, 8, 3), classes=3)
    ...     model.compile(**devices.compile_options(loss="mse"))
    >>> devices.replicas
    1
    """
    kind = _check_kind(kind)
    with contextlib.ExitStack() as stack:
        if kind == "mirrored":
            strategy = mirrored_strategy()
            if jit_compile is True:
                stack.enter_context(auto_clustering())
            jit_compile = False
        elif kind == "tpu":
            strategy = tpu_strategy(tpu)
            jit_compile = False  # of Keras's: the strategy compiles by itself
        if kind in ("mirrored", "tpu"):
            stack.enter_context(strategy.scope())
            opened = Devices(
                kind, strategy.num_replicas_in_sync, jit_compile=jit_compile
            )
        elif kind in ("data", "model"):
            distribution = distribution_of(kind, model_devices)
            stack.enter_context(distribution.scope())
            processes, process = process_count_and_index()
            opened = Devices(
                kind,
                distribution.num_model_replicas,
                processes,
                process,
                jit_compile,
            )
            stack.enter_context(told_of_the_others(opened.processes))
        else:
            _check_alone()
            opened = Devices(kind, jit_compile=jit_compile)
        yield opened


def _check_kind(kind):
    if kind not in KINDS:
        raise ValueError(
            f"`kind` must be one of {', '.join(map(repr, KINDS))}. "
            f"Received: kind={kind!r}"
        )
    backend = keras.backend.backend()
    if kind == "auto":
        return _most_devices(backend)
    if kind == "multiworker":
        raise ValueError(
            "`MultiWorkerMirroredStrategy` fails in the `fit` of Keras 3 "
            "(keras-team/keras#20585). Several hosts train with "
            "KERAS_BACKEND=jax: `join` in each process, then "
            f'`kind="data"`. Received: kind={kind!r}'
        )
    if backend not in _BACKENDS[kind]:
        raise ValueError(
            f"`kind={kind!r}` needs KERAS_BACKEND={_BACKENDS[kind][0]}. With "
            f"the backend {backend!r} use {_INSTEAD[backend]}. "
            f"Received: kind={kind!r}"
        )
    return kind


def _check_alone():
    if keras.backend.backend() != "jax":
        return
    count, _ = process_count_and_index()
    if count > 1:
        raise ValueError(
            f"This is one of {count} processes that train together. "
            'Use "data", or do not `join`. Received: kind="none"'
        )


def _most_devices(backend):
    if backend == "tensorflow":
        import tensorflow as tf

        several = len(tf.config.list_logical_devices("GPU")) > 1
        return "mirrored" if several else "none"
    if backend == "jax" and keras.distribution.get_device_count() > 1:
        return "data"
    return "none"
