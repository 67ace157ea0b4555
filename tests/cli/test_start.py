"""How the command line starts: its help, its imports and its output."""

import inspect
import logging
import os
import re
import subprocess
import sys

import pytest
from PIL import Image

import keras_mixer
from keras_mixer import cli
from keras_mixer import distributing
from keras_mixer.cli import names
from keras_mixer.cli import program
from keras_mixer.exporting import formats
from keras_mixer.models.constructors import MODELS
from keras_mixer.variants import CONSTRUCTORS
from keras_mixer.variants import MIXER
from keras_mixer.variants import RESMLP
from keras_mixer.weights import resizing
from support.helpers import ROOT
from support.helpers import python

COMMANDS = [command.name for command in cli.COMMANDS]


def run(*arguments, options=(), env=None):
    """Runs `python -m keras_mixer` in a process of its own."""
    return subprocess.run(
        [sys.executable, *options, "-m", "keras_mixer", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env,
        check=False,
    )


def environment(backend):
    """The environment of a user who has set nothing about messages."""
    env = {**os.environ, "KERAS_BACKEND": backend}
    env.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return env


def imported(importtime):
    """The modules that `python -X importtime` lists."""
    return set(re.findall(r"\| +([\w.]+)$", importtime, re.M))


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([command, "--help"] for command in COMMANDS)],
    ids=["all", *COMMANDS],
)
def test_help_imports_neither_keras_nor_numpy(arguments):
    result = run(*arguments, options=["-X", "importtime"])
    assert result.returncode == 0
    assert "keras_mixer.cli" in imported(result.stderr)
    assert not {"keras", "numpy"} & imported(result.stderr)
    assert result.stdout.startswith("usage: python -m keras_mixer")
    if arguments != ["--help"]:
        example = f"\nexample:\n  python -m keras_mixer {arguments[0]} "
        assert example in result.stdout


def test_console_command_has_its_own_name_in_the_help(tmp_path):
    """The script is what pip writes for the entry point in setup.cfg."""
    script = tmp_path / "keras_mixer"
    script.write_text(
        "import sys\nfrom keras_mixer.cli import main\nsys.exit(main())"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments in (["--help"], ["train", "--help"]):
        result = subprocess.run(
            [sys.executable, "-X", "importtime", script, *arguments],
            capture_output=True,
            text=True,
            env=env,
            check=True,
        )
        assert result.stdout.startswith("usage: keras_mixer ")
        assert "python -m" not in result.stdout
        assert "keras" not in imported(result.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["wrong"],
        ["train", "--output", "run", "--model", "MixerB17"],
        ["finetune", "--output", "run", "--model", "MixerS32"],
        ["weights", "mixer_b17*"],
    ],
)
def test_wrong_arguments_are_reported_without_importing_keras(arguments):
    result = run(*arguments, options=["-X", "importtime"])
    assert result.returncode != 0
    assert "keras_mixer" in result.stderr.splitlines()[-1]
    assert not {"keras", "numpy"} & imported(result.stderr)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (["-m", "keras_mixer"], True),
        (["-mkeras_mixer"], True),
        (["-Bm", "keras_mixer.__main__"], True),
        (["-m", "mine"], False),
        (["-m", "keras_mixer_of_mine"], False),
        (["script.py"], False),
        (["keras_mixer"], True),
    ],
)
def test_program_is_recognized(start, expected, tmp_path):
    """In a package of another name, which prints what it finds."""
    package = tmp_path / "lib" / "keras_mixer"
    package.mkdir(parents=True)
    source = inspect.getsource(keras_mixer._is_program)
    (package / "__init__.py").write_text(
        f"import pathlib, re, sys\n{source}\nprint(_is_program())"
    )
    (package / "__main__.py").touch()
    for name in ("mine", "keras_mixer_of_mine"):
        (tmp_path / "lib" / name).mkdir()
        (tmp_path / "lib" / name / "__init__.py").write_text(
            "import keras_mixer"
        )
        (tmp_path / "lib" / name / "__main__.py").touch()
    # The script that pip writes for a console command.
    for name in ("script.py", "keras_mixer"):
        (tmp_path / name).write_text("import keras_mixer")
    result = subprocess.run(
        [sys.executable, *start, "train", "--data", "photos"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "lib")},
        check=True,
    )
    assert set(result.stdout.split()) == {str(expected)}


def test_public_names_exist_in_the_program_too():
    """There they are imported when they are used."""
    code = """
import sys
sys.argv[0] = "/usr/bin/keras_mixer"
import keras_mixer
print("keras" in sys.modules)
model = keras_mixer.Mixer(4, 1, 10, 7, 11, input_shape=(8, 12, 3), classes=5)
from keras_mixer import training, resmlp
import inspect
missing = [n for n in keras_mixer.__all__ if not hasattr(keras_mixer, n)]
print(missing, model.name, training.__name__, hasattr(keras_mixer, "Mixr"))
print(inspect.unwrap(keras_mixer.MixerB16).__module__, keras_mixer.__version__)
"""
    first, second, third = python(code, backend="torch").splitlines()
    assert first == "False"
    assert second == "[] mixer keras_mixer.training False"
    assert third.startswith("keras_mixer.mixer ")


def test_names_of_the_command_line_are_those_of_the_registries():
    variants = {**MIXER, **RESMLP}
    assert list(CONSTRUCTORS) == list(MODELS)
    assert list(CONSTRUCTORS.values()) == list(variants)
    for name, variant in CONSTRUCTORS.items():
        parameters = inspect.signature(MODELS[name]).parameters
        assert parameters["name"].default == variant
    assert names.DEVICES == distributing.KINDS
    assert ("auto", *resizing.METHODS) == names.RESIZE_METHODS
    assert tuple(formats.FORMATS) == names.FORMATS


@pytest.mark.parametrize(
    "backend",
    [
        "tensorflow",
        pytest.param("jax", marks=pytest.mark.nightly),
        pytest.param("torch", marks=pytest.mark.nightly),
    ],
)
def test_predict_prints_nothing_but_the_classes(backend, tmp_path):
    photo = tmp_path / "photo.png"
    Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 90).save(photo)
    result = run("predict", "--top", 2, photo, env=environment(backend))
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert [line.startswith(f"{photo} ") for line in lines] == [True, True]


def test_training_prints_what_it_logs_and_the_result(photos, tmp_path):
    """TensorFlow, which reads the images on all backends, prints nothing."""
    given = {"data": photos, "image-size": 8, "epochs": 1, "batch-size": 32}
    result = run(
        *("train", "--output", tmp_path / "run"),
        *(f"--{name}={value}" for name, value in given.items()),
        env=environment("torch"),
    )
    assert result.stderr == (
        "Training on 210 images, validating on 109 after each epoch, testing "
        "on 109 at the end\n"
    )
    epoch, *_, last = result.stdout.splitlines()
    assert epoch == "Epoch 1/1" or "val_loss" in epoch
    assert last.startswith("Accuracy on the test images: ")


@pytest.mark.parametrize(("quiet", "shown"), [(False, 2), (True, 1)])
def test_log_of_the_package_is_shown(quiet, shown, monkeypatch, capsys):
    """A caller who shows logs already is left alone."""
    logger = logging.getLogger("keras_mixer")
    for handlers, count in (([], shown), ([logging.NullHandler()], 0)):
        with monkeypatch.context() as patch:
            patch.setattr(logging.root, "handlers", handlers)
            with program.shown_log(quiet=quiet):
                logger.info("a message")
                logger.warning("a warning")
        assert len(capsys.readouterr().err.splitlines()) == count
    assert (logger.handlers, logger.propagate) == ([], True)


def test_command_whose_output_is_not_read_goes_on(tmp_path):
    code = f"""
import pathlib, sys
sys.argv[0] = "keras_mixer"
from keras_mixer import cli
cli.main(["weights"])
sys.stdout.flush()
pathlib.Path({str(tmp_path / "written")!r}).touch()
"""
    reader, writer = os.pipe()
    os.close(reader)  # as by `| head -1`
    result = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=False,
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "written").exists()


PRINTED = """
import os
from keras_mixer.cli import program
with program.quiet_tensorflow():
    os.write(2, b"I0000 00:00:1.2 3 port.cc:153] oneDNN is on\\n")
    os.write(2, b"a warning of Python\\n")
"""


@pytest.mark.parametrize(("level", "lines"), [(None, 1), ("2", 1), ("0", 2)])
def test_only_messages_of_tensorflow_are_hidden(level, lines):
    """And none if the user has set the level to 0."""
    code = f"import sys; sys.argv[0] = 'keras_mixer'{PRINTED}"
    env = environment("torch")
    if level is not None:
        env["TF_CPP_MIN_LOG_LEVEL"] = level
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env,
        check=True,
    )
    printed = result.stderr.splitlines()
    assert len(printed) == lines
    assert printed[-1] == "a warning of Python"


@pytest.mark.parametrize(
    ("module", "command", "message"),
    [
        (
            "keras.src",
            ["train", "--data", ".", "--output", "nowhere"],
            "stopped. Repeat this command to start or resume the training.",
        ),
        pytest.param(
            "tensorflow.python",
            ["evaluate", "--run", "nowhere"],
            "stopped. Repeat this command to start it again.",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_ctrl_c_during_imports_ends_in_one_line(module, command, message):
    code = f"""
import os, signal, sys, threading, time
# For processes that a shell has started in the background:
signal.signal(signal.SIGINT, signal.default_int_handler)
def interrupt():
    while {module!r} not in sys.modules:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
sys.argv[0] = "keras_mixer"
from keras_mixer.cli import main
main({command!r})
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment("torch"),
        check=False,
    )
    assert result.stderr.splitlines() == [f"keras_mixer: {message}"]
    assert result.returncode == 130


def test_ctrl_c_in_a_callback_is_remembered_and_not_printed():
    """Python ignores exceptions in `__del__`, and prints them."""
    code = """
import os, signal, sys
sys.argv[0] = "keras_mixer"
from keras_mixer.cli import program

class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(10))  # Python calls the handler here

signal.signal(signal.SIGINT, signal.default_int_handler)
with program.remembering_interrupts():
    print(program.interrupted.is_set())
    thing = Interrupted()
    del thing
    print(program.interrupted.is_set())
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert result.stdout.split() == ["False", "True"]
    assert "KeyboardInterrupt" not in result.stderr
