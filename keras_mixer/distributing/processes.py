"""Several processes, on one host or on many, that train together.

They are those of JAX. When a process dies, JAX lets the others wait for 100
seconds, and Keras has no option for that: `join` starts JAX's service itself.
"""

import contextlib
import os
import secrets

import keras

# How long processes that are done wait for the last one, in seconds.
SHUTDOWN_TIMEOUT = 3600


def join(
    address: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    seed: int | None = None,
    heartbeat_timeout: int = 30,
) -> None:
    """Makes this process one of several that train together, on JAX.

    Call it in each process, once, before anything is computed; then open
    `devices("data")`. If one of them dies the others end, at the latest when
    they have not heard of it for some time; start all again, from the last file
    that was saved.

    Source: `jax.distributed.initialize`, and `keras.distribution.initialize`,
    whose names of environment variables are the defaults here.

    Args:
        address: `"host:port"` of process 0, with a port that is free there; by
            default `KERAS_DISTRIBUTION_JOB_ADDRESSES`, and without that what
            JAX finds on a TPU, or under Slurm.
        processes: Positive integer, how many there are; by default
            `KERAS_DISTRIBUTION_NUM_PROCESSES`.
        process: Integer, which this is, from 0; by default
            `KERAS_DISTRIBUTION_PROCESS_ID`.
        seed: Integer, the seed of all; by default process 0 draws one.
        heartbeat_timeout: Positive integer, after how many seconds without a
            sign of life a process is held to be dead.

    Raises:
        ValueError: If the backend is not JAX.
        RuntimeError: If JAX has computed something before.

    Example:

    >>> from keras_mixer import distributing
    >>> distributing.join("10.0.0.1:1234", 2, 0)  # doctest: +SKIP
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "Several processes train together with KERAS_BACKEND=jax. "
            f"Received: the backend {keras.backend.backend()!r}"
        )
    import jax
    from jax.experimental import multihost_utils

    env = os.environ
    if address is None:
        # Of a list, the first is that of process 0.
        addresses = env.get("KERAS_DISTRIBUTION_JOB_ADDRESSES")
        address = addresses and addresses.split(",")[0]
    if processes is None and "KERAS_DISTRIBUTION_NUM_PROCESSES" in env:
        processes = int(env["KERAS_DISTRIBUTION_NUM_PROCESSES"])
    if process is None and "KERAS_DISTRIBUTION_PROCESS_ID" in env:
        process = int(env["KERAS_DISTRIBUTION_PROCESS_ID"])
    # It would keep SIGTERM from ending the process, for a use that is not ours.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        address,
        processes,
        process,
        heartbeat_timeout_seconds=heartbeat_timeout,
        # The others wait in the end for the one that evaluates and saves.
        shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
    )
    if seed is None:
        seed = secrets.randbelow(2**31)
    seed = multihost_utils.broadcast_one_to_all(seed)
    keras.utils.set_random_seed(int(seed))


def is_one_of_several() -> bool:
    """Whether the environment says that this process trains with others.

    Source: the variables of `keras.distribution.initialize`.

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
def told_of_the_others(processes):
    """Says what a failed exchange between processes is likely to mean."""
    import jax

    try:
        yield
    # JAX raises both.
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if processes > 1:
            error.add_note(
                "If that was an exchange between the processes, one of the "
                f"{processes} has ended: see what each of them printed. Start "
                "all again, from the last file that was saved."
            )
        raise
