"""Training from the command line, also in processes that are killed."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import cli
from keras_mixer import training
from keras_mixer.models.anatomy import weights_of
from support.helpers import ROOT
from support.helpers import assert_equal
from support.helpers import python


def options(photos, output, **changed):
    given = {
        "data": photos,
        "output": output,
        "image_size": 8,
        "epochs": 3,
        "batch_size": 32,
        **changed,
    }
    listed = [
        text
        for key, value in given.items()
        for text in (f"--{key.replace('_', '-')}", str(value))
    ]
    return ["train", *listed, "--quiet"]


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """The folder of a short training."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    cli.main([*options(photos, folder, epochs=6), "--no-flip"])
    return folder


def test_training_folder_has_all_data_to_repeat_it(run, photos):
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "curves.png",
        "images.json",
        "log.csv",
        "model.keras",
        "run.json",
        "tensorboard",
    ]
    record = json.loads((run / "run.json").read_text())
    assert record["settings"]["data"] == str(photos)
    assert record["settings"]["learning_rate"] == 0.003
    assert record["settings"]["crop_ratio"] == 1.0
    assert record["recipe"]["augmentation"]["flip"] is False
    assert record["data"]["class_names"] == ["digit 3", "digit 4", "digit 6"]
    assert record["data"]["train_count"] == 210
    assert record["environment"]["versions"]["keras"] == keras.__version__
    log = training.read_log(run)
    assert [row["epoch"] for row in log] == [0, 1, 2, 3, 4, 5]
    assert record["finished"]["accuracy"] == log[-1]["val_accuracy"] > 0.8
    assert log[-1]["loss"] < log[0]["loss"]
    assert len(list((run / "checkpoints").iterdir())) == 2
    header = (run / "curves.png").read_bytes()[:24]
    assert header[1:4] == b"PNG"
    assert int.from_bytes(header[16:20]) == 1080  # pixels wide


def test_trained_model_is_evaluated_and_predicts(run, photos, capsys):
    cli.main(["evaluate", "--run", str(run), "--few-shot", "1", "5"])
    lines = numbers_of(capsys.readouterr().out)
    accuracy = training.read_log(run)[-1]["val_accuracy"]
    assert float(lines["accuracy"]) == pytest.approx(accuracy, abs=1e-4)
    assert 40 < float(lines["accuracy with 1 images per class"][:-2]) <= 100
    assert float(lines["accuracy with 5 images per class"][:-2]) > 80
    files = [
        str(next((photos / "test" / f"digit {digit}").iterdir()))
        for digit in (3, 6)
    ]
    cli.main(["predict", "--run", str(run), "--top", "2", *files])
    lines = capsys.readouterr().out.splitlines()
    assert files_of(lines) == np.repeat(files, 2).tolist()
    assert "  digit 3  " in lines[0]
    assert "  digit 6  " in lines[2]


def numbers_of(out):
    """Returns the lines `name: number` that a command has printed."""
    lines = (line.split(": ") for line in out.splitlines())
    return dict(line for line in lines if len(line) == 2)


def files_of(lines):
    """Returns the files in the lines that `predict` has printed."""
    return [line.split("  ")[0] for line in lines]


@pytest.mark.parametrize(
    ("freeze", "changed", "more"),
    [
        ("block_5", {"block_6", "block_7", "norm", "predictions"}, []),
        ("-1", {"norm", "predictions"}, ["--layer-decay", "0.8"]),
        ("norm", {"predictions"}, ["--accumulate", "2"]),
    ],
)
def test_frozen_layers_are_not_trained(photos, tmp_path, freeze, changed, more):
    arguments = options(
        photos, tmp_path / "run", epochs=1, freeze=freeze, weights="cifar10"
    )
    cli.main([*arguments, *more])
    before = weights_of(
        keras_mixer.MixerNano(
            weights="cifar10", include_top=False, input_shape=(8, 8, 3)
        )
    )
    after = weights_of(keras.saving.load_model(tmp_path / "run/model.keras"))
    assert {
        path.partition("/")[0]
        for path in after
        if path not in before or np.any(after[path] != before[path])
    } == changed
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["settings"]["freeze"] == freeze


def refused(*arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    assert caught.value.code.startswith("keras_mixer: ")
    return caught.value.code


def snapshot(folder):
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_other_settings_or_files_in_a_folder_raise_errors(
    run, photos, tmp_path
):
    before = snapshot(run)
    message = refused(*options(photos, run, epochs=6, seed=1), "--no-flip")
    assert "belongs to another training" in message
    assert message.endswith("seed: 0 there, 1 now")
    (tmp_path / "thesis.txt").write_text("mine")
    message = refused(*options(photos, tmp_path))
    assert "not the folder of a training" in message
    message = refused(*options(photos, tmp_path / "thesis.txt"))
    assert "not the folder of a training" in message
    assert snapshot(run) == before
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_finished_training_is_not_repeated(run, photos):
    before = snapshot(run)
    cli.main([*options(photos, run, epochs=6), "--no-flip"])
    assert snapshot(run) == before


def test_averages_are_saved_after_a_kill_at_the_end(photos, tmp_path):
    """Killed after the last checkpoint, before the model was saved."""
    changed = {"recipe": "resmlp.imagenet", "epochs": 2}
    command = options(photos, tmp_path / "run", **changed)
    cli.main(command)
    expected = weights_of_run(tmp_path / "run")
    (tmp_path / "run" / "model.keras").unlink()
    record = training.read_run(tmp_path / "run")
    del record["finished"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    cli.main(command)
    assert_equal(weights_of_run(tmp_path / "run"), expected)


def test_other_images_raise_an_error(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    command = options(tmp_path / "photos", tmp_path / "run", epochs=1)
    cli.main(command)
    before = snapshot(tmp_path / "run")
    one, other = sorted((tmp_path / "photos/train/digit 3").iterdir())[:2]
    shutil.copy(one, other)
    one.unlink()
    assert re.search(
        f"changed: '{other}'; missing or unreadable: '{one}'$",
        refused(*command),
    )
    assert snapshot(tmp_path / "run") == before
    output = tmp_path / "photos" / "train" / "run"
    message = refused(*options(tmp_path / "photos", output))
    assert "must not be among the images" in message
    assert not output.exists()


PARTS = {"train": "train", "validation": "Val", "test": "test"}


@pytest.fixture
def three_parts(photos, tmp_path):
    """Digits whose validation images are all in the wrong folder."""
    folder = tmp_path / "three_parts"
    for digit in (3, 4, 6):
        for part in ("train", "test"):
            name = f"digit {digit}"
            shutil.copytree(photos / part / name, folder / part / name)
    for right, wrong in ((3, 4), (4, 6), (6, 3)):
        target = folder / "Val" / f"digit {wrong}"
        target.mkdir(parents=True)
        source = photos / "test" / f"digit {right}"
        for file in sorted(source.iterdir())[:9]:
            shutil.copy(file, target)
    return folder


def test_validation_and_test_parts_are_used_separately(
    three_parts, tmp_path, caplog, capsys
):
    caplog.set_level("INFO", "keras_mixer")
    run = tmp_path / "run"
    cli.main([*options(three_parts, run, epochs=6), "--no-flip"])
    record = training.read_run(run)
    counts = {key: record["data"][f"{key}_count"] for key in PARTS}
    assert counts == {
        key: len(list((three_parts / part).rglob("*.png")))
        for key, part in PARTS.items()
    }
    assert (
        "Training on {train} images, validating on {validation} after each "
        "epoch, testing on {test} at the end".format(**counts)
    ) in [logged.getMessage() for logged in caplog.records]
    assert training.read_log(run)[-1]["val_accuracy"] < 0.3
    assert record["finished"]["accuracy"] > 0.8
    capsys.readouterr()
    cli.main(["evaluate", "--run", str(run)])
    lines = capsys.readouterr().out.splitlines()
    assert f"images: {counts['test']}" in lines
    assert f"accuracy: {record['finished']['accuracy']:.6g}" in lines


def test_folder_with_unfinished_run_json_is_used(photos, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.1a2b3c4d.part.json").write_text("{")
    cli.main(options(photos, tmp_path / "run", epochs=1))
    assert training.read_run(tmp_path / "run")["finished"]


def test_unreadable_images_are_reported(run, photos, tmp_path, caplog):
    shutil.copytree(photos, tmp_path / "photos")
    files = sorted((tmp_path / "photos" / "test").rglob("*.png"))
    for file in files[:11]:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    command = ["evaluate", "--run", run, "--data", tmp_path / "photos"]
    cli.main([str(text) for text in command])
    said = [record.getMessage() for record in caplog.records]
    named = [message for message in said if message.startswith("Skipped '")]
    assert len(named) == 10
    assert named[0].startswith(f"Skipped '{files[0]}': ")
    assert "Skipped 11 files in total" in said


def test_finetuning_works_without_network(
    photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("KERAS_MIXER_OFFLINE", "1")
    command = options(
        photos, tmp_path / "run", learning_rate=0.1, layer_decay=0.9
    )
    cli.main(["finetune", *command[1:]])
    assert "Accuracy on the test images: " in capsys.readouterr().out
    record = training.read_run(tmp_path / "run")
    assert record["settings"]["weights"] == "cifar10"
    assert record["recipe"]["optimizer"] == "sgd"
    assert record["finished"]["accuracy"] > 0.5
    message = refused("evaluate", "--data", photos)
    assert (
        "the model does not know: ['digit 3', 'digit 4', 'digit 6']" in message
    )


def test_bad_photos_are_reported_and_the_others_predicted(
    run, photos, tmp_path, capsys
):
    good = sorted((photos / "test" / "digit 6").iterdir())[:2]
    for name, file in zip(("b/2.png", "a.png"), good, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / name)
    (tmp_path / "text.jpg").write_text("not an image")
    command = ["predict", "--run", run, "--top", "1"]
    message = refused(*command, tmp_path, tmp_path / "missing.png")
    assert message == "keras_mixer: 2 paths could not be classified"
    printed = capsys.readouterr()
    files = files_of(printed.out.splitlines())
    assert files == [str(tmp_path / "a.png"), str(tmp_path / "b" / "2.png")]
    assert printed.out.count("  digit 6  ") == 2
    for name in ("text.jpg", "missing.png"):
        assert f"keras_mixer: {tmp_path / name}: " in printed.err
    # Without bad files, the command succeeds.
    cli.main([str(text) for text in [*command, tmp_path / "b"]])


def test_images_of_some_classes_are_evaluated_by_name(
    run, photos, tmp_path, capsys
):
    """The indices differ: class 0 of the images is class 1 of the model."""
    for digit in (4, 6):
        shutil.copytree(
            photos / "test" / f"digit {digit}", tmp_path / f"digit {digit}"
        )
    command = ["evaluate", "--run", str(run), "--data", str(tmp_path)]
    cli.main(command)
    lines = numbers_of(capsys.readouterr().out)
    assert float(lines["accuracy"]) > 0.7
    (tmp_path / "digit 6").rename(tmp_path / "digit 9")
    assert "the model does not know: ['digit 9']" in refused(*command)


def test_trained_model_is_fine_tuned_at_another_size(run, photos, tmp_path):
    file = run / "model.keras"
    size, epochs = 16, 1
    command = options(
        photos, tmp_path / "run", weights=file, image_size=size, epochs=epochs
    )
    cli.main(["finetune", *command[1:]])
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.input_shape == (None, 16, 16, 3)


def test_accumulation_grey_images_and_class_weights_are_used(photos, tmp_path):
    """Grey images, three batches of 10 per update, balanced classes."""
    command = options(
        photos,
        tmp_path / "run",
        channels=1,
        accumulate=3,
        batch_size=10,
        class_weights="balanced",
    )
    cli.main(command)
    record = training.read_run(tmp_path / "run")
    assert record["settings"]["channels"] == 1
    assert record["settings"]["accumulate"] == 3
    assert record["finished"]["accuracy"] > 0.5
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.input_shape == (None, 8, 8, 1)
    cli.main(["evaluate", "--run", str(tmp_path / "run")])
    # If it is started again, the finished training is not changed.
    (tmp_path / "run" / "model.keras").unlink()
    cli.main(command)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"accumulate": 2}, "accumulate: 2 there, 1 now"),
        ({"class_weights": "balanced"}, "'balanced' there, None now"),
    ],
)
def test_omitted_setting_is_another_training(changed, said, photos, tmp_path):
    cli.main(options(photos, tmp_path / "run", epochs=1, **changed))
    message = refused(*options(photos, tmp_path / "run", epochs=1))
    assert said in message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"momentum": 1},
            "settings: ['momentum']. Missing settings: []",
        ),
        ({"seed": None}, "Unknown settings: []. Missing settings: ['seed']"),
    ],
)
def test_unknown_and_missing_settings_are_reported(
    changed, message, run, photos, tmp_path
):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    record = training.read_run(other)
    settings = {**record["settings"], **changed}
    settings = {k: v for k, v in settings.items() if (k, v) != ("seed", None)}
    record = {**record, "settings": settings}
    (other / "run.json").write_text(json.dumps(record))
    before = snapshot(other)
    photo = next((photos / "test" / "digit 3").iterdir())
    for command in (
        [*options(photos, other, epochs=6), "--no-flip"],
        ["evaluate", "--run", other],
        ["predict", "--run", other, photo],
    ):
        assert message in refused(*command)
    assert snapshot(other) == before


def test_too_many_accumulated_batches_raise_an_error(photos, tmp_path):
    """210 images are about 7 batches of 32 in each of 3 epochs."""
    message = refused(*options(photos, tmp_path / "run", accumulate=22))
    assert "The weights would never be updated." in message
    assert "accumulate=22, in a training of 21 batches" in message
    assert not (tmp_path / "run").exists()


def test_missing_keras_cv_is_reported_before_the_folder_is_created(
    photos, tmp_path
):
    command = options(
        str(photos), str(tmp_path / "run"), recipe="resmlp.imagenet"
    )
    code = f"""
import sys
sys.modules["keras_cv"] = None
from keras_mixer import cli
try:
    cli.main({command!r})
except SystemExit as error:
    print(error)
"""
    assert "keras-cv" in python(code, backend="torch")
    assert not (tmp_path / "run").exists()


def test_only_images_in_a_folder_are_predicted(run, photos, tmp_path, capsys):
    folder = tmp_path / "mixed"
    (folder / "deeper").mkdir(parents=True)
    photo = next((photos / "test" / "digit 3").iterdir())
    shutil.copy(photo, folder / "deeper" / "no_suffix")
    shutil.copy(photo, folder / "b.png")
    (folder / "notes.txt").write_text("mine")
    command = ["predict", "--run", str(run), "--top", "1"]
    cli.main([*command, str(folder)])
    lines = capsys.readouterr().out.splitlines()
    assert files_of(lines) == [
        str(folder / "b.png"),
        str(folder / "deeper" / "no_suffix"),
    ]
    (folder / "a.jpg").write_text("no image")
    (folder / "moved.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "moved.txt").symlink_to(tmp_path / "nowhere.txt")
    (tmp_path / "empty").mkdir()
    message = refused(*command, folder, tmp_path / "empty")
    assert "3 paths could not be classified" in message
    captured = capsys.readouterr()
    assert [line.split() for line in captured.out.splitlines()] == [
        line.split() for line in lines
    ]
    assert f"{folder / 'moved.jpg'}: it is a broken link" in captured.err
    assert "moved.txt" not in captured.err
    # A photo that is given twice is printed twice.
    cli.main([*command, str(folder / "b.png"), str(folder / "b.png")])
    assert files_of(capsys.readouterr().out.splitlines()) == 2 * [
        str(folder / "b.png")
    ]
    assert f"{folder / 'a.jpg'}: Expected an image" in captured.err
    assert f"{tmp_path / 'empty'}: there is no image" in captured.err


def test_training_works_without_installing_the_package(photos, tmp_path):
    """The package is on PYTHONPATH, and has no metadata."""
    code = f"""
from importlib import metadata

version = metadata.version

def hidden(name):
    if name in ("keras_mixer", "torch"):
        raise metadata.PackageNotFoundError(name)
    return version(name)

metadata.version = hidden
from keras_mixer import cli
cli.main({options(photos, tmp_path / "run", epochs=1)!r})
"""
    python(code, backend="torch")
    versions = training.read_run(tmp_path / "run")["environment"]["versions"]
    assert versions["keras_mixer"] == keras_mixer.__version__
    assert versions["torch"].startswith("2.")


def test_tensorboard_and_matplotlib_are_optional(photos, tmp_path):
    """In a process that cannot import them."""
    code = f"""
import logging
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        if name.partition(".")[0] in ("matplotlib", "tensorboard"):
            return None
        return super().find_spec(name, *rest)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
logging.basicConfig(stream=sys.stdout)
from keras_mixer import cli
cli.main({options(photos, tmp_path / "run", epochs=1)!r})
"""
    said = python(code, backend="torch")
    for name in ("Matplotlib", "TensorBoard"):
        assert f"needs {name}, which is not installed" in said
    assert not (tmp_path / "run" / "curves.png").exists()
    assert not (tmp_path / "run" / "tensorboard").exists()


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_stopped_training_prints_how_to_resume(backend, photos, tmp_path):
    run = tmp_path / "run"
    with started(photos, run, backend, epochs=1000) as process:
        try:
            wait_for(lambda: epochs_done(run) >= 1, process)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=120)[0].decode()
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "epochs. Repeat this command to resume it." in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["finetune", "--model", "MixerS32", "--output", "run"],
            "MixerS32 has no default weights. Use `--weights`: one of "
            "['imagenet_gsam']",
        ),
        (
            ["evaluate", "--run", "run", "--model", "MixerS32"],
            "Use either `--run`, or `--model` and `--weights`.",
        ),
    ],
)
def test_conflicting_arguments_are_reported(arguments, message):
    assert message in refused(*arguments)


def test_wrong_image_size_is_reported(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--output", "run", "--image-size", "big"])
    assert "expected a size in pixels, such as 224" in capsys.readouterr().err


def test_half_precision_training_is_resumed(photos, tmp_path):
    policy = keras.config.dtype_policy()
    command = options(photos, tmp_path / "run", precision="mixed_float16")
    try:
        cli.main(command)
        (tmp_path / "run" / "model.keras").unlink()
        cli.main(command)
    finally:
        keras.config.set_dtype_policy(policy)
    assert training.read_log(tmp_path / "run")[-1]["val_accuracy"] > 0.4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe": "imagenet"}, "There is no recipe 'imagenet'. Use one of: "),
        ({"batch_size": 500}, "500"),
        ({"image_size": 10}, "multiples of the patch size"),
        ({"data": "nowhere"}, "nowhere"),
        ({"precision": "float12"}, "float12"),
        (
            {"weights": "imagenet"},
            "one of ['cifar10'] (published weights), the path",
        ),
        ({"distribute": "data"}, "KERAS_BACKEND=jax"),
        ({"dataset": "mnist"}, "Use either `--data FOLDER` or "),
        ({"dataset": "mnist", "channels": 1}, "`channels` is only for images"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": -1}, "learning"),
        ({"learning_rate": "inf"}, "`learning_rate` must be a number in (0"),
        ({"seed": 2**32}, "`seed` must be an integer in [0, 4294967295]. R"),
        ({"layer_decay": 2}, "`layer_decay` must be a number in (0, 1]"),
        ({"crop_ratio": 2}, "`crop_ratio` must be a number in (0, 1]"),
        ({"freeze": "block_9"}, "There is no block 'block_9'"),
    ],
)
def test_wrong_settings_raise_errors_before_the_folder_is_created(
    changed, message, photos, tmp_path
):
    policy = keras.config.dtype_policy()
    try:
        assert message in refused(*options(photos, tmp_path / "run", **changed))
    finally:
        keras.config.set_dtype_policy(policy)
    assert not (tmp_path / "run").exists()


# The first learning rate is 0 if there are 18 updates, but not with 4 updates.
@pytest.mark.parametrize(("accumulate", "expected"), [(1, 3), (4, 5)])
def test_loss_that_is_not_finite_is_reported(
    photos, tmp_path, accumulate, expected
):
    output = tmp_path / "run"
    message = refused(
        *options(photos, output, learning_rate=1e30, accumulate=accumulate)
    )
    found = re.search(
        r"The loss is not finite \((?:nan|inf)\) at step (\d) of epoch (\d), "
        r"with a learning rate of \d",
        message,
    )
    step, epoch = map(int, found.groups())
    assert (step, epoch) == (expected, 1)
    assert not (output / "model.keras").exists()
    message = refused("predict", "--run", output, "photo.png")
    assert "is not finished" in message
    assert "is not the folder of a training" in refused(
        "evaluate", "--run", tmp_path
    )


def command(photos, output, epochs=5):
    """Returns the command of a training with all kinds of state.

    These are LAMB, averages, stochastic depth and mixed images. There are more
    epochs than a test waits for: on a busy machine, a training continues for a
    while before it gets a signal.
    """
    # Processes that a shell has started in the background ignore Ctrl-C.
    code = (
        "import signal, sys; from keras_mixer import cli; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "cli.main(sys.argv[1:])"
    )
    return [
        sys.executable,
        "-c",
        code,
        *options(photos, output, recipe="resmlp.imagenet", epochs=epochs),
        "--learning-rate",
        "0.002",
    ]


def started(photos, output, backend="torch", **changed):
    return subprocess.Popen(
        command(photos, output, **changed),
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for(condition, process):
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < end
        time.sleep(0.0005)


def epochs_done(output):
    return len(training.read_log(output))


def weights_of_run(output):
    model = keras.saving.load_model(output / "model.keras")
    return weights_of(model)


def test_killed_training_resumes_to_the_same_result(photos, tmp_path):
    whole = subprocess.run(
        command(photos, tmp_path / "whole"),
        env={**os.environ, "KERAS_BACKEND": "torch"},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert whole.returncode == 0, whole.stderr
    output = tmp_path / "killed"

    def unfinished():
        return [*(output / "checkpoints").glob(".*.part.npz")]

    moments = [
        (output / "run.json").exists,  # before the first step
        unfinished,  # in the middle of a checkpoint
        lambda: epochs_done(output) >= 1,  # between epochs
        unfinished,
        lambda: epochs_done(output) >= 2,
    ]
    rng = random.Random(0)
    for number, moment in enumerate(moments):
        process = started(photos, output)
        wait_for(moment, process)
        if number in (2, 4):
            time.sleep(rng.random())  # within an epoch
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
    process = started(photos, output)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0, printed.decode()
    assert_equal(weights_of_run(output), weights_of_run(tmp_path / "whole"))
    assert training.read_log(output) == training.read_log(tmp_path / "whole")
