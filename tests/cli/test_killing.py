"""Trainings that are killed or stopped in processes of their own."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from keras_mixer import cli
from keras_mixer import training
from support.helpers import ROOT
from support.helpers import assert_equal
from support.training import RECIPE
from support.training import options
from support.training import weights_of_run

# Processes that a shell has started in the background ignore Ctrl-C.
CODE = """
import signal, sys
from keras_mixer import cli
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.main(sys.argv[1:])
"""


def started(command, backend="torch"):
    tests = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *command],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": tests},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for(condition, process):
    end = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < end
        time.sleep(0.0005)


def epochs_done(run):
    return len(training.read_log(run))


# What the folder of a training looks like when it is killed.
MOMENTS = {
    "before the first step": lambda run: (run / "run.json").exists(),
    "in a checkpoint": lambda run: any((run / "checkpoints").glob(".*")),
    "between epochs": lambda run: epochs_done(run) >= 1,
    "in a later checkpoint": lambda run: (
        epochs_done(run) >= 1 and any((run / "checkpoints").glob(".*"))
    ),
    "in a later epoch": lambda run: epochs_done(run) >= 2,
}


@pytest.mark.parametrize(
    "names",
    [
        ["in a checkpoint", "between epochs"],
        pytest.param(list(MOMENTS), marks=pytest.mark.nightly),
    ],
    ids=["two moments", "five moments"],
)
def test_killed_training_resumes_to_the_same_result(names, photos, tmp_path):
    """On a busy machine, a training continues for a while before it is killed.

    So there are more epochs than the test waits for.
    """
    recipe = tmp_path / "mine.json"
    recipe.write_text(json.dumps(RECIPE))

    def command(run):
        changed = {"recipe": recipe, "epochs": 8, "batch_size": None}
        return options(photos, run, "--keep-best", **changed)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    cli.main(command(whole))
    rng = random.Random(0)
    for name in names:
        process = started(command(killed))
        wait_for(lambda name=name: MOMENTS[name](killed), process)
        if name in ("between epochs", "in a later epoch"):
            time.sleep(rng.random() / 10)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert epochs_done(killed) < 8
    cli.main(command(killed))
    assert_equal(weights_of_run(killed), weights_of_run(whole))
    assert training.read_log(killed) == training.read_log(whole)
    results = [training.read_run(run)["finished"] for run in (killed, whole)]
    assert results[0] == {**results[1], "seconds": results[0]["seconds"]}


@pytest.mark.parametrize(
    "backend", ["jax", pytest.param("torch", marks=pytest.mark.nightly)]
)
def test_stopped_training_prints_how_to_resume(backend, photos, tmp_path):
    run = tmp_path / "run"
    with started(options(photos, run, epochs=1000), backend) as process:
        try:
            wait_for(lambda: epochs_done(run) >= 1, process)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=120)[0].decode()
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "epochs. Repeat this command to resume it." in said
    assert "Traceback" not in said
