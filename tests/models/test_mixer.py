"""Whole models: comparison with the oracle and timm, and signatures."""

import inspect
import math
import re

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import mixer
from keras_mixer import resmlp
from support import goldens
from support import oracle
from support import peers
from support.helpers import BATCH
from support.helpers import CLASSES
from support.helpers import IMAGE
from support.helpers import SIZES
from support.helpers import call
from support.helpers import randomise

# Published: `vit_jax/models_test.py` of google-research/vision_transformer has
# B/16, B/32 and L/16; the others follow from table 1 of the paper.
PARAMETERS = {
    "mixer_s32": 19_104_624,
    "mixer_s16": 18_528_264,
    "mixer_s8": 20_646_504,
    "mixer_b32": 60_293_428,
    "mixer_b16": 59_880_472,
    "mixer_l32": 206_939_264,
    "mixer_l16": 208_196_168,
    "mixer_h14": 432_350_952,
    "mixer_nano": 605_834,  # counted here
    # Of `resmlp_models.py` in facebookresearch/deit and of timm.
    "resmlp_s12": 15_350_872,
    "resmlp_s24": 30_020_680,
    "resmlp_s36": 44_690_488,
    "resmlp_b24": 115_736_776,
    "resmlp_b24p8": 129_138_280,
}


def test_every_variant_is_tested():
    variants = {**mixer.VARIANTS, **resmlp.VARIANTS}
    assert set(PARAMETERS) == set(goldens.CONSTRUCTORS) == set(variants)
    public = {n for n in dir(keras_mixer) if re.match("(Mixer|ResMLP)[A-Z]", n)}
    public -= {"MixerBlock", "ResMLPBlock"}
    assert {c.__name__ for c in goldens.CONSTRUCTORS.values()} == public


@pytest.mark.parametrize("name", PARAMETERS)
def test_variant_has_the_published_size_and_the_golden_weights(name):
    model = goldens.build(name)
    assert model.name == name
    assert model.count_params() == PARAMETERS[name]
    assert goldens.shapes_of(model) == goldens.load()[name], (
        "Saved files would no longer load. If that is meant, run "
        "`PYTHONPATH=tests python -m support.goldens`, and say so in "
        "CHANGELOG.md."
    )


def test_number_of_parameters_with_21843_classes():
    shapes = dict(goldens.load()["mixer_b16"])
    shapes["predictions/kernel"] = [768, 21843]
    shapes["predictions/bias"] = [21843]
    expected = {path: tuple(shape) for path, shape in shapes.items()}
    model = goldens.build("mixer_b16", classes=21843)
    assert model.count_params() == 75_908_739
    assert sum(math.prod(shape) for shape in expected.values()) == 75_908_739


@pytest.mark.parametrize("constructor", list(goldens.CONSTRUCTORS.values()))
def test_variant_has_the_signature_of_keras_applications(constructor):
    ours = inspect.signature(constructor).parameters
    theirs = inspect.signature(keras.applications.ConvNeXtTiny).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    own = {"name", "weights"}
    if constructor is keras_mixer.MixerNano:
        own.add("classes")  # ten
    for name in theirs.keys() - own:
        assert ours[name].default == theirs[name].default, name
    documentation = inspect.getdoc(constructor)
    for name in ours:
        assert f"\n    {name}: " in documentation, name


@pytest.mark.backends
def test_every_stage_equals_the_oracle(tiny, images):
    model = tiny(classifier_activation=None)
    weights = randomise(model)
    weights = {path: array.astype("float64") for path, array in weights.items()}
    expected = oracle.mixer(images, weights, SIZES["patch_size"])
    stages = keras.Model(
        model.input, {name: model.get_layer(name).output for name in expected}
    )
    received = call(stages, images)
    assert expected["block_1"].shape == (BATCH, 6, SIZES["hidden_dim"])
    for name, stage in expected.items():
        np.testing.assert_allclose(
            received[name], stage, rtol=0, atol=1e-5, err_msg=name
        )


def test_probabilities_are_the_softmax_of_the_logits(tiny, images):
    model = tiny()
    weights = randomise(model)
    logits = oracle.mixer(images, weights, SIZES["patch_size"])
    exponents = np.exp(logits["predictions"])
    np.testing.assert_allclose(
        call(model, images),
        exponents / exponents.sum(-1, keepdims=True),
        atol=1e-5,
    )


def test_tiny_model_equals_timm(tiny, images):
    import torch

    peers.import_timm()
    from timm.models.mlp_mixer import MlpMixer

    model = tiny(classifier_activation=None, activation="gelu", hidden_dim=20)
    theirs = MlpMixer(
        num_classes=CLASSES,
        img_size=IMAGE[:2],
        patch_size=SIZES["patch_size"],
        num_blocks=SIZES["num_blocks"],
        embed_dim=20,
        mlp_ratio=(SIZES["tokens_mlp_dim"] / 20, 11 / 20),
    )
    peers.load_into_timm(theirs, randomise(model), SIZES["num_blocks"])
    scaled = torch.tensor((images / 127.5 - 1).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        expected = theirs(scaled).numpy()
    received = call(model, images)
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-4)


def test_initial_values_equal_the_official_code(tiny):
    model = tiny(hidden_dim=400)
    stem = model.get_layer("stem").kernel.numpy()
    assert stem.std() == pytest.approx((4 * 4 * 3) ** -0.5, rel=0.02)
    head = model.get_layer("predictions")
    assert not head.kernel.numpy().any()
    assert not head.bias.numpy().any()
    norm = model.get_layer("norm")
    assert norm.epsilon == model.get_layer("block_0").token_norm.epsilon == 1e-6


def test_stochastic_depth_grows_linearly_from_zero(tiny):
    model = tiny(num_blocks=5, stochastic_depth_rate=0.4)
    rates = [
        model.get_layer(f"block_{i}").stochastic_depth.rate for i in range(5)
    ]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4])
    single = tiny(num_blocks=1, stochastic_depth_rate=0.4)
    assert single.get_layer("block_0").stochastic_depth.rate == 0


def test_variant_accepts_positional_arguments_and_reports_unknown_ones():
    model = keras_mixer.MixerS32(False, False, None, None, (32, 64, 3), "max")
    assert model.output_shape == (None, 512)
    with pytest.raises(
        TypeError, match=r"^MixerS32\(\) got an unexpected .*cla"
    ):
        keras_mixer.MixerS32(clases=3)
