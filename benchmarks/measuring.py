"""Measures columns: all contenders in turns, one call at a time."""

import os
import pathlib
import sys
import time

from benchmarks import cases
from benchmarks import rounds
from benchmarks.contenders import ROOF
from benchmarks.processes import FailedError
from benchmarks.processes import OtherWork

# A contender is left out if one call takes longer, in seconds.
SLOWEST_CALL = 8

# Threads of a framework wait actively for some milliseconds after a call. The
# next contender starts when they sleep.
PAUSE = 0.05

# The most calls of one round.
MOST_CALLS = 2000


class Row:
    """A contender in a column: what was measured, or why nothing was.

    Args:
        contender: A `contenders.Contender`.
        case: Dict, the request of the column.
        key: Name under which its process keeps it.
    """

    def __init__(self, contender, case, key=None):
        self.contender = contender
        self.key = key or contender.form
        self.case = case
        self.reason = None
        self.facts = {}
        self.calls = 1
        self.rounds = []

    def request(self):
        return {
            "key": self.key,
            "form": self.contender.form,
            "case": self.case,
        }

    def result(self):
        """The row as JSON values."""
        return {
            "contender": self.contender.name,
            "is_ours": self.contender.is_ours,
            "is_roof": self.contender.form == ROOF,
            "framework": self.contender.framework,
            "reason": self.reason,
            "calls": self.calls,
            "rounds": self.rounds,
            **self.facts,
        }


def measure(columns, rows_of, workers, options, say):
    """Measures all columns.

    Args:
        columns: List of `cases.Column`.
        rows_of: Function of a column that returns its contenders.
        workers: `processes.Workers`.
        options: Object with `rounds`, `seconds` (of a round) and `memory`.
        say: Function that shows a line to the user.

    Returns:
        A list of dicts of JSON values, one for each column.
    """
    results = []
    files = {}
    for i, column in enumerate(columns, start=1):
        say(f"[{i}/{len(columns)}] {column.name}")
        started = time.perf_counter()
        rows = [Row(each, column.request()) for each in rows_of(column)]
        for row in rows:
            attempt(row, write_file, column, workers, files)
        for row in fresh(rows, column, options.memory):
            attempt(row, measure_memory, workers)
        for row in rows:
            attempt(row, build, workers, options.seconds)
        say(f"    built in {time.perf_counter() - started:.0f} s")
        take_turns(rows, workers, options.rounds)
        workers.release()
        if is_memory_short():
            workers.close()
        results.append(
            {
                "name": column.name,
                "model": column.model,
                "work": column.work,
                "batch": column.batch,
                "dtype": column.dtype,
                "gmacs": cases.MODELS[column.model].macs() / 1e9,
                "case": column.request(),
                "seconds": time.perf_counter() - started,
                "rows": [row.result() for row in rows],
            }
        )
        for row in rows:
            say(f"    {row.contender.name:32} {summary(row, column)}")
    return results


def fresh(rows, column, which):
    """The rows whose memory is measured: by default one of each process."""
    rows = [row for row in rows if row.contender.form != ROOF]
    if which == "some" and column.memory:
        return list({row.contender.process: row for row in rows[::-1]}.values())
    return rows if which == "all" else []


def attempt(row, action, *arguments):
    """Does something for a row, unless the row has failed before."""
    if row.reason is None:
        try:
            action(row, *arguments)
        except FailedError as error:
            row.reason = str(error)


def write_file(row, column, workers, files):
    """Has a model written to a file, once, if a row needs one."""
    runtime, form = row.contender.process, row.contender.form
    if runtime not in ("onnxruntime", "openvino"):
        return
    workers.check(runtime)
    is_xml = runtime == "openvino" and form != "timm"
    suffix = ".xml" if is_xml else ".onnx"
    key = (column.model, form, suffix)
    if key not in files:
        path = str(workers.folder / f"{column.model}.{form}{suffix}")
        producer = "timm" if form == "timm" else "ours-tensorflow"
        try:
            worker = workers.fresh(producer)
            try:
                worker.ask("export", form=form, case=row.case, path=path)
            finally:
                worker.close()
            files[key] = path
        except FailedError as error:
            files[key] = FailedError(f"no file: {error}")
    if isinstance(files[key], FailedError):
        raise files[key]
    row.case = {**row.case, "path": files[key]}


def measure_memory(row, workers, variables=None):
    """Measures build, first call and peak memory in a process of its own.

    Args:
        row: A `Row`, whose `facts` are set.
        workers: The `Workers`.
        variables: Dict, further environment variables of the process.
    """
    worker = workers.fresh(row.contender.process, variables)
    try:
        times = worker.ask("build", calls=1, **row.request())
        row.facts = {
            "fresh_import": worker.facts["seconds"],
            "fresh_build": times["build"],
            "fresh_first_call": times["first_call"],
            **worker.ask("memory"),
        }
    finally:
        worker.close()


def build(row, workers, seconds):
    """Builds a row in the process of its framework, and warms it up."""
    worker = workers.get(row.contender.process)
    times = worker.ask("build", calls=2, **row.request())
    row.facts |= {key: times[key] for key in ("build", "first_call")}
    if times["second_call"] > SLOWEST_CALL:
        raise FailedError(
            f"one call takes {times['second_call']:.1f} s; at most "
            f"{SLOWEST_CALL} s are measured"
        )
    most = 16 if row.contender.form == "fit" else MOST_CALLS
    row.calls = cases.inner_calls(times["second_call"], seconds, most)
    if row.calls > 1:
        # The second call may have been slow; this is nearer to the truth.
        few = min(row.calls, 4)
        taken = worker.ask("run", key=row.key, calls=few)["seconds"] / few
        row.calls = cases.inner_calls(taken, seconds, most)


def take_turns(rows, workers, count):
    """Runs each row once per round, each round from another row on."""
    for i in range(count):
        for k in range(len(rows)):
            attempt(rows[(i + k) % len(rows)], run_once, workers)


def run_once(row, workers):
    time.sleep(PAUSE)
    other = OtherWork()
    worker = workers.workers[row.contender.process]
    reply = worker.ask("run", key=row.key, calls=row.calls)
    row.rounds.append(
        {
            "seconds": reply["seconds"],
            "other_work": other.share(reply["cpu"]),
        }
    )


def is_memory_short():
    """Whether less than half of the memory of the machine is available."""
    info = pathlib.Path("/proc/meminfo")
    if not info.exists():
        return False
    sizes = dict(line.split(":") for line in info.read_text().splitlines())
    total, left = (
        int(sizes[key].split()[0]) for key in ("MemTotal", "MemAvailable")
    )
    return left < total / 2


def summary(row, column):
    """A row in a few words, for the log."""
    if row.reason is not None:
        return row.reason
    median = rounds.times(row.result())[0]
    if row.contender.form == ROOF:
        rate = rounds.roof(column.request(), median)
        return f"{rate:8.2f} images/s at most, by its products"
    return f"{1e3 * median:9.1f} ms {column.batch / median:9.2f} images/s"


def machine():
    """The machine in words, as a dict of JSON values."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    flags = found.get("flags", "").split()
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")
    variables = (
        "OMP_NUM_THREADS",
        "JAX_DISABLE_MOST_OPTIMIZATIONS",
        "XLA_FLAGS",
        "TF_XLA_FLAGS",
        "GLIBC_TUNABLES",
        "MALLOC_MMAP_THRESHOLD_",
    )
    return {
        "cpu": found.get("model name", "unknown"),
        "cores": os.cpu_count(),
        "flags": [flag for flag in wanted if flag in flags],
        "python": sys.version.split()[0],
        "environment": {
            key: os.environ[key] for key in variables if key in os.environ
        },
    }
