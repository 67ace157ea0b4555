"""Several JAX processes, on one or more hosts, that train together.

If a process dies, the others wait for 100 seconds by default in JAX. Keras has
no option for this time, so `join` starts the service of JAX itself.
"""

import contextlib
import os
import secrets

import keras

# Time that finished processes wait for the last one, in seconds.
SHUTDOWN_TIMEOUT = 3600


def join(
    address: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    seed: int | None = None,
    heartbeat_timeout: int = 30,
) -> None:
    """Connects this process with others that train together, on JAX.

    Call it once in each process, before anything is computed. Then open
    `devices("data")`. If a process dies, the others end too, after
    `heartbeat_timeout` at the latest. To resume the training, start all of them
    again.

    Source: `jax.distributed.initialize`. The environment variables are those of
    `keras.distribution.initialize`.

    Args:
        address: `"host:port"` of process 0, where the port must be free. The
            default is `KERAS_DISTRIBUTION_JOB_ADDRESSES`. If that is not set,
            JAX finds the address on a TPU or with Slurm.
        processes: Positive integer, the number of processes. The default is
            `KERAS_DISTRIBUTION_NUM_PROCESSES`.
        process: Integer, the index of this process, from 0. The default is
            `KERAS_DISTRIBUTION_PROCESS_ID`.
        seed: Integer, the seed of all processes. By default, process 0 draws a
            random seed.
        heartbeat_timeout: Positive integer, the seconds without a signal from a
            process until it counts as dead.

    Raises:
        ValueError: If the backend is not JAX.
        RuntimeError: If JAX has already computed something.

    Example:

    >>> from keras_mixer import distributing
    >>> distributing.join("10.0.0.1:1234", 2, 0)  # doctest: +SKIP
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "Several processes can only train together with KERAS_BACKEND=jax. "
            f"Received: the backend {keras.backend.backend()!r}"
        )
    import jax
    from jax.experimental import multihost_utils

    env = os.environ
    if address is None:
        # The first address is that of process 0.
        addresses = env.get("KERAS_DISTRIBUTION_JOB_ADDRESSES")
        address = addresses and addresses.split(",")[0]
    if processes is None and "KERAS_DISTRIBUTION_NUM_PROCESSES" in env:
        processes = int(env["KERAS_DISTRIBUTION_NUM_PROCESSES"])
    if process is None and "KERAS_DISTRIBUTION_PROCESS_ID" in env:
        process = int(env["KERAS_DISTRIBUTION_PROCESS_ID"])
    # Otherwise SIGTERM would not end the process. The service is not used here.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        address,
        processes,
        process,
        heartbeat_timeout_seconds=heartbeat_timeout,
        # At the end, the others wait while process 0 evaluates and saves.
        shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
    )
    if seed is None:
        seed = secrets.randbelow(2**31)
    seed = multihost_utils.broadcast_one_to_all(seed)
    keras.utils.set_random_seed(int(seed))


def is_one_of_several() -> bool:
    """Returns whether this process trains with others.

    It checks the environment variables of `keras.distribution.initialize`.

    Example:

    >>> from keras_mixer import distributing
    >>> distributing.is_one_of_several()
    False
    """
    return "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ


def process_count_and_index():
    import jax

    return jax.process_count(), jax.process_index()


@contextlib.contextmanager
def noting_lost_processes(processes):
    """Adds the likely cause to errors of communication between processes."""
    import jax

    try:
        yield
    # JAX can raise both.
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if processes > 1:
            error.add_note(
                "If communication between the processes failed, one of the "
                f"{processes} has ended: read the output of each process. To "
                "resume the training, start all of them again."
            )
        raise
