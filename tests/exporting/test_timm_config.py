"""`config.json` is for models that timm computes in the same way."""

import json

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.exporting import timm_config
from keras_mixer.exporting.weights import config_of
from keras_mixer.layers.output_activation import output_activation
from keras_mixer.models.anatomy import inner_model
from support import peers
from support.cards import NAMES
from support.cards import blocks_of
from support.cards import header_of
from support.helpers import CLASSES
from support.helpers import IMAGE
from support.helpers import outputs
from support.helpers import random_model
from support.helpers import randomise

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
    model = change(random_model("mixer", **options))
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
    keras_mixer.push(random_model("mixer"), tmp_path / "tiny")
    text = (tmp_path / "tiny" / "README.md").read_text("utf-8")
    assert "cannot load this repository: timm has no architecture" in text
    assert "import timm" not in text


def test_ratio_of_any_width_is_exact_in_timm():
    for hidden in (10, 192, 384, 768):
        for width in range(1, 5 * hidden, 7):
            ratio = timm_config._ratio(width, hidden)
            assert int(ratio * hidden) == width
