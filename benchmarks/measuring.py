"""Measures columns: all contenders in turns, one call at a time."""

import contextlib
import math
import os
import pathlib
import sys
import tempfile
import time

from benchmarks.workers import FailedError
from benchmarks.workers import Worker

# A contender is left out if one call takes longer, in seconds.
SLOWEST_CALL = 60

# Threads of a framework wait actively for some milliseconds after a call. The
# next contender starts when they sleep.
PAUSE = 0.05

# The most calls of one round.
MOST_CALLS = 2000


class Workers:
    """The running process of each framework, and the files of models."""

    def __init__(self, device):
        self.device = device
        self.running = {}
        self.versions = {}
        self.files = {}

    def get(self, name):
        worker = self.running.get(name)
        if worker is None or not worker.process.is_alive():
            self.running[name] = self.fresh(name)
        return self.running[name]

    def fresh(self, name):
        """Returns a new process, which the caller closes."""
        worker = Worker(name, self.device)
        self.versions |= worker.facts
        return worker

    def close(self):
        for worker in self.running.values():
            worker.close()
        self.running.clear()


class Row:
    """A contender in a column: what was measured, or why nothing was."""

    def __init__(self, contender, column):
        self.contender = contender
        self.key = f"{contender.name}, {column.name}"
        self.case = column.request()
        self.reason = None
        self.facts = {}
        self.calls = 1
        self.seconds = []  # of one call, in each round

    def do(self, action, *arguments):
        """Does something for the row, unless it has failed before."""
        if self.reason is None:
            try:
                action(self, *arguments)
            except FailedError as error:
                self.reason = str(error)

    def result(self):
        return {
            "contender": self.contender.name,
            "peer": self.contender.peer,
            "reason": self.reason,
            "seconds": self.seconds,
            **self.facts,
        }


def measure(columns, rows_of, device, options):
    """Measures all columns, and returns the results as JSON values.

    Args:
        columns: List of `cases.Column`.
        rows_of: Function of a column that returns its contenders.
        device: "cpu" or "gpu".
        options: Object with `rounds`, `seconds` (of a round) and `no_memory`.
    """
    workers = Workers(device)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.callback(workers.close)
        results = []
        for i, column in enumerate(columns, start=1):
            print(f"[{i}/{len(columns)}] {column.name}", file=sys.stderr)
            rows = [Row(each, column) for each in rows_of(column)]
            measure_column(rows, workers, folder, options)
            results.append(
                {
                    **column.request(),
                    "name": column.name,
                    "model": column.model.name,
                    "is_scaling": column.is_scaling,
                    "tokens": column.model.tokens,
                    "macs": column.model.macs(),
                    "rows": [row.result() for row in rows],
                }
            )
    return {
        "machine": machine(),
        "versions": dict(sorted(workers.versions.items())),
        "rounds": options.rounds,
        "columns": results,
    }


def measure_column(rows, workers, folder, options):
    for row in rows:
        row.do(write_file, workers, folder)
        if not options.no_memory:
            row.do(measure_memory, workers)
        row.do(build, workers, options.seconds)
    for i in range(options.rounds):
        for k in range(len(rows)):  # each round begins with another row
            rows[(i + k) % len(rows)].do(run_once, workers)
    for worker in workers.running.values():
        with contextlib.suppress(FailedError):
            worker.ask("release")


def write_file(row, workers, folder):
    """Has a model written to a file, once, if a row needs one."""
    runtime, form = row.contender.process, row.contender.form
    if runtime not in ("onnxruntime", "openvino"):
        return
    is_xml = runtime == "openvino" and form != "timm"
    suffix = ".xml" if is_xml else ".onnx"
    path = pathlib.Path(folder, f"{row.case['name']}.{form}{suffix}")
    if not path.exists():
        producer = "timm" if form == "timm" else "ours-tensorflow"
        with contextlib.closing(workers.fresh(producer)) as worker:
            worker.ask("export", form, row.case, str(path))
    row.case["path"] = str(path)


def measure_memory(row, workers):
    """Measures the peak memory in a process of its own."""
    with contextlib.closing(workers.fresh(row.contender.process)) as worker:
        worker.ask("build", row.key, row.contender.form, row.case)
        row.facts["memory"] = worker.ask("memory")


def build(row, workers, seconds):
    """Builds a row in the process of its framework, and warms it up."""
    worker = workers.get(row.contender.process)
    times = worker.ask("build", row.key, row.contender.form, row.case)
    row.facts["build"], row.facts["first_call"], taken = times
    if taken > SLOWEST_CALL:
        raise FailedError(f"one call takes {taken:.0f} s")
    # The second call may have been slow; the next is nearer to the truth.
    taken = worker.ask("run", row.key, 1)
    # A `fit` of one step would mostly measure how Keras prepares the images.
    least = 8 if row.contender.form == "fit" else 1
    calls = max(least, math.ceil(seconds / max(taken, 1e-6)))
    row.calls = min(calls, MOST_CALLS)


def run_once(row, workers):
    time.sleep(PAUSE)
    worker = workers.running[row.contender.process]
    row.seconds.append(worker.ask("run", row.key, row.calls) / row.calls)


def machine():
    """The machine in words."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    found = {key.strip(): value.strip() for key, value in pairs}
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")
    flags = found.get("flags", "").split()
    return ", ".join(
        [
            f"{os.cpu_count()} cores of {found.get('model name', 'unknown')}",
            *(flag for flag in wanted if flag in flags),
            f"Python {sys.version.split()[0]}",
        ]
    )
