"""Training on several devices, in separate processes.

A batch of 20 images is split into 2 parts of 10 or 4 parts of 5. Each part has
other classes.
"""

import collections
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_mixer import distributing
from keras_mixer import training
from keras_mixer.training.checkpoints import Checkpoints
from support.helpers import GOLDEN
from support.helpers import ROOT
from support.helpers import matches
from support.helpers import python

SCRIPT = ROOT / "tests" / "distributing" / "distributed.py"
# Seconds for a process to end, long enough for a busy machine. A test starts
# several processes, so it has three times as long.
TIMEOUT = 600
pytestmark = pytest.mark.timeout(3 * TIMEOUT)
# Compile fast: the speed of the compiled code does not matter here.
FAST_COMPILER = (
    "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
)
# By default XLA ends a process when one of its virtual devices is 40 seconds
# late. On a busy machine with two cores, four devices can be that late.
PATIENT_DEVICES = (
    f"--xla_cpu_collective_call_terminate_timeout_seconds={TIMEOUT} "
    f"--xla_cpu_collective_call_warn_stuck_timeout_seconds={TIMEOUT}"
)


def start(*command, output, backend="jax", **env):
    """Starts a Python process whose output is written to a file."""
    with open(output, "w") as file:
        return subprocess.Popen(
            [sys.executable, "-u", *map(str, command)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "KERAS_BACKEND": backend, **env},
            cwd=ROOT,
        )


def train(folder, *runs, **env):
    """Trains several runs; returns `{run: [losses, weights.., replicas]}`."""
    output = folder / "output.txt"
    process = start(SCRIPT, folder / "runs.npz", *runs, output=output, **env)
    assert process.wait(TIMEOUT) == 0, output.read_text()
    results = collections.defaultdict(list)
    with np.load(folder / "runs.npz") as arrays:
        for name in sorted(arrays):
            results[name.rpartition("/")[0]].append(arrays[name])
    return results


def assert_same_training(results, run, one_device, replicas):
    *expected, one = results[one_device]
    *received, count = results[run]
    assert (one, count) == (1, replicas)
    assert len(received[0]) == 20
    assert expected[0][-1] < 0.99 * expected[0][0]  # the loss decreases
    for array, array_expected in zip(received, expected, strict=True):
        np.testing.assert_allclose(
            array, array_expected, rtol=0, atol=1e-5, err_msg=run
        )


def test_mirrored_equals_one_device_and_xla_compiles_each_replica(tmp_path):
    dump = tmp_path / "dump"
    results = train(
        tmp_path,
        *("none:mixer:no", "mirrored:mixer:no", "mirrored:mixer:xla"),
        *("none:resmlp:no", "mirrored:resmlp:no", "mirrored:resmlp:xla"),
        backend="tensorflow",
        TF_XLA_FLAGS="--tf_xla_cpu_global_jit",
        XLA_FLAGS=f"--xla_dump_to={dump} {FAST_COMPILER}",
    )
    for family in ("mixer", "resmlp"):
        for xla in ("no", "xla"):
            run = f"mirrored:{family}:{xla}"
            assert_same_training(results, run, f"none:{family}:no", 2)

    # All matrix products of a replica are in one cluster: 5 of Mixer or 4 of
    # ResMLP, and two more for the gradients of each. Their inputs are half of a
    # batch.
    products = collections.Counter()
    for path in dump.glob("*cluster_*.before_optimizations.txt"):
        cluster = path.read_text()
        count = cluster.count(" dot(")
        if count:
            products[count] += 1
            assert re.search(r" = f64\[10,7\]\S* dot\(", cluster)
    assert products == {15: 2, 12: 2}


def test_data_and_model_parallel_equal_one_device(tmp_path):
    results = train(
        tmp_path,
        *("none:mixer:xla", "data:mixer:xla", "model:mixer:xla"),
        *("none:resmlp:xla", "data:resmlp:xla", "model:resmlp:xla"),
        *("data:mixer:no", "model:mixer:no", "data:mixer:xla:5"),
        backend="jax",
        JAX_NUM_CPU_DEVICES="4",
        JAX_ENABLE_X64="1",
        XLA_FLAGS=PATIENT_DEVICES,
    )
    for run in ("mixer:xla", "mixer:no", "resmlp:xla"):
        one = f"none:{run.partition(':')[0]}:xla"
        assert_same_training(results, f"data:{run}", one, 4)
        assert_same_training(results, f"model:{run}", one, 2)
    # Five batches of 4 per update: 1 image on each device.
    assert_same_training(results, "data:mixer:xla:5", "none:mixer:xla", 4)


def cut_weights(variant):
    mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"], ["a", "b"])
    layout = distributing.model_layout(mesh)
    paths = json.loads((GOLDEN / "weights.json").read_text())[variant]
    return {
        path: layout[path].axes
        for path in paths
        if "block_0" in path and layout[path] is not None
    }


def test_model_layout_splits_the_mlps():
    channels = {
        "block_0/channel_mixing/dense_0/kernel": (None, "model"),
        "block_0/channel_mixing/dense_0/bias": ("model",),
        "block_0/channel_mixing/dense_1/kernel": ("model", None),
    }
    tokens = {
        path.replace("channel", "token"): axes
        for path, axes in channels.items()
    }
    assert cut_weights("mixer_s32") == {**tokens, **channels}
    assert cut_weights("resmlp_s12") == channels


EPOCHS = 8


def training_of(photos, run):
    """Returns the command line of a training with momentum and shuffling."""
    options = {
        "data": photos,
        "output": run,
        "recipe": "finetune.cifar",
        "image-size": 8,
        "batch-size": 30,
        "epochs": EPOCHS,
    }
    listed = [text for key in options for text in (f"--{key}", options[key])]
    return ("-m", "keras_mixer", "train", *listed, "--no-flip")


class Processes:
    """Two JAX processes that train together in one folder."""

    def __init__(self, photos, run, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.run = run
        self.outputs = [folder / f"output{i}.txt" for i in range(2)]
        self.processes = [
            start(
                *training_of(photos, run),
                output=output,
                KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
                KERAS_DISTRIBUTION_NUM_PROCESSES="2",
                KERAS_DISTRIBUTION_PROCESS_ID=str(i),
            )
            for i, output in enumerate(self.outputs)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.wait()

    def wait_for(self, epochs):
        """Waits for epochs in the log. Fails if a process ended."""
        end = time.monotonic() + TIMEOUT
        while len(training.read_log(self.run)) < epochs:
            ended = any(
                process.poll() is not None for process in self.processes
            )
            if ended or time.monotonic() > end:
                pytest.fail("".join(o.read_text() for o in self.outputs))
            time.sleep(0.01)

    def kill(self, index):
        """Kills a process. Returns the output of the other, ended in 60 s."""
        self.processes[index].send_signal(signal.SIGKILL)
        assert self.processes[1 - index].wait(60) != 0
        return self.outputs[1 - index].read_text()


def test_two_processes_equal_one_and_stop_when_one_is_killed(photos, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    output = tmp_path / "output.txt"
    one = start(
        *training_of(photos, alone), output=output, JAX_NUM_CPU_DEVICES="1"
    )
    assert one.wait(TIMEOUT) == 0, output.read_text()

    with Processes(photos, together, tmp_path) as processes:
        processes.wait_for(epochs=1)
        said = processes.kill(1)
    assert "one of the 2 has ended" in said
    with Processes(photos, together, tmp_path) as processes:
        processes.wait_for(epochs=len(training.read_log(together)) + 1)
        said = processes.kill(0)
    # JAX may end a process immediately if process 0 died.
    assert re.search("one of the 2 has ended|another task died", said)
    assert len(training.read_log(together)) < EPOCHS
    with Processes(photos, together, tmp_path) as processes:
        for process, path in zip(
            processes.processes, processes.outputs, strict=True
        ):
            assert process.wait(TIMEOUT) == 0, path.read_text()
    log, expected = map(training.read_log, (together, alone))
    assert len(log) == EPOCHS
    # `val_*` is not compared: two processes leave out the last images.
    for key in ("loss", "accuracy"):
        np.testing.assert_allclose(
            [row[key] for row in log],
            [row[key] for row in expected],
            rtol=0,
            atol=1e-5,
        )
    state, expected = map(last_state, (together, alone))
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(
            state[name], array, rtol=0, atol=1e-5, err_msg=name
        )


def last_state(run):
    """Returns weights, momenta and the step of the last checkpoint."""
    epoch, path = Checkpoints(run / "checkpoints").last()
    assert epoch == EPOCHS
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays if name != "checksum"}


def test_command_line_trains_on_two_replicas(photos, tmp_path):
    """In half precision with XLA. A batch size of 31 raises an error."""
    run = tmp_path / "run"
    code = f"""
import sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
import distributed
from keras_mixer import cli
distributed.cut_cpu()
command = {[str(text) for text in training_of(photos, run)[2:]]!r}
command += ["--distribute", "mirrored", "--precision", "mixed_float16"]
command += ["--jit-compile"]
try:
    cli.main([*command, "--batch-size", "31"])
except SystemExit as error:
    print(error)
cli.main(command)
"""
    output = tmp_path / "output.txt"
    process = start(
        *("-c", code),
        output=output,
        backend="tensorflow",
        TF_XLA_FLAGS="--tf_xla_cpu_global_jit",
        XLA_FLAGS=FAST_COMPILER,
    )
    assert process.wait(TIMEOUT) == 0, output.read_text()
    assert "`batch_size` must be a multiple of 2" in output.read_text()
    log = training.read_log(run)
    assert len(log) == EPOCHS
    assert log[-1]["loss"] < log[0]["loss"]
    record = training.read_run(run)
    assert record["settings"]["batch_size"] == 30
    assert record["finished"]["accuracy"] > 0.5


def test_training_step_of_b16_lowers_for_tpus_and_gpus():
    code = """
import jax
import keras
import numpy as np
import keras_mixer
from keras_mixer.recipes import RECIPES, compile_options

model = keras_mixer.MixerB16(weights=None, classifier_activation=None)
options = compile_options(RECIPES["big_vision.imagenet"], steps=100_000)
model.compile(**options, jit_compile=True)
batch = np.zeros((8, 224, 224, 3), "float32"), np.zeros((8, 1000), "float32")
model._symbolic_build(data_batch=batch)
state = (
    model.trainable_variables,
    model.non_trainable_variables,
    model.optimizer.variables,
    model.metrics_variables,
)
abstract = jax.tree.map(
    lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), (state, batch)
)
exported = jax.export.export(
    jax.jit(model.train_step), platforms=("tpu", "cuda")
)(*abstract)
text = exported.mlir_module()
products, convolutions = "stablehlo.dot_general", "stablehlo.convolution"
print(*exported.platforms, text.count(products), text.count(convolutions))
"""
    # For each platform: 12 blocks with four products, and the head, each with
    # two gradients; and the stem with the gradient of its kernel.
    *platforms, products, convolutions = python(code, backend="jax").split()
    assert platforms == ["tpu", "cuda"]
    assert (int(products), int(convolutions)) == (2 * 3 * 49, 2 * 2)


def test_batch_size_must_be_a_multiple_of_the_replicas():
    four = distributing.Devices("data", replicas=4, processes=2, process=1)
    assert four.local_batch_size(20) == 10
    message = (
        "`batch_size` must be a multiple of 4, since each of 4 replicas takes "
        "an equal part of a batch. Use 16. Received: batch_size=18"
    )
    with pytest.raises(ValueError, match=matches(message)):
        four.local_batch_size(18)
    with pytest.raises(ValueError, match="Use 4"):
        four.local_batch_size(3)
    with pytest.raises(TypeError, match="`batch_size` must be a positive int"):
        four.local_batch_size(20.0)


WRONG = {
    "tensorflow": ("data", "model"),
    "jax": ("mirrored", "tpu"),
    "torch": ("data", "model", "mirrored", "tpu"),
}


@pytest.mark.backends
def test_unsupported_kinds_of_a_backend_raise_errors():
    backend = keras.backend.backend()
    for kind in WRONG[backend]:
        needed = "tensorflow" if kind in ("mirrored", "tpu") else "jax"
        message = f"`kind='{kind}'` needs KERAS_BACKEND={needed}. With the back"
        with (
            pytest.raises(ValueError, match=matches(message)),
            distributing.devices(kind),
        ):
            pass
    if backend != "jax":
        with pytest.raises(ValueError, match="train together with KERAS_BACK"):
            distributing.join("127.0.0.1:1", 2, 0)


def test_unknown_kinds_raise_errors():
    with (
        pytest.raises(ValueError, match="`kind` must be one of 'auto', 'none"),
        distributing.devices("horovod"),
    ):
        pass


def test_accumulation_is_refused_where_keras_fails():
    sgd = keras.optimizers.SGD(gradient_accumulation_steps=5)
    devices = distributing.Devices("mirrored", replicas=2)
    with pytest.raises(ValueError, match="5 batches for one update with kind="):
        devices.compile_options(optimizer=sgd)


@pytest.mark.backends
def test_one_device_does_not_change_keras():
    with distributing.devices("none", jit_compile=False) as devices:
        assert devices == distributing.Devices("none", jit_compile=False)
    assert devices.compile_options(loss="mse") == {
        "loss": "mse",
        "jit_compile": False,
    }


@pytest.mark.backends
def test_xla_on_cpus_without_its_flag_raises_an_error(monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("MirroredStrategy exists only on TensorFlow")
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_clustering_debug")
    with (
        pytest.raises(ValueError, match="--tf_xla_cpu_global_jit in the env"),
        distributing.devices("mirrored", jit_compile=True),
    ):
        pass


@pytest.mark.backends
def test_model_devices_must_divide_the_number_of_devices():
    if keras.backend.backend() != "jax":
        pytest.skip("models are split over devices only on JAX")
    with (
        pytest.raises(ValueError, match="Received: model_devices=3"),
        distributing.devices("model", model_devices=3),
    ):
        pass
