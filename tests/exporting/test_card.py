"""The model card: its examples run, and it says what is known."""

import contextlib
import io
import json

import keras
import numpy as np
import pytest
from PIL import Image

import keras_mixer
from keras_mixer import cli
from keras_mixer.training.finished import digest_of
from support.cards import NAMES
from support.cards import blocks_of
from support.cards import files_in
from support.cards import header_of
from support.cards import section_of
from support.helpers import CLASSES
from support.helpers import IMAGE
from support.helpers import outputs
from support.helpers import random_model


def two_inputs():
    age = keras.Input((1,), name="age")
    model = random_model("mixer", include_top=False, pooling="avg")
    x = keras.layers.Concatenate()([model.output, age])
    return keras.Model([model.input, age], keras.layers.Dense(3)(x))


def frames():
    model = random_model("mixer", include_top=False, pooling="avg")
    return keras.Sequential(
        [
            keras.Input((2, *IMAGE)),
            keras.layers.TimeDistributed(model),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )


def without_channels():
    return keras.Sequential(
        [
            keras.Input(IMAGE[:2]),
            keras.layers.Reshape((*IMAGE[:2], 1)),
            random_model("mixer", input_shape=(*IMAGE[:2], 1)),
        ]
    )


def with_arithmetic():
    image = keras.Input(IMAGE)
    model = random_model(
        "mixer", input_tensor=image / 2, include_preprocessing=False
    )
    return keras.Model(image, model.output / 2)


def one_of_a_dict():
    model = random_model("mixer")
    return keras.Model(model.input, {"kind": model.output})


def channels_first():
    keras.config.set_image_data_format("channels_first")
    return random_model("mixer", input_shape=(3, 8, 12))


# Models, and whether the card can show how to load a photo for them.
KINDS = [
    (lambda: random_model("mixer"), True),
    (lambda: random_model("resmlp", input_shape=(8, 12, 1)), True),
    (lambda: keras_mixer.fuse(random_model("mixer")), True),
    (with_arithmetic, True),
    (channels_first, True),
    (one_of_a_dict, True),
    (lambda: random_model("mixer", input_shape=(8, 12, 5)), False),
    (two_inputs, False),
    (frames, False),
    (without_channels, False),
]


@pytest.fixture
def usual_format():
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(("make", "has_photo"), KINDS)
def test_examples_in_the_card_run(
    tmp_path, monkeypatch, usual_format, make, has_photo
):
    model = make()
    names = NAMES if model.outputs[0].shape == (None, CLASSES) else None
    keras_mixer.push(model, tmp_path / 'a "b" é', class_names=names)
    keras.config.set_image_data_format("channels_last")  # of the reader
    monkeypatch.chdir(tmp_path)
    Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 90).save("photo.jpg")
    has_weights = "model.safetensors" in files_in(tmp_path / 'a "b" é')
    files = section_of(tmp_path / 'a "b" é', "Files")
    assert has_weights != ("There is no `model.safetensors`" in files)
    known, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks_of(tmp_path / 'a "b" é'):
            exec(block, known)
    if "backbone" in known:
        assert known["backbone"].output_shape == (None, 10)
    if not has_photo:
        assert str(model.input_shape) in printed.getvalue()
        return
    if isinstance(known["outputs"], dict):
        (known["outputs"],) = known["outputs"].values()
        model = keras.Model(model.input, model.outputs[0])
    expected = outputs(model, known["batch"])
    np.testing.assert_allclose(known["outputs"], expected, atol=1e-6)
    if names:
        answer = names[expected[0].argmax()]
        assert printed.getvalue().strip().endswith(answer)


@pytest.fixture
def run(tmp_path):
    """The folder of a finished training, as the command line writes it."""
    folder = tmp_path / "run"
    (folder / "evaluation_best").mkdir(parents=True)
    settings = {
        "data": f"{tmp_path}/secret place/my *photos*",
        "dataset": None,
        "batch_size": 13,
        "model": "MixerNano",
        "weights": f"{tmp_path}/mine.keras",
        "recipe": "resmlp.imagenet",
        "crop_ratio": 0.9,
        "interpolation": "bicubic",
        "freeze": "block_1",
        "seed": 17,
    }
    recipe = keras_mixer.recipes.RECIPES["resmlp.imagenet"]
    record = {
        "settings": settings,
        "data": {
            "class_names": NAMES,
            "train_count": 211,
            "validation_count": 31,
            "test_count": 53,
            "skipped": [[f"{tmp_path}/bad.jpg", "damaged"]],
        },
        "recipe": recipe,
        "environment": {
            "system": f"secret system of {tmp_path}",
            "versions": {"keras": "3.15.1", "keras_mixer": "0.1.0"},
        },
        "finished": {
            "accuracy": 49 / 53,
            "best_epoch": 4,
            "best_val_accuracy": 30 / 31,
        },
    }
    rows = [f"{epoch},0.5,0.6" for epoch in range(6)]
    (folder / "log.csv").write_text(
        "\n".join(["epoch,loss,val_loss", *rows]) + "\n"
    )
    for name in ("model", "best"):
        random_model("mixer", name=name).save(folder / f"{name}.keras")
    record["model_digest"] = digest_of(folder / "model.keras")
    text = json.dumps(record, default=lambda value: vars(value))
    (folder / "run.json").write_text(text)
    return folder


def change(run, **settings):
    record = json.loads((run / "run.json").read_text())
    record["settings"] |= settings
    (run / "run.json").write_text(json.dumps(record))
    return record


def test_card_of_a_training_has_its_data_recipe_and_accuracy(tmp_path, run):
    folder = tmp_path / "my_photos"
    keras_mixer.push(run, folder, license="mit")
    header = header_of(folder)
    assert header["license"] == "mit"
    assert header["library_name"] == "keras_mixer"
    assert header["pipeline_tag"] == "image-classification"
    assert {"image-classification", "keras", "mlp-mixer"} <= {*header["tags"]}
    assert "timm" not in header["tags"]
    (index,) = header["model-index"]
    (result,) = index["results"]
    assert index["name"] == "my_photos"
    assert result["dataset"]["name"] == "my *photos*"
    assert result["dataset"]["split"] == "test"
    assert result["metrics"][0]["value"] == pytest.approx(49 / 53, abs=1e-6)
    for title, texts in {
        "Data": [
            "A folder of images: my \\*photos\\*.",
            "| training | 211 |",
            "| test | 53 |",
        ],
        "Training": [
            "| start | a file of weights |",
            "| recipe | resmlp.imagenet (ResMLP (arXiv 2105.03404), section",
            "| optimizer | lamb |",
            "| batch size | 13 |",
            "| weight decay | 0.2 |",
            "| mixup | 0.8 |",
            "| freeze | block\\_1 |",
        ],
        "Accuracy": [
            "**92.45 %** top-1 on the test images (49 of 53 are right)",
            "reduced to 0.9 of its sides",
            "(bicubic, with antialiasing)",
            "last epoch, 6.",
            "seed 17",
        ],
        "License": ["mit, as stated"],
        "Classes": ["a cat, b \\<c\\>, ü\\|\\*"],
    }.items():
        section = section_of(folder, title)
        assert [text for text in texts if text not in section] == []
    for file in folder.iterdir():
        content = file.read_bytes()
        for secret in (str(tmp_path), "secret", "mine.keras", "bad.jpg"):
            assert secret.encode() not in content, (file.name, secret)


def test_best_model_has_its_own_accuracy(tmp_path, run):
    target = tmp_path / "new"

    def accuracy():
        keras_mixer.push(run, target, best=True, overwrite=True)
        return section_of(target, "Accuracy")

    unmeasured = accuracy()
    assert keras.saving.load_model(target / "model.keras").name == "best"
    assert "It was not measured on the test images." in unmeasured
    assert "that of epoch 4, which has the highest" in unmeasured
    assert "(96.77 %)" in unmeasured
    assert "model-index" not in header_of(target)
    report = {
        "model_digest": digest_of(run / "best.keras"),
        "about": {"data": change(run)["settings"]["data"]},
        "images": 53,
        "accuracy": 50 / 53,
    }
    file = run / "evaluation_best" / "evaluation.json"
    file.write_text(json.dumps(report))
    assert "(50 of 53 are right)" in accuracy()
    # The training was repeated: the report is of another model.
    random_model("resmlp", name="best").save(run / "best.keras")
    assert accuracy() == unmeasured
    (run / "best.keras").replace(run / "model.keras")
    keras_mixer.push(run, target, overwrite=True)
    assert "It was not measured on the test images." in section_of(
        target, "Accuracy"
    )


def test_card_of_a_tfds_data_set_names_it(tmp_path, run):
    change(run, data=None, dataset="cats_vs_dogs:4.0.1")
    keras_mixer.push(run, tmp_path / "out")
    assert header_of(tmp_path / "out")["datasets"] == ["cats_vs_dogs"]
    data = section_of(tmp_path / "out", "Data")
    assert "Datasets: cats\\_vs\\_dogs:4.0.1." in data


def test_card_of_published_weights(tmp_path, capsys):
    target = tmp_path / "nano"
    cli.main(["push", "MixerNano.cifar10", str(target)])
    assert capsys.readouterr().out == f"See '{target}'.\n"
    assert "**82.25 %** top-1" in section_of(target, "Accuracy")
    assert "Trained on CIFAR-10." in section_of(target, "Data")
    assert "Apache-2.0" in section_of(target, "License")
    assert "airplane, automobile" in section_of(target, "Classes")
    assert "crop_ratio=1," in blocks_of(target)[0]
    with pytest.raises(SystemExit, match="Use another path, or"):
        cli.main(["push", "MixerNano.cifar10", str(target)])
    with pytest.raises(
        SystemExit, match="`--best` is for the model of a train"
    ):
        cli.main(["push", "MixerNano.cifar10", "b", "--best"])


def test_unfinished_training_is_refused(tmp_path, run):
    (run / "best.keras").unlink()
    with pytest.raises(ValueError, match=r"has no best\.keras"):
        keras_mixer.push(run, tmp_path / "new", best=True)
    record = change(run)
    del record["finished"]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="is not finished: repeat its command"):
        keras_mixer.push(run, tmp_path / "new")
    assert files_in(tmp_path) == ["run"]
