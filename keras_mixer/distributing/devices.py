"""Training on several devices, with the engines of Keras.

The engines are `tf.distribute` on TensorFlow and `keras.distribution` on JAX.
`devices` opens one of them, or a single device without an engine. It returns
the number of replicas and the arguments of `model.compile`. The final weights
are those of a training on one device with the same batches. Keras 3.15 has four
problems, which are solved or avoided as follows:

- Clipping. Under `tf.distribute`, Keras's optimizers clip the gradient of each
  replica and then add them. The result differs from clipping the gradient of
  the batch (history: tensorflow/tensorflow#33929). Here the sum is clipped,
  which is the meaning of `clip_norm` in the recipes.
- XLA. `jit_compile=True` fails under `MirroredStrategy`, since Keras compiles
  the steps of all replicas as one function, for the first device
  (keras-team/keras#19005, #17187, tensorflow/tensorflow#53140). Here
  TensorFlow's auto-clustering is used. It compiles operations within each
  replica, but not the exchange of gradients between the replicas.
- Accumulation. `gradient_accumulation_steps` fails under `tf.distribute`
  ("`merge_call` called while defining a new graph"), so it is refused.
- A process that dies. The others wait for 100 seconds by default in JAX, and
  Keras has no option for this time. `join` starts the service of JAX itself.

Keras has no engine for PyTorch. `DistributedDataParallel` accepts a Keras model
like any module, but only in your own training loop: `fit` does not use it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mixer.arguments import check_positive_int
from keras_mixer.distributing.layout import distribution_of
from keras_mixer.distributing.processes import noting_lost_processes
from keras_mixer.distributing.processes import process_count_and_index
from keras_mixer.distributing.strategies import auto_clustering
from keras_mixer.distributing.strategies import mirrored_strategy
from keras_mixer.distributing.strategies import tpu_strategy
from keras_mixer.keras_private import clip_sums

_BACKENDS = {
    "none": ("tensorflow", "jax", "torch"),
    "mirrored": ("tensorflow",),
    "tpu": ("tensorflow",),
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
    """The devices that train a model. Use `devices` to create it.

    Args:
        kind: One of `KINDS`, but not `"auto"`.
        replicas: Integer, the number of parts of a batch.
        processes: Integer, the number of processes.
        process: Integer, the index of this process. Process 0 saves.
        jit_compile: Boolean or `"auto"`, as in `model.compile`.

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
        """Returns the number of samples per batch in this process.

        Args:
            batch_size: Positive integer, the samples of a batch on all devices.

        Returns:
            An integer. It equals `batch_size` if there is one process.

        Raises:
            ValueError: If a batch cannot be split equally over the replicas.
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
        """Checks that all processes have the same number.

        Args:
            what: Name of the number, for the error message.
            number: Integer, the number of this process.

        Raises:
            ValueError: In all processes, if the numbers differ.

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
        """Returns the arguments of `model.compile` for these devices.

        Args:
            **options: The arguments for one device. An optimizer that clips is
                changed to clip the sum of the gradients of all replicas.

        Returns:
            A dict, `options` with `jit_compile`.

        Raises:
            ValueError: If the optimizer accumulates gradients, which fails with
                copies of the model on TensorFlow.

        Example:

        >>> from keras_mixer.distributing import Devices
        >>> Devices("none").compile_options(loss="mse")
        {'loss': 'mse', 'jit_compile': 'auto'}
        """
        if self.kind in ("mirrored", "tpu"):
            optimizer = keras.optimizers.get(options.get("optimizer", "adam"))
            for each in getattr(optimizer, "optimizers", [optimizer]):
                _check_steps(each, self.kind)
                clip_sums(each)
            options = {**options, "optimizer": optimizer}
        return {**options, "jit_compile": self.jit_compile}


def _check_steps(optimizer, kind):
    steps = optimizer.gradient_accumulation_steps
    if steps:
        raise ValueError(
            "Keras cannot accumulate gradients on several devices with "
            "TensorFlow. Use a larger batch, or KERAS_BACKEND=jax and "
            f'`kind="data"`. Received: {steps} batches for one update with '
            f"kind={kind!r}"
        )


@contextlib.contextmanager
def devices(
    kind: str = "auto",
    jit_compile: bool | str = "auto",
    model_devices: int | None = None,
    tpu: str | None = None,
) -> Iterator[Devices]:
    """Opens devices, as a context manager.

    Build, compile and train a model in the context to use all devices.

    A batch is split into equal parts, one per replica. So the batch size must
    be a multiple of the number of replicas, also for the last batch of an epoch
    (drop the remainder). With several processes (`join`), all of them build,
    load and train the model, and each process feeds its own part of a batch:
    `local_batch_size` images.

    Process 0 saves the model, after the context: while Keras saves, it creates
    an optimizer, which in the context would need all processes. The checkpoints
    of `training.fit` do not need this and are written in the context.

    Source: the guides of Keras, "Multi-GPU distributed training with
    TensorFlow" and "Distributed training with Keras 3", and TensorFlow's "Use
    TPUs".

    Args:
        kind: The devices to open:
            `"none"`: one device, on any backend.
            `"mirrored"`: the GPUs of this host, each with a copy of the model
            (TensorFlow). Without a GPU, the logical CPUs are used.
            `"tpu"`: the cores of a TPU, each with a copy (TensorFlow).
            `"data"`: the devices of all processes, each with a copy (JAX).
            `"model"`: the devices of this process (JAX). Each group of
            `model_devices` devices shares a copy, split as in `model_layout`.
            `"auto"`: `"mirrored"` or `"data"` if there are several devices,
            else `"none"`.
        jit_compile: Boolean or `"auto"`, whether XLA compiles the step, as in
            `model.compile`. For `"mirrored"`, `"auto"` means `False`, as in
            Keras, and `True` means TensorFlow's auto-clustering. On CPUs this
            needs `TF_XLA_FLAGS=--tf_xla_cpu_global_jit` in the environment.
            A TPU always compiles.
        model_devices: Positive integer, the number of devices that share a copy
            for `"model"`. The default is all devices.
        tpu: The name or address of a TPU. By default TensorFlow finds it.

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
            jit_compile = False  # for Keras: the strategy compiles itself
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
            stack.enter_context(noting_lost_processes(opened.processes))
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
