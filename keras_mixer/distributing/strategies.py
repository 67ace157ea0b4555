"""Strategies of TensorFlow, and what they need beyond Keras."""

import contextlib
import functools
import os


def mirrored_strategy():
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU")
    found = found or tf.config.list_logical_devices("CPU")
    return _strategy_of(tuple(device.name for device in found))


# Only one strategy is created for the same devices. Two of them would use the
# same numbers for their exchanges, and could get tensors of each other.
@functools.cache
def _strategy_of(names):
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(names)


def tpu_strategy(tpu):
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu)
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


@contextlib.contextmanager
def auto_clustering():
    import tensorflow as tf

    flags = os.environ.get("TF_XLA_FLAGS", "")
    on_cpus = not tf.config.list_logical_devices("GPU")
    if on_cpus and "--tf_xla_cpu_global_jit" not in flags:
        raise ValueError(
            "TensorFlow clusters operations of CPUs for XLA only if it started "
            "with TF_XLA_FLAGS=--tf_xla_cpu_global_jit in the environment. Set "
            "it, or leave `jit_compile` as it is. "
            f"Received: jit_compile=True, TF_XLA_FLAGS={flags!r}"
        )
    before = tf.config.optimizer.get_jit()
    tf.config.optimizer.set_jit("autoclustering")
    try:
        yield
    finally:
        tf.config.optimizer.set_jit(before)
