"""What `push` writes, and who can read it."""

import contextlib
import io
import json
import re
import resource
import signal
import sys

import keras
import numpy as np
import pytest
import yaml
from PIL import Image

import keras_mixer
from keras_mixer import cli
from keras_mixer.exporting import timm_config
from keras_mixer.exporting.weights import config_of
from keras_mixer.layers.output_activation import output_activation
from keras_mixer.models.anatomy import inner_model
from keras_mixer.training.finished import digest_of
from support import peers
from support.helpers import CLASSES
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import family_model
from support.helpers import matches
from support.helpers import randomise
from support.hub import TOKEN
from support.hub import Hub
from support.hub import Repository

NAMES = ["a cat", "b <c>", "ü|*", "d, e", 'f "g"']


def model_of(family, **options):
    model = family_model(family, **options)
    randomise(model)
    return model


def outputs(model, images):
    return keras.ops.convert_to_numpy(model(images.astype("float32")))


def files_in(folder):
    return sorted(file.name for file in folder.iterdir())


def header_of(folder):
    """The YAML at the start of the card."""
    _, header, _ = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(header)


def section_of(folder, title):
    text = (folder / "README.md").read_text("utf-8")
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found


def blocks_of(folder):
    text = (folder / "README.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


# What is written


@pytest.mark.parametrize("family", FAMILIES)
def test_files_hold_the_model_and_the_names(tmp_path, images, family):
    model = model_of(family)
    path = keras_mixer.push(model, tmp_path / "tiny", class_names=NAMES)
    assert path == str(tmp_path / "tiny")
    assert files_in(tmp_path) == ["tiny"]
    assert files_in(tmp_path / "tiny") == [
        "README.md",
        "class_names.json",
        "model.keras",
        "model.safetensors",
    ]
    names = (tmp_path / "tiny" / "class_names.json").read_text("utf-8")
    assert json.loads(names) == NAMES
    saved = keras.saving.load_model(tmp_path / "tiny" / "model.keras")
    np.testing.assert_array_equal(
        outputs(saved, images), outputs(model, images)
    )
    weights = tmp_path / "tiny" / "model.safetensors"
    loaded = family_model(family, weights=weights)
    np.testing.assert_array_equal(
        outputs(loaded, images), outputs(model, images)
    )


def test_compiled_model_is_saved_without_its_optimizer(tmp_path, images):
    """A dict of outputs stays a dict."""
    model = keras_mixer.new_head(model_of("mixer"), {"a": 3, "b": 4})
    randomise(model)
    model.compile("adam", "sparse_categorical_crossentropy")
    labels = {name: np.arange(len(images)) % 3 for name in "ab"}
    model.fit(images, labels, verbose=0)
    keras_mixer.push(model, tmp_path / "new")
    saved = keras.saving.load_model(tmp_path / "new" / "model.keras")
    assert not saved.compiled
    expected, received = model(images), saved(images)
    assert received.keys() == {"a", "b"}
    for name, value in expected.items():
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(received[name]),
            keras.ops.convert_to_numpy(value),
        )


# timm

# Models of sizes that timm has, at images of 64 x 96 pixels.
GREY = {"classifier_activation": "sigmoid", "input_shape": (64, 96, 1)}
TIMM = {
    "mixer_s32_224": ("MixerS32", {}),
    "mixer_s16_224": ("MixerS16", {"include_top": False, "pooling": "avg"}),
    "resmlp_12_224": ("ResMLPS12", GREY),
}


@pytest.fixture(scope="module")
def for_timm(tmp_path_factory):
    """`{architecture: (folder, model)}` of models that timm can build."""
    keras.utils.set_random_seed(7)
    folder = tmp_path_factory.mktemp("timm")
    made = {}
    for name, (constructor, options) in TIMM.items():
        usual = {"activation": "gelu", "input_shape": (64, 96, 3)}
        model = getattr(keras_mixer, constructor)(
            weights=None, classes=CLASSES, **{**usual, **options}
        )
        randomise(model)
        names = NAMES if options.get("include_top", True) else None
        keras_mixer.push(model, folder / name, class_names=names)
        made[name] = folder / name, model
    return made


def logits_of(theirs, photos, mean, std):
    import torch

    x = (photos / 255 - np.array(mean)) / np.array(std)
    with torch.no_grad():
        return theirs(torch.tensor(x.transpose(0, 3, 1, 2)).float())


@pytest.mark.parametrize("name", TIMM)
def test_timm_loads_the_folder_and_computes_the_same(for_timm, name):
    timm = peers.import_timm()
    folder, model = for_timm[name]
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = theirs.pretrained_cfg
    assert config["architecture"] == name
    shape = model.input_shape[1:]
    saved = json.loads((folder / "config.json").read_text("utf-8"))
    # transformers builds the model with these arguments alone.
    assert saved["model_args"] == {
        "img_size": [64, 96],
        **({"in_chans": 1} if shape[2] == 1 else {}),
    }
    _, options = TIMM[name]
    prepared = timm.data.resolve_data_config(model=theirs)
    assert tuple(prepared["input_size"]) == (shape[2], 64, 96)
    assert prepared["interpolation"] == "bilinear"
    assert prepared["crop_pct"] == 224 / 256
    photos = np.random.default_rng(3).uniform(0, 255, (3, *shape))
    received = logits_of(theirs, photos, prepared["mean"], prepared["std"])
    text = (folder / "README.md").read_text("utf-8")
    if options.get("include_top", True):
        assert config["label_names"] == NAMES
        kind = options.get("classifier_activation", "softmax")
        assert f"`{kind}(logits)`" in text
        received = keras.activations.get(kind)(received)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(received),
        outputs(model, photos),
        rtol=0,
        atol=1e-5 * max(1, np.abs(outputs(model, photos)).max()),
    )
    assert f'timm.create_model("local-dir:{name}", ' in text
    assert "timm" in header_of(folder)["tags"]
    assert 'pipeline("image-classification"' in blocks_of(folder)[-1]


def two_inputs():
    age = keras.Input((1,), name="age")
    model = model_of("mixer", include_top=False, pooling="avg")
    x = keras.layers.Concatenate()([model.output, age])
    return keras.Model([model.input, age], keras.layers.Dense(3)(x))


def frames():
    model = model_of("mixer", include_top=False, pooling="avg")
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
            model_of("mixer", input_shape=(*IMAGE[:2], 1)),
        ]
    )


def with_arithmetic():
    image = keras.Input(IMAGE)
    model = model_of(
        "mixer", input_tensor=image / 2, include_preprocessing=False
    )
    return keras.Model(image, model.output / 2)


def channels_first():
    keras.config.set_image_data_format("channels_first")
    return model_of("mixer", input_shape=(3, 8, 12))


# Models, and whether the card can show how to load a photo for them.
KINDS = [
    (lambda: model_of("mixer"), True),
    (lambda: model_of("resmlp", input_shape=(8, 12, 1)), True),
    (lambda: keras_mixer.fuse(model_of("mixer")), True),
    (with_arithmetic, True),
    (channels_first, True),
    (lambda: model_of("mixer", input_shape=(8, 12, 5)), False),
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
    expected = outputs(model, known["batch"])
    np.testing.assert_allclose(known["outputs"], expected, atol=1e-6)
    if names:
        answer = names[expected[0].argmax()]
        assert printed.getvalue().strip().endswith(answer)


def rescaled(model):
    return keras.Sequential(
        [keras.Input(IMAGE), keras.layers.Rescaling(0.5), model]
    )


def enlarged(model):
    return keras.Sequential(
        [keras.Input((40, 40, 3)), keras.layers.Resizing(8, 12), model]
    )


def two_heads(model):
    return keras_mixer.new_head(model, {"a": 3, "b": 4})


# Changed models, of which timm would compute other outputs.
DIFFERENT = [
    (rescaled, {}, "does not only have the layers"),
    (enlarged, {}, "changes the size of the image"),
    (two_heads, {}, "one input and one output"),
    (lambda m: m, {"include_preprocessing": False}, "does not scale the pixel"),
    (lambda m: m, {"classifier_activation": "tanh"}, "does not only have the"),
    (lambda m: m, {"include_top": False}, "does not only have the layers"),
    (lambda m: m, {"activation": "elu"}, None),
]


@pytest.mark.parametrize(("change", "options", "reason"), DIFFERENT)
def test_timm_gets_no_model_that_computes_something_else(
    change, options, reason
):
    model = change(model_of("mixer", **options))
    scaling = config_of(inner_model(model)).scaling
    output = output_activation(model) or "linear"
    found = timm_config.why_different(model, scaling, output)
    assert reason in found if reason else found is None


def test_timm_has_no_name_for_tanh_gelu_and_other_sizes(tmp_path):
    evaluation = {"crop_ratio": 1.0, "interpolation": "area"}
    options = {"weights": None, "input_shape": (32, 64, 3), "classes": 7}
    found = timm_config.describe(keras_mixer.MixerS32(**options), evaluation)
    assert found.config is None
    assert "timm would use exact GELU" in found.reason
    other = keras_mixer.ResMLP(16, 12, 384, 640, 0.1, **options)
    found = timm_config.describe(other, evaluation)
    assert found.reason == "timm has no architecture of these sizes"
    wide = keras_mixer.Mixer(32, 8, 512, 128, 999, activation="gelu", **options)
    found = timm_config.describe(wide, evaluation)
    assert found.config["pretrained_cfg"]["interpolation"] == "box"
    ratios = found.config["model_args"]["mlp_ratio"]
    assert [int(ratio * 512) for ratio in ratios] == [128, 999]
    keras_mixer.push(model_of("mixer"), tmp_path / "tiny")
    text = (tmp_path / "tiny" / "README.md").read_text("utf-8")
    assert "cannot load this repository: timm has no architecture" in text
    assert "import timm" not in text


def test_ratio_of_any_width_is_exact_in_timm():
    for hidden in (10, 192, 384, 768):
        for width in range(1, 5 * hidden, 7):
            ratio = timm_config._ratio(width, hidden)
            assert int(ratio * hidden) == width


# The card of a training


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
    text = json.dumps(record, default=lambda value: vars(value))
    (folder / "run.json").write_text(text)
    rows = [f"{epoch},0.5,0.6" for epoch in range(6)]
    (folder / "log.csv").write_text(
        "\n".join(["epoch,loss,val_loss", *rows]) + "\n"
    )
    for name in ("model", "best"):
        model_of("mixer", name=name).save(folder / f"{name}.keras")
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
    model_of("resmlp", name="best").save(run / "best.keras")
    assert accuracy() == unmeasured


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


# Errors


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 3}, TypeError, "`model` must be a Keras model, or the path"),
        ({"model": "nowhere"}, ValueError, "'nowhere' is not the folder of a"),
        ({"target": "gs://a/b"}, ValueError, "`target` must be a path on"),
        ({"target": 3}, TypeError, "`target` must be 'hf://organization/name'"),
        ({"target": "hf://me"}, ValueError, "A repository of the Hugging Face"),
        ({"target": "hf://a/b/c"}, ValueError, "A repository of the Hugging"),
        ({"target": "hf://a/b--c"}, ValueError, "A repository of the Hugging"),
        (
            {"target": "no/where"},
            FileNotFoundError,
            "The folder '...' does not",
        ),
        (
            {"target": "there"},
            FileExistsError,
            "'...there' exists. Use another",
        ),
        ({"best": True}, ValueError, "`best=True` is only for the folder"),
        ({"private": True}, ValueError, "`private=True` (`--private`) is"),
        ({"license": 3}, TypeError, "`license` must be an identifier"),
        ({"license": "My own"}, ValueError, "`license` must be an identifier"),
        ({"class_names": NAMES[1:]}, ValueError, "`class_names` must have one"),
        ({"class_names": "abcde"}, TypeError, "`class_names` must be a list"),
        (
            {"model": keras.Sequential([keras.Input((3,))])},
            ValueError,
            "`model` must be a model of this package",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path, tiny, monkeypatch, arguments, error, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    given = {"model": None, "target": "new", **arguments}
    if given["model"] is None:
        given["model"] = tiny()
    with pytest.raises(error, match=matches(message)):
        keras_mixer.push(given.pop("model"), given.pop("target"), **given)
    assert files_in(tmp_path) == ["there"]


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


def with_a_file(folder):
    (folder / "mine.txt").write_text("mine")


def of_someone_else(folder):
    (folder / "README.md").write_text("# My photos")


def without_a_model(folder):
    (folder / "model.keras").unlink()


def link_to_it(folder):
    folder.rename(folder.with_name("real"))
    folder.symlink_to(folder.with_name("real"))


@pytest.mark.parametrize(
    "change", [with_a_file, of_someone_else, without_a_model, link_to_it]
)
def test_folder_is_replaced_only_if_push_wrote_it(tmp_path, tiny, change):
    target = tmp_path / "new"
    keras_mixer.push(tiny(), target, class_names=NAMES)
    first = (target / "model.keras").read_bytes()
    keras_mixer.push(tiny(), target, overwrite=True)
    assert (target / "model.keras").read_bytes() != first
    assert "class_names.json" not in files_in(target)
    change(target)
    before = files_in(tmp_path), files_in(target)
    with pytest.raises(FileExistsError, match="so it is not replaced"):
        keras_mixer.push(tiny(), target, overwrite=True)
    assert (files_in(tmp_path), files_in(target)) == before


def test_full_disk_leaves_the_old_folder(tmp_path, tiny):
    keras_mixer.push(tiny(), tmp_path / "new")
    before = (tmp_path / "new" / "model.keras").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(OSError, match="could not be written: File too"):
            keras_mixer.push(tiny(), tmp_path / "new", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert files_in(tmp_path) == ["new"]
    assert (tmp_path / "new" / "model.keras").read_bytes() == before


@pytest.mark.parametrize(
    "library", ["huggingface_hub", "jinja2", "safetensors"]
)
def test_missing_library_names_the_extra(tmp_path, tiny, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r"pip install keras_mixer\[hub\]"):
        keras_mixer.push(tiny(), tmp_path / "new")
    assert files_in(tmp_path) == []


# The hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    hub = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    for name, value in (
        ("HF_ENDPOINT", hub.url),
        ("HF_TOKEN", TOKEN),
        ("HF_HOME", str(tmp_path / "hf")),
        ("KERAS_HOME", str(tmp_path / "keras")),
        ("no_proxy", "*"),
    ):
        monkeypatch.setenv(name, value)
    for name in ("OFFLINE", "WEIGHTS_URL"):
        monkeypatch.delenv(f"KERAS_MIXER_{name}", raising=False)
    yield hub
    hub.stop()


def test_repository_has_the_files_in_one_commit(hub, tmp_path, images, tiny):
    model = tiny(activation="relu")
    randomise(model)
    address = keras_mixer.push(model, "hf://me/tiny", private=True)
    assert address == f"{hub.url}/me/tiny"
    repository = hub.repositories["me/tiny"]
    file = tmp_path / "a.safetensors"
    file.write_bytes(repository.files["model.safetensors"])
    np.testing.assert_array_equal(
        outputs(tiny(weights=file), images), outputs(model, images)
    )
    assert repository.private
    assert repository.commits == 1
    text = repository.files["README.md"].decode()
    assert 'weights="hf://me/tiny"' in text
    assert 'hf_hub_download("me/tiny", "model.keras")' in text


def test_existing_repository_is_changed_only_if_asked(hub, tiny):
    hub.repositories["me/there"] = Repository(
        **{"notes.txt": b"mine", "config.json": b"old", "model.keras": b"old"}
    )
    with pytest.raises(FileExistsError, match="exists and contains files"):
        keras_mixer.push(tiny(), "hf://me/there")
    with pytest.raises(ValueError, match="exists and is public"):
        keras_mixer.push(tiny(), "hf://me/there", private=True, overwrite=True)
    assert hub.repositories["me/there"].commits == 0
    keras_mixer.push(tiny(), "hf://me/there", overwrite=True)
    repository = hub.repositories["me/there"]
    assert repository.commits == 1
    # The old configuration would describe another model.
    assert {*repository.files} == {
        ".gitattributes",
        "README.md",
        "model.keras",
        "model.safetensors",
        "notes.txt",
    }
    hub.repositories["me/empty"] = Repository()
    keras_mixer.push(tiny(), "hf://me/empty")
    assert hub.repositories["me/empty"].commits == 1


def test_push_without_access_explains_the_token(hub, tiny, monkeypatch):
    def refused(match):
        with pytest.raises(PermissionError, match=match):
            keras_mixer.push(tiny(), "hf://me/new")

    monkeypatch.setenv("HF_TOKEN", "hf_of_a_reader")
    refused(r"have not changed\. Log in with `hf auth login`")
    hub.refused = "/api/models/", 401
    refused(r"have not changed\. Log in with `hf auth login`")
    monkeypatch.delenv("HF_TOKEN")
    refused("`hf auth login`")
    assert hub.repositories == {}


def test_failed_upload_can_be_repeated(hub, tiny, monkeypatch):
    def fails(match):
        with pytest.raises(OSError, match=match):
            keras_mixer.push(tiny(), "hf://me/new")

    hub.refused = "/commit/", 418
    fails(r"(?s)Cannot push to 'me/new'.*have not changed\. Try again, or push")
    assert {*hub.repositories["me/new"].files} == {".gitattributes"}
    constants = "huggingface_hub.constants"
    for name, value in (
        ("HF_HUB_OFFLINE", True),
        ("ENDPOINT", "http://127.0.0.1:1"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"{constants}.{name}", value)
            fails("(?s)Cannot push to 'me/new'.*or push to a local folder")
    with monkeypatch.context() as patch:
        patch.setenv("KERAS_MIXER_OFFLINE", "1")
        fails("KERAS_MIXER_OFFLINE is set")
    hub.refused = None
    keras_mixer.push(tiny(), "hf://me/new")
    assert hub.repositories["me/new"].commits == 1
