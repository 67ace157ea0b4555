"""A process with one framework that builds and runs what it is asked to.

`processes.Worker` starts it as `python -m benchmarks.worker NAME`. Requests and
replies are lines of JSON. A request that fails has a reply with "error", and
the process goes on.
"""

import gc
import importlib
import importlib.metadata
import json
import os
import pathlib
import sys
import time
import traceback

from benchmarks.contenders import PROCESSES

LIBRARIES = (
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "timm",
    "flax",
    "onnxruntime",
    "openvino",
    "zeromodels",
)


class Server:
    """Answers requests. A case that was built stays until it is released."""

    def __init__(self, module):
        self.module = module
        self.cases = {}

    def build(self, key, form, case, calls):
        """Builds a case and makes the first calls, each of which is timed."""
        start = time.perf_counter()
        self.cases[key] = self.module.build(form, case)
        seconds = {"build": time.perf_counter() - start}
        for name in ("first_call", "second_call")[:calls]:
            seconds[name] = self.run(key, 1)["seconds"]
        return seconds

    def run(self, key, calls):
        """Times a number of calls."""
        cpu = time.process_time()
        start = time.perf_counter()
        self.cases[key](calls)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "cpu": time.process_time() - cpu}

    def release(self):
        """Forgets all cases, and what the framework keeps of them."""
        self.cases.clear()
        release = getattr(self.module, "release", None)
        if release:
            release()
        gc.collect()
        return {}

    def export(self, form, case, path):
        """Writes a model to a file for another runtime."""
        self.module.export(form, case, path)
        return {}

    def memory(self):
        """The peak memory of this process, and of its GPU, in bytes."""
        gpu = getattr(self.module, "gpu_memory", lambda: None)()
        return {"memory": peak(), "gpu_memory": gpu}


def peak():
    # `ru_maxrss` would be that of the parent, until it is exceeded.
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return None
    return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])


def versions():
    found = {}
    for name in LIBRARIES:
        if name in sys.modules:
            version = getattr(sys.modules[name], "__version__", None)
            found[name] = str(version)
    return found


def main():
    name = sys.argv[1]
    # Libraries print to the standard output too: they get the standard error.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def reply(**content):
        channel.write(json.dumps(content) + "\n")

    start = time.perf_counter()
    try:
        module = importlib.import_module(
            f"benchmarks.peers.{PROCESSES[name].module}"
        )
        device = module.start(name)
    except Exception as error:
        traceback.print_exc()
        reply(error=describe(error))
        return
    seconds = time.perf_counter() - start
    reply(seconds=seconds, versions=versions(), device=device)
    server = Server(module)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply(**getattr(server, request.pop("do"))(**request))
        except Exception as error:
            traceback.print_exc()
            reply(error=describe(error))


def describe(error):
    """The type and the first line of the message of an error."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}".rstrip(": ")


if __name__ == "__main__":
    main()
