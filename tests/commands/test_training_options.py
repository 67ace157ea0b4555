"""Options of `train` and `finetune`: longer, smaller and own trainings."""

import json
import logging
import os
import shutil
import subprocess
import sys

import keras
import pytest
from PIL import Image

import keras_mixer
from keras_mixer import cli
from keras_mixer import training
from keras_mixer.cli import plan
from keras_mixer.cli import trainer
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

    class Images:
        class_names = ("cat", "dog")
        train_count = 210

        def steps_per_epoch(self, batch_size, drop_remainder):
            return 210 // batch_size

    images = Images()
    images.image_shape = image_shape
    settings = Settings(data="photos", epochs=1, **changed)
    return trainer._model(plan.Plan.of(plan.resolved(settings), images), images)


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
    class Images:
        train_count = count

        def steps_per_epoch(self, batch_size, drop_remainder):
            assert not drop_remainder
            return max(round(count / batch_size), 1)

    settings = plan.resolved(Settings(recipe="finetune.pets"))
    settings = plan.Plan.of(settings, Images()).settings
    assert (settings.batch_size, settings.epochs) == (batch_size, epochs)


def test_run_of_an_earlier_version_drops_the_same_images(photos, tmp_path):
    """It has no such setting in `run.json`, and goes on as it began."""
    new, old = tmp_path / "new", tmp_path / "old"
    cli.main(options(photos, new, batch_size=40))
    # 210 images are 5.25 batches of 40.
    assert training.read_run(new)["settings"]["drop_remainder"] is False
    shutil.copytree(new, old)
    stop_after(old, 0)
    record = training.read_run(old)
    del record["settings"]["drop_remainder"]
    (old / "run.json").write_text(json.dumps(record))
    cli.main(options(photos, old, batch_size=40))
    # In both, the first epoch has the first 200 images.
    first, second = training.read_log(old)
    assert first == training.read_log(new)[0]
    assert second["loss"] != training.read_log(new)[1]["loss"]


def test_larger_images_are_proposed_for_large_photos(tmp_path, caplog):
    for i in range(10):
        folder = tmp_path / "photos" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((150, 130 + i), 90).save(folder / f"{i}.png")
    command = options(
        tmp_path / "photos",
        tmp_path / "run",
        image_size=None,
        batch_size=None,
        epochs=1,
    )
    with caplog.at_level(logging.WARNING, "keras_mixer"):
        cli.main(command)
        cli.main(command)
    messages = [
        record.getMessage()
        for record in caplog.records
        if "--image-size" in record.getMessage()
    ]
    assert len(messages) == 1
    assert "about 134 x 150 pixels, and the model gets 32 x 32" in messages[0]
    assert "`--image-size 64`" in messages[0]
    record = training.read_run(tmp_path / "run")
    assert record["settings"]["batch_size"] == 4
    assert record["data"]["train_count"] == 8


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
        ({"model": "json:dumps"}, "dumps() missing 1 required"),
        ({"image_size": 30}, "patch size of MixerNano, 4. Use 32."),
        ({"image_size": "8x13"}, "Use 8x12. Received: image_size=(8, 13)"),
        ({"weights": "imagenet"}, "one of ['cifar10'] (published weights)"),
        ({"batch_size": 500}, "batch_size=500 for at most 210 images"),
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
