"""The processes of the frameworks, seen from the command."""

import contextlib
import importlib.util
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time

from benchmarks.contenders import PROCESSES

ROOT = pathlib.Path(__file__).parents[1]

# Longest time for one request, in seconds. torch.compile of a large model takes
# one to two minutes.
TIMEOUT = 600


class FailedError(Exception):
    """A request failed; the message says why, for the table."""


class Worker:
    """A process with one framework, started when it is first used.

    Args:
        name: A key of `PROCESSES`.
        device: "cpu" or "gpu".
        folder: Folder for the file with the messages of the process.
        variables: Dict, further environment variables of the process.
    """

    def __init__(self, name, device, folder, variables=None):
        self.name = name
        self.log = pathlib.Path(folder, f"{name}.log")
        check_runnable(name, device)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(name, device, folder) | (variables or {}),
                cwd=ROOT,
            )
        try:
            self.facts = self._read(TIMEOUT)
        except BaseException:
            self.close()
            raise

    def ask(self, do, timeout=TIMEOUT, **request):
        """Sends a request and returns the reply.

        Raises:
            FailedError: If the request fails, or if the process ends or takes
                too long. In the last two cases it is closed.
        """
        line = json.dumps({"do": do, **request}) + "\n"
        if not self.is_alive:
            raise self._ended()
        try:
            self.process.stdin.write(line.encode("utf-8"))
            self.process.stdin.flush()
        except OSError:
            raise self._ended() from None
        return self._read(timeout)

    def _read(self, timeout):
        # There is never more than one reply to read, so nothing is buffered.
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        if not ready:
            self.close()
            raise FailedError(f"no reply in {timeout} s")
        line = self.process.stdout.readline()
        if not line:
            raise self._ended()
        reply = json.loads(line)
        if "error" in reply:
            raise FailedError(reply["error"])
        return reply

    def _ended(self):
        code = self.process.wait()
        self.close()
        why = " (out of memory?)" if code == -9 else ""
        return FailedError(f"the process ended with code {code}{why}")

    @property
    def is_alive(self):
        return self.process.poll() is None

    def close(self):
        if self.is_alive:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(OSError):
            self.process.stdin.close()


def check_runnable(name, device):
    """Raises `FailedError` if a process cannot work here."""
    process = PROCESSES[name]
    for module in process.needs:
        if importlib.util.find_spec(module) is None:
            raise FailedError(f"`{module}` is not installed")
    if device not in process.devices:
        raise FailedError(f"it does not run on the device '{device}' here")


def environment(name, device, folder):
    """The environment variables of a process."""
    backend = PROCESSES[name].backend
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    result = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "BENCHMARK_DEVICE": device,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # torch.compile finds nothing that earlier runs have left.
        "TORCHINDUCTOR_CACHE_DIR": str(pathlib.Path(folder, "inductor")),
        # Several processes share the memory of a GPU.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "JAX_PLATFORMS": {"cpu": "cpu", "gpu": "cuda"}[device],
        "KERAS_TORCH_DEVICE": {"cpu": "cpu", "gpu": "cuda"}[device],
    }
    if backend:
        result["KERAS_BACKEND"] = backend
    if device == "cpu":
        result["CUDA_VISIBLE_DEVICES"] = ""
    return result


class Workers:
    """One worker for each process that is used, and files for them."""

    def __init__(self, device):
        self.device = device
        self.workers = {}
        self.versions = {}
        self.imports = {}
        self.devices = {}
        self.broken = {}  # why a process does not start
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        self.folder = pathlib.Path(
            self._stack.enter_context(tempfile.TemporaryDirectory())
        )
        self._stack.callback(self.close)
        return self

    def __exit__(self, *details):
        self._stack.__exit__(*details)

    def check(self, name):
        """Raises `FailedError` if a process cannot work here."""
        check_runnable(name, self.device)

    def get(self, name):
        """The running worker of a process; starts it if necessary."""
        if name not in self.workers or not self.workers[name].is_alive:
            self.workers[name] = self.fresh(name)
        return self.workers[name]

    def fresh(self, name, variables=None):
        """A new process, which the caller closes.

        Args:
            name: A key of `PROCESSES`.
            variables: Dict, further environment variables of the process.
        """
        if name in self.broken:
            raise FailedError(self.broken[name])
        try:
            worker = Worker(name, self.device, self.folder, variables)
        except FailedError as error:
            self.broken[name] = str(error)
            raise
        self.versions.update(worker.facts["versions"])
        self.imports.setdefault(name, worker.facts["seconds"])
        self.devices.setdefault(name, worker.facts["device"])
        return worker

    def close(self):
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()

    def release(self):
        """Frees the memory of all cases."""
        for worker in self.workers.values():
            if worker.is_alive:
                with contextlib.suppress(FailedError):
                    worker.ask("release")


def busy():
    """Processor seconds of the whole machine so far, or `None`."""
    stat = pathlib.Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _wait, irq, soft = map(
        int, stat.read_text().split()[1:8]
    )
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


class OtherWork:
    """How much of the processors something else used, while one case ran."""

    def __init__(self):
        self.start = busy(), time.perf_counter()

    def share(self, own):
        """The share from 0 to 1, without `own` processor seconds."""
        before, started = self.start
        if before is None:
            return None
        seconds = (time.perf_counter() - started) * (os.cpu_count() or 1)
        return max(0.0, min(1.0, (busy() - before - own) / seconds))
