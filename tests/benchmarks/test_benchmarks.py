"""`python -m benchmarks`: its results, its errors, and interruptions."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import keras_mixer
from support.helpers import ROOT

sys.path.append(str(ROOT))

from benchmarks import __main__ as command
from benchmarks import cases
from benchmarks import contenders
from benchmarks import markdown
from benchmarks import processes
from benchmarks import rounds
from benchmarks import scaling
from benchmarks import scaling_output
from benchmarks import writing

TINY = ("--models", "mixer_tiny", "--modes", "forward", "--batch", "3")
SHORT = ("--rounds", "2", "--seconds", "0.001")


def run(module, *arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        cwd=ROOT,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of a run in which two contenders fail."""
    home = tmp_path_factory.mktemp("benchmark")
    broken = home / "modules"
    broken.mkdir()
    (broken / "flax.py").write_text("raise ImportError('broken here')")
    paths = [str(broken), os.environ.get("PYTHONPATH", "")]
    names = ("ours-torch.eager", "ours-torch.gemm", "ours-jax.xla", "flax")
    names += ("timm.inference_mode", "ours-torch.predict")
    result = run(
        "benchmarks",
        *TINY,
        *SHORT,
        *("--device", "cpu", "--memory", "all"),
        *("--contenders", *names),
        *("--output", home / "results"),
        PYTHONPATH=os.pathsep.join(filter(None, paths)),
    )
    assert result.returncode == 0, result.stderr
    return home / "results"


def test_run_writes_json_markdown_and_a_picture(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["results.json", "results.md", "results.png"]
    assert sorted(os.listdir(folder.parent)) == ["modules", "results"]
    (column,) = json.loads((folder / "results.json").read_text())["columns"]
    assert column["batch"] == 3
    rows = {row["contender"]: row for row in column["rows"]}
    # The option names one mode.
    assert "ours-torch.predict" not in rows
    for name in ("ours-torch.eager", "ours-jax.xla", "timm.inference_mode"):
        row = rows[name]
        assert len(row["rounds"]) == 2
        assert min(each["seconds"] for each in row["rounds"]) > 0
        assert row["memory"] > 50e6
        assert row["fresh_import"] > 0
        assert row["fresh_build"] > 0
        assert row["fresh_first_call"] > 0


def test_a_contender_that_fails_is_named_with_the_reason(folder):
    page = (folder / "results.md").read_text()
    assert "| `flax.jit` | ImportError: broken here | all |" in page
    assert "| `flax.jit` | not measured: ImportError: broken here |" in page
    assert re.search(r"\| `timm.inference_mode` \| \*\*[\d.e+]+\*\* \|", page)
    assert re.search(r"\| `ours-jax.xla` \| [\d.e+]+ \([\d.]+\) \|", page)


def test_missing_library_and_wrong_device_are_reasons():
    with pytest.raises(processes.FailedError, match="does not run on the dev"):
        processes.check_runnable("onnxruntime", "gpu")
    missing = processes.PROCESSES["timm"]
    processes.PROCESSES["timm"] = contenders.Process("x", None, ("no_such",))
    try:
        with pytest.raises(
            processes.FailedError, match="`no_such` is not installed"
        ):
            processes.check_runnable("timm", "cpu")
    finally:
        processes.PROCESSES["timm"] = missing


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("--models", "mixer_b16"),
        ("--contenders", "ours-jax.xla"),
        ("--backends", "tensorflow"),
        ("--modes", "predict"),
        ("--dtypes", "mixed_bfloat16"),
        ("--device", "gpu"),
    ],
)
def test_unknown_names_list_the_known_ones(option, known, tmp_path, capsys):
    with pytest.raises(SystemExit) as ending:
        command.main([option, "tpu9", "--output", str(tmp_path / "a")])
    assert ending.value.code == 2
    message = capsys.readouterr().err
    assert f"'{known}'" in message
    assert "Received: ['tpu9']" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0", "--output", "new"], "`--rounds` must be positive"),
        (["--short"], "`--output` is required"),
        (["--output", "."], "must be the path of a new or an empty folder"),
        (["--join", "x", "--output", "new"], "takes folders with results"),
    ],
)
def test_wrong_options(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["mine"]


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_nothing(kind, tmp_path):
    # A process started from a background shell ignores SIGINT.
    start = (
        "import runpy, signal; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('benchmarks', run_name='__main__')"
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", start, *TINY, "--rounds", "9999"),
            *("--contenders", "timm.inference_mode", "--seconds", "0.01"),
            *("--output", tmp_path / "results"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert "mixer_tiny" in process.stderr.readline()
    assert "built" in process.stderr.readline()
    process.send_signal(kind)
    try:
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert os.listdir(tmp_path) == []


def test_a_failure_while_writing_leaves_nothing(tmp_path):
    def draw(results, path):
        path.write_text("half")
        raise OSError("disk is full")

    with pytest.raises(OSError, match="disk is full"):
        writing.write(tmp_path / "a" / "b", {"x": 1}, "page", draw)
    assert os.listdir(tmp_path / "a") == []


def test_parts_are_joined(folder, tmp_path):
    other = json.loads((folder / "results.json").read_text())
    other["columns"][0] |= {"name": "another column", "model": "mixer_b16"}
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "results.json").write_text(json.dumps(other))
    output = tmp_path / "joined"
    parts = [str(folder), str(tmp_path / "part")]
    command.main(["--join", *parts, "--output", str(output)])
    joined = json.loads((output / "results.json").read_text())
    names = [column["name"] for column in joined["columns"]]
    assert names == [
        "mixer_tiny, inference, batch 3, float32",
        "another column",
    ]
    (column,) = command.joined(parts, ["mixer_b16"])["columns"]
    assert column["name"] == "another column"
    other["machine"]["cores"] = 99
    (tmp_path / "part" / "results.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="results of one machine"):
        command.joined(parts)


def made_row(name, seconds, framework="torch", is_ours=False, calls=2):
    return {
        "contender": name,
        "is_ours": is_ours,
        "is_roof": False,
        "framework": framework,
        "reason": None,
        "calls": calls,
        "rounds": [{"seconds": s, "other_work": 0.0} for s in seconds],
    }


def test_percentiles_and_ratios():
    seconds = [5.0, 1.0, 2.0, 8.0, 3.0, 7.0, 4.0]
    column = {
        "batch": 6,
        "rows": [
            made_row("slow", [10.0, 20.0, 30.0]),
            made_row("fast", seconds, "jax"),
            made_row("ours", [4.0], is_ours=True),
        ],
    }
    per_call = np.array(seconds) / 2
    expected = [np.median(per_call), *np.percentile(per_call, [10, 90])]
    np.testing.assert_allclose(rounds.times(column["rows"][1]), expected)
    np.testing.assert_allclose(
        rounds.rates(column)["fast"],
        [6 / expected[0], 6 / expected[2], 6 / expected[1]],
    )
    assert rounds.best_peer(column) == "fast"
    assert rounds.best_peer(column, "torch") == "slow"
    assert rounds.ratio(column, "ours", "slow") == 5.0
    assert markdown.cell(column, "ours", "fast") == "3 (1.00)"


def test_pairs_have_the_peer_of_the_same_form():
    column = {
        "name": "a",
        "batch": 6,
        "rows": [
            made_row("ours-torch.eager", [4.0], is_ours=True),
            made_row("ours-torch.compiled", [3.0], is_ours=True),
            made_row("timm.inference_mode", [6.0]),
            made_row("ours-jax.xla", [2.0], "jax", is_ours=True),
        ],
    }
    assert markdown.pairs([column]).splitlines()[4:] == [
        "| a | PyTorch, eager | 3 | `timm.inference_mode` | 2 | 1.50 |  |"
    ]
    column["rows"][0]["memory"] = 1.25e9
    column["rows"][2]["memory"] = 2e9
    (line,) = markdown.pairs([column]).splitlines()[4:]
    assert line.endswith("| 1.25 / 2.00 |")
    assert not markdown.pairs([{**column, "rows": []}])


def test_pairs_name_contenders():
    names = {each.name for each in contenders.CONTENDERS}
    for _, ours, peer in contenders.PAIRS:
        assert {ours, peer} <= names


def test_columns_that_become_equal_are_measured_once():
    chosen = cases.choose(
        cases.STANDARD, ["mixer_b16"], ["forward"], 8, ["float32"]
    )
    (column,) = chosen
    assert column.memory
    assert column.name == "mixer_b16, inference, batch 8, float32"


def test_roof_is_that_of_the_multiply_adds():
    case = cases.Column("mixer_nano", "training", 5).request()
    # 5 images of 64 tokens, 128 x 256: 10,485,760 multiply-adds.
    rate = rounds.roof(case, 0.5)
    images = 10_485_760 / 0.5 / (3 * cases.MODELS["mixer_nano"].macs())
    np.testing.assert_allclose(rate, images)


@pytest.mark.parametrize("name", cases.MODELS)
def test_sizes_are_those_of_the_library(name):
    model = cases.MODELS[name]
    module = {"mixer": keras_mixer.mixer, "resmlp": keras_mixer.resmlp}
    if "tiny" not in name:
        sizes = (model.patch, model.blocks, model.hidden)
        if model.family == "mixer":
            sizes += (model.tokens_mlp, model.channels_mlp)
        else:
            sizes += (model.channels_mlp, model.layer_scale)
        assert module[model.family].VARIANTS[name] == sizes


@pytest.mark.parametrize("tiled_from", [0, 12])
@pytest.mark.parametrize("name", ["mixer_tiny", "resmlp_tiny"])
def test_multiply_adds_are_those_of_the_library(name, tiled_from):
    import dataclasses

    from benchmarks.peers import keras_models

    side = 24 if name.startswith("mixer") else 12
    model = dataclasses.replace(
        cases.MODELS[name], side=side, tiled_from=tiled_from
    )
    made = keras_models.make(dataclasses.asdict(model))
    assert model.macs() == sum(keras_mixer.macs(made).values())


def test_exponents_are_those_of_power_laws():
    points = [
        {
            "axis": "resolution",
            "subject": "a",
            "tokens": tokens,
            "value": 0,
            # Linear from 196 tokens on.
            "seconds": 1.0 if tokens < 196 else 0.3 * tokens,
            "gmacs": 5.0 * tokens**1.7,
        }
        for tokens in (49, 196, 441, 784)
    ]
    every, dominated = scaling.exponents(points)
    assert (every["from"], dominated["from"]) == (49, 196)
    np.testing.assert_allclose(dominated["seconds"], 1.0)
    np.testing.assert_allclose(dominated["gmacs"], 1.7)
    assert every["seconds"] > 1.2
    # A curve that begins there has one exponent.
    (only,) = scaling.exponents(points[1:])
    assert only == dominated


def test_scaling_writes_json_markdown_and_a_picture(tmp_path):
    result = run(
        "benchmarks.scaling",
        *("--tiny", "--no-memory", "--axes", "depth", "--rounds", "1"),
        *("--subjects", "ResMLP-S24", "ResNet50 (Keras)"),
        *("--seconds", "0.001", "--output", tmp_path / "a"),
    )
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["scaling.json", "scaling.md", "scaling.png"]
    results = json.loads((tmp_path / "a" / "scaling.json").read_text())
    # ResNet50 has no point on the axis of depth.
    found = [(p["subject"], p["value"]) for p in results["points"]]
    assert found == [("ResMLP-S24", 1), ("ResMLP-S24", 2)]
    assert [e["subject"] for e in results["exponents"]] == ["ResMLP-S24"]
    page = (tmp_path / "a" / "scaling.md").read_text()
    assert "### Seconds of a forward pass" in page
    assert "### Peak memory" not in page


def test_a_panel_without_values_stays_empty(tmp_path):
    def point(axis, value, memory):
        return {
            "axis": axis,
            "subject": "a",
            "value": value,
            "tokens": 49,
            "seconds": 0.1 * value,
            "memory": memory,
        }

    points = [
        *(point("batch", value, 1e9 * value) for value in (1, 2, 4)),
        *(point("depth", value, None) for value in (4, 8)),
    ]
    figure = scaling_output.make_figure(points, scaling_output.LINES)
    drawn = [panel.axison for panel in figure.axes]
    assert drawn == [True, True, True, False]
    scaling_output.draw({"points": points}, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_unknown_axis_lists_the_known_ones(tmp_path, capsys):
    with pytest.raises(SystemExit):
        scaling.main(["--axes", "width", "--output", str(tmp_path / "a")])
    assert "'resolution'" in capsys.readouterr().err


@pytest.mark.nightly
def test_the_short_form_runs(tmp_path):
    result = run("benchmarks", "--short", "--output", tmp_path / "a")
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert len(results["columns"]) == len(cases.SHORT)
    for column in results["columns"]:
        measured = [r for r in column["rows"] if r["reason"] is None]
        assert len(measured) > 10
