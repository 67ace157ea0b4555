"""`python -m benchmarks`: its results, errors, peers and numbers."""

import dataclasses
import json
import os
import sys

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.models.anatomy import weights_of
from support.helpers import ROOT
from support.helpers import randomise
from support.peers import load_into_timm

sys.path.append(str(ROOT))

from benchmarks import __main__ as command
from benchmarks import cases
from benchmarks import contenders
from benchmarks import output
from benchmarks import workers
from benchmarks.peers import inputs
from benchmarks.peers import keras_models


def test_run_writes_json_a_table_and_a_chart(tmp_path, monkeypatch):
    broken = ("files", None, ("no_such_library",))
    monkeypatch.setitem(contenders.PROCESSES, "openvino", broken)
    names = ["ours-torch.eager", "timm.eager", "openvino.ours"]
    command.main(
        [
            *("--plan", "tiny", "--rounds", "2", "--seconds", "0.001"),
            *("--device", "cpu", "--no-memory"),
            *("--contenders", *names, "--output", str(tmp_path / "a")),
        ]
    )
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert (tmp_path / "a" / "results.png").exists()
    column, *scaled = results["columns"]
    assert [c["tokens"] for c in scaled] == [4, 16]
    rows = {row["contender"]: row for row in column["rows"]}
    assert all(len(rows[name]["seconds"]) == 2 for name in names[:2])
    page = (tmp_path / "a" / "results.md").read_text()
    reason = "not measured: `no_such_library` is not installed"
    assert f"batch 3, float32 | `openvino.ours` | {reason} |" in page
    assert "| resmlp_tiny | 4 |" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "tpu9"], "`--models` must be among ['mixer_b16', "),
        (["--contenders", "tpu9"], "Received: ['tpu9']"),
        (["--rounds", "0"], "`--rounds` must be positive. Received: 0"),
        (["--output", "."], "must be the path of a new or an empty folder"),
    ],
)
def test_wrong_options(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    with pytest.raises(SystemExit):
        command.main(["--output", "new", *arguments])
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["mine"]


def test_failures_of_a_process_are_reasons(case):
    worker = workers.Worker("timm", "cpu")
    with pytest.raises(workers.FailedError, match="KeyError: 'side'"):
        worker.ask("build", "key", "eager", {"family": "mixer"})
    assert min(worker.ask("build", "key", "eager", case)) > 0
    assert worker.ask("memory") > 50e6
    worker.process.kill()
    with pytest.raises(workers.FailedError, match="ended with code -9"):
        worker.ask("memory")
    worker.close()


def test_table_has_percentiles_and_the_ratio_to_the_peer():
    seconds = [5.0, 1.0, 2.0, 8.0, 3.0, 7.0, 4.0, 9.0, 6.0, 10.0, 11.0]
    rows = [
        {"contender": "a", "peer": "b", "seconds": seconds, "memory": 2e9},
        {"contender": "b", "peer": None, "seconds": [12.0]},
    ]
    rows = [{"reason": None, **row} for row in rows]
    column = {"name": "x", "batch": 66, "rows": rows}
    rates = 66 / np.array(seconds)
    expected = [np.median(rates), *np.percentile(rates, [10, 90])]
    np.testing.assert_allclose(output.rate(column, rows[0]), expected)
    lines = output.table([column]).splitlines()[2:]
    assert lines[0] == "| x | `a` | 11 | 6.6 to 33 | 2.00 (`b`) | 2.00 |"
    np.testing.assert_allclose(output.slope((2, 4), (3, 3 * 2**1.7)), 1.7)


@pytest.mark.parametrize("name", ["mixer_b16", "mixer_s32", "resmlp_s24"])
def test_sizes_are_those_of_the_library(name):
    model = cases.MODELS[name]
    sizes = (model.tokens_mlp, model.channels_mlp, model.layer_scale)
    sizes = sizes[:2] if model.family == "mixer" else sizes[1:]
    sizes = (model.patch, model.blocks, model.hidden, *sizes)
    assert getattr(keras_mixer, model.family).VARIANTS[name] == sizes


@pytest.mark.parametrize("name", ["mixer_tiny", "resmlp_tiny"])
def test_multiply_adds_are_those_of_the_library(name):
    model = cases.MODELS[name]
    if model.family == "mixer":
        model = dataclasses.replace(model, side=24, tiled_from=12)
    made = keras_models.make(dataclasses.asdict(model))
    assert model.macs() == sum(keras_mixer.macs(made).values())


@pytest.fixture
def case(monkeypatch):
    monkeypatch.setenv("BENCHMARK_DEVICE", "cpu")
    return cases.Column(cases.MODELS["mixer_tiny"], "inference", 3).request()


def test_peers_compute_what_ours_compute(case, tmp_path):
    flax_models = pytest.importorskip("benchmarks.peers.flax_models")
    from benchmarks.peers import timm_models

    model = keras_models.make(case)
    randomise(model)
    expected = model.predict_on_batch(inputs.images(case))
    timm = load_into_timm(
        timm_models.make(case), weights_of(model), case["blocks"]
    )
    received = timm(timm_models.images_of(case)).detach().numpy()
    np.testing.assert_allclose(received, expected, atol=1e-5)
    # The weights go through the file format of the official code.
    keras_mixer.export_weights(model, tmp_path / "official.npz")
    weights = {}
    for path, array in np.load(tmp_path / "official.npz").items():
        place = weights
        *parents, last = path.split("/")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = array
    flax, _ = flax_models.make(case)
    received = flax.apply({"params": weights}, inputs.images(case))
    np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.backends
def test_forms_of_this_library_run(case):
    form = "eager" if keras.backend.backend() == "torch" else "xla"
    for each in (form, f"{form}_fused", "predict_on_batch", "train", "fit"):
        keras_models.build(each, case)(2)
