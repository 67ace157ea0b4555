"""The settings of a training: what is refused, and what follows from them."""

import json

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import cli
from keras_mixer.cli import building
from keras_mixer.cli import names
from keras_mixer.cli import plan
from keras_mixer.cli.images import load_images
from keras_mixer.cli.settings import Settings
from keras_mixer.models.anatomy import weights_of
from keras_mixer.weights import resizing
from support.helpers import assert_equal
from support.helpers import computations_of_gelu
from support.helpers import save_digits
from support.training import options
from support.training import refused


def model_to_train(image_shape=(8, 8, 3), **changed):
    """The model that `train` builds for images of this shape."""
    settings = plan.resolved(Settings(data="photos", epochs=1, **changed))
    recipe = plan.TrainingPlan.of(settings, 210).recipe
    return building.build(settings, recipe, image_shape, classes=2)


OWN = """
import functools
import keras
import keras_mixer
import numpy as np

tiny = functools.partial(keras_mixer.Mixer, 4, 1, 10, 7, 11)
number = 3

def frozen(**options):
    model = tiny(**options)
    model.get_layer("block_0").trainable = False
    return model

def built_of(layer, classes):
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(classes)(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, layer(outputs))

class Doubled(keras.layers.Layer):
    def __init__(self, factors=None, **options):
        super().__init__(**options)

    def call(self, x):
        return 2 * x

def unknown_layer(classes, **options):
    return built_of(Doubled(), classes)

def layer_of_array(classes, **options):
    return built_of(Doubled(np.ones(3)), classes)

@keras.saving.register_keras_serializable("test_settings")
class Faulty(Doubled):
    @classmethod
    def from_config(cls, config):
        return cls(config["nowhere"])

def faulty_layer(classes, **options):
    return built_of(Faulty(), classes)

def any_function(classes, **options):
    return built_of(keras.layers.Lambda(lambda x: 2 * x), classes)

@keras.saving.register_keras_serializable("test_settings")
class Tripled(Doubled):
    pass

def known_layer(classes, **options):
    return built_of(Tripled(), classes)

def of_one_class(classes, **options):
    return built_of(Tripled(), 1)

def of_one_size(image_size=8, input_shape=None, **options):
    return tiny(input_shape=(8, 8, 3), **options)

def no_model(**options):
    return "a model"

def wrong(**options):
    raise TypeError("a fault of mine")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The current folder, with a module of the user."""
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def undecodable(tmp_path):
    """Files that raise another error when they are decoded."""
    for number in range(80):
        name = ("cat", "dog")[number % 2]
        file = tmp_path / "undecodable" / name / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("no image")
    return tmp_path / "undecodable"


def recipe_file(folder, **fields):
    recipe = {"optimizer": "adam", "learning_rate": 0.1, "epochs": 2, **fields}
    (folder / "mine.json").write_text(json.dumps(recipe))
    return "mine.json"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "MixerB17"}, "There is no model 'MixerB17'. Use one of: "),
        ({"model": "own_nowhere:tiny"}, "needs a module in the current folder"),
        ({"model": "own_models:little"}, "There is no function 'little' in "),
        ({"model": "own_models:number"}, "There is no function 'number' in "),
        ({"model": "own_models:no_model"}, "Received: a str with the shapes"),
        ({"model": "own_models:of_one_size", "image_size": 16}, "(None, 16, 1"),
        ({"model": "own_models:of_one_class"}, "logits of shape (None, 2). Re"),
        ({"model": "own_models:unknown_layer"}, "Register its layers with"),
        ({"model": "own_models:layer_of_array"}, "Received: NotImplemented"),
        ({"model": "own_models:faulty_layer"}, "KeyError: 'nowhere'"),
        ({"model": "own_models:any_function"}, "could not be loaded after"),
        ({"model": "own_models:tiny", "image_size": 9}, "9"),
        ({"model": "MixerNano", "image_size": 30}, "of MixerNano, 4. Use 32."),
        ({"model": "MixerNano", "image_size": "8x13"}, "Use 8x12. Received: "),
        ({"recipe": "imagenet"}, "There is no recipe 'imagenet'. Use one of: "),
        ({"batch_size": 81}, "batch_size=81 for 80 images"),
        ({"data": "nowhere"}, "Received: 'nowhere', which is not a folder"),
        ({"data": "gs://bucket/photos"}, "`data` must be a path on this mach"),
        ({"data_dir": "s3://b"}, "`data_dir` must be a path on this machine"),
        ({"output": "file:///run"}, "`output` must be a path on this machine"),
        ({"output": "undecodable/cat/run"}, "must not be among the images"),
        ({"weights": "gs://bucket/a.keras"}, "`weights` must be a path on"),
        ({"precision": "float12"}, "float12"),
        ({"model": "MixerNano", "weights": "a"}, "one of ['cifar10'] (publis"),
        ({"distribute": "data"}, "KERAS_BACKEND=jax"),
        ({"dataset": "mnist"}, "Use either `--data FOLDER` or "),
        ({"dataset": "mnist", "channels": 1}, "`channels` is only for images"),
        ({"epochs": 0}, "`epochs` must be an integer in [1, inf). Received: "),
        ({"patience": 0}, "`patience` must be an integer in [1, inf)"),
        ({"learning_rate": -1}, "`learning_rate` must be a number in (0, inf)"),
        ({"learning_rate": "inf"}, "Received: learning_rate=inf"),
        ({"seed": -1}, "`seed` must be an integer in [0, 4294967295]"),
        ({"seed": 2**32}, "Received: seed=4294967296"),
        ({"crop_ratio": 2}, "`crop_ratio` must be a number in (0, 1]"),
        ({"layer_decay": 0}, "`layer_decay` must be a number in (0, 1]"),
        ({"freeze": "block_9"}, "There is no block 'block_9'"),
        # 80 files are 3 batches of 32 (rounded) in each of 2 epochs.
        ({"accumulate": 7}, "accumulate=7, in a training of 6 batches"),
        ({"resize": "tile"}, "`resize` is only for `weights` to start from"),
        (
            # The weights are for 32 x 32 pixels.
            {
                "model": "MixerNano",
                "weights": "cifar10",
                "image_size": "32x48",
                "resize": "tile",
            },
            "'tile'",
        ),
        (
            {"recipe": "resmlp.imagenet", "channels": 1},
            "RandAugment is only for RGB images.",
        ),
    ],
)
def test_wrong_settings_are_refused_before_images_are_decoded(
    changed, message, own, undecodable
):
    policy = keras.config.dtype_policy()
    files = set(own.rglob("*"))
    try:
        given = {"photos": undecodable, "output": own / "run", **changed}
        assert message in refused(*options(**given))
    finally:
        keras.config.set_dtype_policy(policy)
    assert {p for p in own.rglob("*") if "__pycache__" not in str(p)} == files


@pytest.mark.parametrize(
    ("fields", "others", "message"),
    [
        ({"dropout_rate": 0.2}, ["--remat"], "Received: dropout_rate=0.2"),
        ({"warmup_steps": 9}, [], "Received: 9 steps of 6"),
    ],
)
def test_recipe_that_does_not_fit_is_refused(
    fields, others, message, own, undecodable
):
    recipe = recipe_file(own, **fields)
    command = options(undecodable, own / "run", *others, recipe=recipe)
    assert message in refused(*command)
    assert not (own / "run").exists()


def test_fault_of_the_users_function_keeps_its_traceback(own, undecodable):
    command = options(undecodable, own / "run", model="own_models:wrong")
    with pytest.raises(TypeError, match="a fault of mine"):
        cli.main(command)


def test_own_model_keeps_what_it_froze(own):
    trained = {
        freeze: [
            layer.name
            for layer in model_to_train(
                model="own_models:frozen", freeze=freeze
            ).layers
            if layer.trainable_variables
        ]
        for freeze in (None, "stem")
    }
    assert trained[None] == ["stem", "norm", "predictions"]
    assert trained["stem"] == ["block_0", "norm", "predictions"]
    assert model_to_train(model="own_models:known_layer").count_params() == 386


def test_recipe_of_the_user_is_not_shortened(own):
    """The published recipes are, for fewer steps than they were made for."""
    fields = {"warmup_steps": 50, "ema": 0.999, "epochs": 20}
    recipe_file(own, **fields)
    content = json.loads((own / "mine.json").read_text())
    settings = plan.resolved(Settings(recipe=content, batch_size=4))
    # 5 steps in each of 20 epochs.
    received = plan.TrainingPlan.of(settings, 20)
    assert received.updates == 100
    assert (received.recipe.warmup_steps, received.recipe.ema) == (50, 0.999)
    settings = plan.resolved(Settings(recipe="mixer_s.jft", batch_size=4))
    assert plan.TrainingPlan.of(settings, 20).recipe.warmup_steps == 2


def test_sizes_are_the_same_however_they_are_written(own):
    by_hand, of_recipe, of_weights = (
        plan.resolved(Settings(**given)).image_size
        for given in (
            {"image_size": (32, 32)},
            {
                "recipe": {
                    "optimizer": "adam",
                    "learning_rate": 1,
                    "image_size": 32,
                }
            },
            {"weights": "cifar10"},
        )
    )
    assert by_hand == of_recipe == of_weights == (32, 32)


def test_remat_computes_the_blocks_twice():
    counts = []
    for remat in (False, True):
        model = model_to_train(remat=remat)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["finetune", "--model", "MixerS32", "--output", "run"],
            "MixerS32 has no default weights. Use `--weights`: one of "
            "['imagenet_gsam']",
        ),
        (
            ["finetune", "--model", "my:model", "--output", "run"],
            "my:model has no default weights. Use `--weights`: a file.",
        ),
    ],
)
def test_missing_weights_are_reported(arguments, message):
    assert message in refused(*arguments)


def test_wrong_image_size_is_reported(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--output", "run", "--image-size", "big"])
    assert "expected a size in pixels, such as 224" in capsys.readouterr().err


def test_some_unreadable_images_are_named(tmp_path, caplog):
    pixels = np.random.default_rng(0).integers(0, 255, (15, 8, 8, 1))
    for name in ("cat", "dog"):
        save_digits(tmp_path / name, pixels)
    files = sorted((tmp_path / "dog").iterdir())[:11]
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    load_images(tmp_path, None, 8)
    said = [record.getMessage() for record in caplog.records]
    named = [message for message in said if message.startswith("Skipped '")]
    assert len(named) == 10
    assert named[0].startswith(f"Skipped '{files[0]}': ")
    assert "Skipped 11 files in total" in said


def test_weights_of_another_model_have_their_names():
    assert names.default_weights("MixerB16") == "imagenet"
    assert names.tags_of("MixerS32") == ["imagenet_gsam"]
