"""Processes that each import one framework, and build and run what is asked.

They are started anew, not forked: no process has more than one framework, and
each has the environment variables that its framework needs.
"""

import gc
import importlib
import importlib.util
import multiprocessing
import os
import pathlib
import time

from benchmarks.contenders import PROCESSES

# Longest time for one request, in seconds. torch.compile of a large model takes
# one to two minutes.
TIMEOUT = 600


class FailedError(Exception):
    """A request failed; the message says why, for the table."""


class Worker:
    """A process with one framework.

    Args:
        name: A key of `PROCESSES`.
        device: "cpu" or "gpu".
    """

    def __init__(self, name, device):
        module, backend, needs = PROCESSES[name]
        for each in needs:
            if importlib.util.find_spec(each) is None:
                raise FailedError(f"`{each}` is not installed")
        if device == "gpu" and module == "files":
            raise FailedError("it does not run on a GPU here")
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        variables = environment(backend, device)
        self.process = context.Process(
            target=serve, args=(there, name, module, variables), daemon=True
        )
        self.process.start()
        there.close()
        self.facts = self._reply()

    def ask(self, do, *arguments):
        """Calls a method of `Server` in the process, and returns the result.

        Raises:
            FailedError: If the method fails, or if the process ends or takes
                too long.
        """
        try:
            self._pipe.send((do, arguments))
        except OSError:
            raise self._ended() from None
        return self._reply()

    def _reply(self):
        if not self._pipe.poll(TIMEOUT):
            self.close()
            raise FailedError(f"no reply in {TIMEOUT} s")
        try:
            result, error = self._pipe.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if error:
            raise FailedError(error)
        return result

    def _ended(self):
        self.process.join()
        code = self.process.exitcode
        why = " (out of memory?)" if code == -9 else ""
        return FailedError(f"the process ended with code {code}{why}")

    def close(self):
        self._pipe.close()  # the process ends by itself
        self.process.join(10)
        self.process.kill()
        self.process.join()


def environment(backend, device):
    """The environment variables of a process."""
    platform = {"cpu": "cpu", "gpu": "cuda"}[device]
    variables = {
        "BENCHMARK_DEVICE": device,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Several processes share the memory of a GPU.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "JAX_PLATFORMS": platform,
        "KERAS_TORCH_DEVICE": platform,
    }
    if backend:
        variables["KERAS_BACKEND"] = backend
    if device == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = ""
    return variables


def serve(pipe, name, module, variables):
    """What a process runs: it answers until the pipe is closed."""
    os.environ.update(variables)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        server = Server(importlib.import_module(f"benchmarks.peers.{module}"))
        pipe.send((server.module.start(name), None))
    except Exception as error:
        pipe.send((None, describe(error)))
        return
    while True:
        try:
            do, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((getattr(server, do)(*arguments), None))
        except Exception as error:
            pipe.send((None, describe(error)))


def describe(error):
    """The type and the first line of the message of an error."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}".rstrip(": ")


class Server:
    """Answers requests. What was built stays until it is released."""

    def __init__(self, module):
        self.module = module
        self.calls = {}

    def build(self, key, form, case):
        """Builds a case, and returns the seconds of this and of two calls."""
        start = time.perf_counter()
        self.calls[key] = self.module.build(form, case)
        built = time.perf_counter() - start
        return built, self.run(key, 1), self.run(key, 1)

    def run(self, key, count):
        """Returns the seconds of a number of calls."""
        start = time.perf_counter()
        self.calls[key](count)
        return time.perf_counter() - start

    def release(self):
        self.calls.clear()
        gc.collect()

    def export(self, form, case, path):
        """Writes a model to a file for another runtime."""
        self.module.export(form, case, path)

    def memory(self):
        """The peak memory of this process, or what its GPU had, in bytes."""
        gpu = getattr(self.module, "gpu_memory", lambda: None)()
        status = pathlib.Path("/proc/self/status")
        if gpu is not None or not status.exists():
            return gpu
        # `ru_maxrss` would be that of the parent, until it is exceeded.
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
