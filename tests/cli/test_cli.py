"""`python -m keras_mixer`: commands, their output and their errors."""

import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.numpy import save
from safetensors.numpy import save_file

import keras_mixer
from keras_mixer import cli
from keras_mixer.models.anatomy import weights_of
from keras_mixer.weights import reading
from support.helpers import assert_equal
from support.helpers import randomise
from support.published import official


def refused(capsys, *arguments):
    """Returns the error message of a command."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    assert capsys.readouterr().out == ""
    assert caught.value.code.startswith("keras_mixer: ")
    return caught.value.code


def printed(capsys, *arguments):
    cli.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


@pytest.fixture
def official_file(tmp_path):
    np.savez(tmp_path / "Mixer.npz", **official(tokens=4))
    return tmp_path / "Mixer.npz"


def test_weights_are_listed(capsys):
    lines = printed(capsys, "weights").splitlines()
    assert len(lines) == 2 + len(keras_mixer.list_weights())
    assert lines[2] == (
        "| `mixer_b16.imagenet` | 76.44 | 1000 | 240 | ImageNet-1k only |"
    )
    assert len(printed(capsys, "weights", "resmlp_s12.*").splitlines()) == 5
    message = refused(capsys, "weights", "mixer_b17*")
    assert "no published weights 'mixer_b17*'. Use one of: mixer_b16" in message


def test_prefetch_keeps_only_weights_and_prints_their_path(
    capsys, tmp_path, monkeypatch
):
    """A network that one must sign in to answers with a page."""
    (record,) = keras_mixer.list_weights("resmlp_s12.imagenet")
    mirror = tmp_path / "mirror"
    published = mirror / record.file
    published.parent.mkdir(parents=True)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_MIXER_WEIGHTS_URL", mirror.as_uri())
    file = tmp_path / "models" / "keras_mixer" / record.file
    for body in (b"four", b"<html>Sign in</html>"):
        published.write_bytes(body)
        with pytest.raises(SystemExit, match=f"{record.file} is not the file"):
            cli.main(["prefetch", record.name])
        assert not file.exists()
    published.write_bytes(save({"a": np.ones(3, "float32")}))
    out = printed(capsys, "prefetch", record.name)
    assert out.splitlines()[-1] == f"{record.name}: {file}"
    assert file.read_bytes() == published.read_bytes()
    # The size of this file is known, and it is another one.
    google = mirror / "imagenet1k" / "Mixer-B_16.npz"
    google.parent.mkdir()
    google.write_bytes(bytes(7000))
    with pytest.raises(SystemExit, match="has 7000 bytes, not 239564448"):
        cli.main(["prefetch", "mixer_b16.imagenet"])
    capsys.readouterr()
    monkeypatch.setenv("KERAS_MIXER_OFFLINE", "1")
    message = refused(capsys, "prefetch", "mixer_l16.*")
    assert "KERAS_MIXER_OFFLINE is set" in message


def test_file_is_converted_through_all_formats(capsys, official_file, tmp_path):
    file = official_file
    for name in ("a.safetensors", "b.weights.h5", "c.keras", "d.npz"):
        out = printed(capsys, "convert", file, tmp_path / name)
        assert out == f"{tmp_path / name}: for 2 x 2 tokens\n"
        file = tmp_path / name
    first, last = reading.read(official_file), reading.read(file)
    assert_equal(last.arrays, first.arrays)
    (tmp_path / "c.keras").write_text("precious")
    arguments = "convert", official_file, tmp_path / "c.keras"
    assert "c.keras' exists. Use another path" in refused(capsys, *arguments)
    assert (tmp_path / "c.keras").read_text() == "precious"
    printed(capsys, *arguments, "--overwrite")


def test_resmlp_is_converted(capsys, tmp_path):
    model = keras_mixer.ResMLP(4, 2, 10, 11, 0.1, input_shape=(8, 8, 3))
    arrays = randomise(model)
    model.save_weights(tmp_path / "a.weights.h5")
    printed(
        capsys,
        "convert",
        tmp_path / "a.weights.h5",
        tmp_path / "b.safetensors",
    )
    printed(capsys, "convert", tmp_path / "b.safetensors", tmp_path / "c.keras")
    loaded = keras_mixer.ResMLP(
        4, 2, 10, 11, 0.1, input_shape=(8, 8, 3), weights=tmp_path / "c.keras"
    )
    assert_equal(weights_of(loaded), arrays)


def test_verify_describes_a_file(capsys, official_file):
    out = printed(capsys, "verify", official_file)
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert lines["layout"] == "flax"
    assert lines["family"] == "mixer"
    assert lines["tokens"] == "4 (2 x 2)"
    assert lines["classes"] == "5"
    assert lines["tensors"] == "30, none missing, none unknown"
    assert lines["dtype"] == "float32"
    assert len(lines["SHA-256"]) == 64
    assert lines["published as"] == "unknown"


def test_verify_reports_the_checksum_of_a_file(capsys, official_file, tmp_path):
    checksums = {
        ".npz": "CRC-32 of each array",
        ".safetensors": "SHA-256 of the tensors",
        ".keras": "CRC-32 of each array",
        ".weights.h5": "none",
    }
    for suffix, expected in checksums.items():
        file = tmp_path / f"converted{suffix}"
        printed(capsys, "convert", official_file, file)
        lines = printed(capsys, "verify", file).splitlines()
        assert f"checksum in the file: {expected}" in lines
    arrays = load_file(tmp_path / "converted.safetensors")
    save_file(arrays, tmp_path / "other.safetensors")
    out = printed(capsys, "verify", tmp_path / "other.safetensors")
    assert "checksum in the file: none" in out.splitlines()


def test_wrong_arguments_are_reported(capsys, official_file, tmp_path, tiny):
    target = tmp_path / "out.npz"
    message = refused(capsys, "convert", official_file, tmp_path / "out.pth")
    assert "must end in .npz" in message
    message = refused(capsys, "convert", tmp_path / "none.npz", target)
    assert "which is not a file" in message
    tiny().save_weights(tmp_path / "tiny.weights.h5")
    message = refused(capsys, "convert", tmp_path / "tiny.weights.h5", target)
    assert "6 tokens, which is not a square number" in message
    official_file.write_bytes(official_file.read_bytes()[:-500])
    for command in (("verify",), ("convert",)):
        arguments = [*command, official_file]
        if command == ("convert",):
            arguments.append(target)
        assert "the file is damaged" in refused(capsys, *arguments)
    missing = tmp_path / "missing" / "out.npz"
    np.savez(official_file, **official(tokens=4))
    assert "missing" in refused(capsys, "convert", official_file, missing)
    assert not target.exists()
    assert not missing.parent.exists()


def test_module_runs_as_a_program(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "keras_mixer", "verify", tmp_path / "none.npz"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "which is not a file" in result.stderr
    assert "Traceback" not in result.stderr
