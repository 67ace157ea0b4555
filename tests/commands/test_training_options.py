"""Options of `train` and `finetune`: longer, smaller and own trainings."""

import json
import os
import subprocess
import sys

import keras
import pytest

import keras_mixer
from keras_mixer import cli
from keras_mixer import training
from keras_mixer.cli import building
from keras_mixer.cli import plan
from keras_mixer.cli.settings import Settings
from keras_mixer.models.anatomy import weights_of
from keras_mixer.training.optimizers import Restart
from keras_mixer.weights import resizing
from support.helpers import ROOT
from support.helpers import assert_equal
from support.helpers import computations_of_gelu


def options(photos, output, *others, **changed):
    given = {
        "data": photos,
        "output": output,
        "image_size": 8,
        "epochs": 2,
        "batch_size": 32,
        **changed,
    }
    return [
        "train",
        "--quiet",
        *others,
        *(
            f"--{key.replace('_', '-')}={value}"
            for key, value in given.items()
            if value is not None
        ),
    ]


def refused(arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code.startswith("keras_mixer: ")
    return caught.value.code


def weights_of_run(output):
    return weights_of(keras.saving.load_model(output / "model.keras"))


def stop_after(run, epochs):
    """Changes a finished training to one that was killed after an epoch."""
    for path in (run / "checkpoints").iterdir():
        if int(path.name[6:11]) > epochs:
            path.unlink()
    (run / "model.keras").unlink()
    record = training.read_run(run)
    del record["finished"]
    (run / "run.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """A training of two epochs with averages and accumulation.

    13 updates of one and a half batches: 6 steps an epoch, accumulated by 4.
    """
    output = tmp_path_factory.mktemp("runs") / "finished"
    cli.main(options(photos, output, **STATE))
    return output


STATE = {"accumulate": 4, "recipe": "resmlp.imagenet", "learning_rate": 0.01}


def model_to_train(image_shape, **changed):
    """The model that `train` builds for images of this shape."""
    settings = plan.resolved(Settings(data="photos", epochs=1, **changed))
    recipe = plan.TrainingPlan.of(settings, 210).recipe
    return building.build(settings, recipe, image_shape, classes=2)


def test_remat_computes_the_blocks_twice():
    counts = []
    for remat in (False, True):
        model = model_to_train((8, 8, 3), remat=remat)
        x = keras.ops.ones((5, 8, 8, 3))
        counts.append(computations_of_gelu(model, x))
    assert counts == [4, 8]


@pytest.mark.parametrize("method", ["auto", *resizing.METHODS])
def test_resize_is_how_the_weights_are_adapted(method):
    options = {"weights": "cifar10", "resize": method}
    received = model_to_train((32, 64, 3), **options)
    expected = keras_mixer.MixerNano(
        include_top=False, input_shape=(32, 64, 3), **options
    )
    name = "block_2/token_mixing/dense_0/kernel"
    received, expected = (
        {name: weights_of(each)[name]} for each in (received, expected)
    )
    assert_equal(received, expected)


def test_resize_is_refused_where_nothing_is_resized(photos, tmp_path):
    message = refused(
        options(photos, tmp_path / "run", "--resize", "interleave")
    )
    assert "`resize` is only for `weights` to start from" in message
    # 32 x 48 pixels are not a multiple of the 32 x 32 of the weights.
    size = {"weights": "cifar10", "image_size": "32x48"}
    message = refused(
        options(photos, tmp_path / "run", "--resize", "tile", **size)
    )
    assert "'tile'" in message
    assert not (tmp_path / "run").exists()


def test_training_with_remat_is_the_same(finished, photos, tmp_path):
    cli.main(options(photos, tmp_path / "run", "--remat", **STATE))
    received, expected = (
        training.read_log(run)[0]["loss"]
        for run in (tmp_path / "run", finished)
    )
    assert received == pytest.approx(expected, rel=1e-4)
    assert training.read_run(tmp_path / "run")["settings"]["remat"]


def test_remat_is_refused_with_dropout(photos, tmp_path):
    recipe = {"optimizer": "adam", "learning_rate": 0.1, "dropout_rate": 0.25}
    (tmp_path / "mine.json").write_text(json.dumps(recipe))
    message = refused(
        options(
            photos, tmp_path / "run", "--remat", recipe=tmp_path / "mine.json"
        )
    )
    assert "without dropout. Received: dropout_rate=0.25" in message
    assert not (tmp_path / "run").exists()


def test_restarted_schedule_equals_the_schedule_from_its_start():
    cosine = keras.optimizers.schedules.CosineDecay(
        0.0, 10, warmup_target=0.5, warmup_steps=3
    )
    restarted = Restart(cosine, 20)
    config = keras.saving.serialize_keras_object(restarted)
    for schedule in (restarted, keras.saving.deserialize_keras_object(config)):
        for step in (0, 1, 3, 8, 13):
            assert float(schedule(20 + step)) == float(cosine(step))


@pytest.mark.parametrize(
    ("count", "batch_size", "epochs"),
    [
        (3, 3, 100),
        (16, 4, 100),
        (160, 16, 50),
        (245, 16, 34),
        (511, 32, 32),
        (1600, 64, 20),
        (20_000, 64, 2),
    ],
)
def test_default_batches_and_epochs_fit_the_number_of_images(
    count, batch_size, epochs
):
    settings = plan.resolved(Settings(recipe="finetune.pets"))
    settings = plan.TrainingPlan.of(settings, count).settings
    assert (settings.batch_size, settings.epochs) == (batch_size, epochs)


def test_recipe_file_is_used_and_not_needed_to_resume(photos, tmp_path):
    recipe = {
        "optimizer": "adam",
        "learning_rate": 0.004,
        "epochs": 3,
        "batch_size": 30,
        "augmentation": {"crop": "pad", "flip": False},
    }
    file, run = tmp_path / "mine.json", tmp_path / "run"
    file.write_text(json.dumps(recipe))
    command = options(photos, run, recipe=file, epochs=2, batch_size=None)
    cli.main(command)
    record = training.read_run(run)
    assert record["settings"]["recipe"] == {"source": "mine.json", **recipe}
    assert record["settings"]["batch_size"] == 30
    assert record["recipe"]["learning_rate"] == 0.004
    assert record["recipe"]["augmentation"]["crop"] == "pad"
    weights = weights_of_run(run)
    file.unlink()
    stop_after(run, 1)
    cli.main(command)
    assert_equal(weights_of_run(run), weights)
    file.write_text(json.dumps({**recipe, "learning_rate": 0.005}))
    assert "0.005" in refused(command)


OWN = """
import functools
import keras_mixer

tiny = functools.partial(keras_mixer.Mixer, 4, 1, 10, 7, 11)
number = 3
"""


def test_own_model_is_trained_and_predicts_without_its_module(
    photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_models.py").write_text(OWN)
    command = options(photos, tmp_path / "run", model="own_models:tiny")
    # With -P, Python does not add the current folder to the path of modules, as
    # for a console command.
    subprocess.run(
        [sys.executable, "-P", "-m", "keras_mixer", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"},
        check=True,
    )
    record = training.read_run(tmp_path / "run")
    assert record["settings"]["model"] == "own_models:tiny"
    (tmp_path / "own_models.py").unlink()
    photo = next((photos / "test" / "digit 3").iterdir())
    cli.main(["predict", "--run", str(tmp_path / "run"), str(photo)])
    cli.main(["evaluate", "--run", str(tmp_path / "run")])
    assert "accuracy: " in capsys.readouterr().out
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.get_layer("block_0").token_mixing.dense_0.units == 7


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "MixerB17"}, "There is no model 'MixerB17'. Use one of: "),
        ({"model": "own_nowhere:tiny"}, "needs a module in the current folder"),
        ({"model": "json:tiny"}, "There is no function 'tiny' in "),
        ({"model": "json:__doc__"}, "There is no function '__doc__' in "),
        ({"image_size": 30}, "patch size of MixerNano, 4. Use 32."),
        ({"image_size": "8x13"}, "Use 8x12. Received: image_size=(8, 13)"),
        ({"weights": "imagenet"}, "one of ['cifar10'] (published weights)"),
        ({"batch_size": 500}, "batch_size=500 for 210 images"),
    ],
)
def test_wrong_options_are_reported(changed, message, photos, tmp_path):
    assert message in refused(options(photos, tmp_path / "run", **changed))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_only_published_models_are_used_without_a_run(command, photos):
    given = ["--data", str(photos)] if command == "evaluate" else ["a.jpg"]
    message = refused([command, "--model", "own_models:tiny", *given])
    assert "own_models:tiny has no default weights" in message
    message = refused([command, "--model", "MixerB17", *given])
    assert "There is no model 'MixerB17'" in message
