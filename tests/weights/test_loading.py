"""Tests that weights files are loaded exactly or refused without changes."""

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.cli import converting
from keras_mixer.models.anatomy import weights_of
from keras_mixer.weights import assigning
from keras_mixer.weights import loading
from keras_mixer.weights import naming
from keras_mixer.weights import reading
from support.helpers import CLASSES
from support.helpers import IMAGE
from support.helpers import assert_equal
from support.helpers import randomise

SUFFIXES = (".weights.h5", ".keras")


@pytest.fixture
def saved(tiny, tmp_path):
    """Returns random weights, and the two files of their model by suffix."""
    model = tiny(stochastic_depth_rate=0.1, dropout_rate=0.1)
    arrays = randomise(model)
    model.save_weights(tmp_path / "tiny.weights.h5")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(tmp_path / "tiny.keras")
    files = {suffix: tmp_path / f"tiny{suffix}" for suffix in SUFFIXES}
    return arrays, files


def load_into(model, path):
    """Loads a file into an existing model, like `weights=`."""
    checkpoint = loading.open_weights(path, "mixer")
    plan = loading.plan(checkpoint, (2, 3), None)
    loading.load(checkpoint, plan, model.layers, 3)


@pytest.mark.backends
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_loads_bit_for_bit(tiny, saved, suffix):
    arrays, files = saved
    assert_equal(weights_of(tiny(weights=files[suffix])), arrays)
    assert_equal(weights_of(tiny(weights=str(files[suffix]))), arrays)


def test_loading_skips_random_initialization(tiny, saved, monkeypatch):
    """A clone of the loaded model still has random initial weights."""
    arrays, files = saved
    resmlp = keras_mixer.ResMLP(4, 2, 10, 11, 0.1, input_shape=IMAGE)
    resmlp.save_weights(files[".keras"].with_name("resmlp.weights.h5"))

    def draw(*args, **kwargs):
        raise AssertionError("drawn")

    with monkeypatch.context() as context:
        for name in ("normal", "truncated_normal", "uniform"):
            context.setattr(keras.random, name, draw)
            context.setattr(keras.src.backend.random, name, draw)
        with pytest.raises(AssertionError, match="drawn"):
            tiny()
        model = tiny(weights=files[".keras"])
        resized = keras_mixer.resize(model, (16, 24, 3))
        assert_equal(weights_of(model), arrays)
        keras_mixer.ResMLP(
            4,
            2,
            10,
            11,
            0.1,
            input_shape=IMAGE,
            weights=files[".keras"].with_name("resmlp.weights.h5"),
        )
    for loaded in (model, resized):
        for path, array in weights_of(keras.models.clone_model(loaded)).items():
            if path.endswith("kernel") and not path.startswith("predictions"):
                assert np.unique(array).size == array.size, path
    for block in (model, resized):
        mlp = block.get_layer("block_0").token_mixing
        for layer in (mlp, mlp.dense_0, mlp.dense_1):
            initializer = layer.kernel_initializer
            assert type(initializer) is keras.initializers.LecunNormal


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_top_the_head_is_not_loaded(tiny, saved, suffix):
    arrays, files = saved
    backbone = tiny(include_top=False, weights=files[suffix], classes=99)
    del arrays["predictions/kernel"], arrays["predictions/bias"]
    assert_equal(weights_of(backbone), arrays)


def test_reading_agrees_with_keras(tiny, saved):
    arrays, files = saved
    model = tiny(stochastic_depth_rate=0.1, dropout_rate=0.1)
    model.load_weights(files[".weights.h5"])
    assert_equal(weights_of(model), arrays)
    file = reading.read(files[".keras"])
    layout = naming.layout_of(file.arrays)
    assert (layout.name, layout.family) == ("keras", "mixer")
    assert file.config.grid == (2, 3)
    assert_equal(naming.rename(file.arrays, layout), arrays)


@pytest.mark.backends
def test_bfloat16_weights_keep_their_values(tiny, tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = tiny()
        randomise(model)
        expected = weights_of(model)
        model.save_weights(tmp_path / "half.weights.h5")
    finally:
        keras.config.set_dtype_policy("float32")
    assert expected["stem/kernel"].dtype == "bfloat16"
    received = weights_of(tiny(weights=tmp_path / "half.weights.h5"))
    assert_equal(
        received,
        {path: array.astype("float32") for path, array in expected.items()},
    )


# Options of a different model, and the advice in the error message.
OTHERS = [
    ({"classes": CLASSES + 1}, "Only the head differs: build the model with"),
    ({"num_blocks": 1}, "Build the same variant as the one in the file"),
    ({"num_blocks": 3}, "Build the same variant as the one in the file"),
    ({"hidden_dim": 9}, "Build the same variant as the one in the file"),
    (
        {"tokens_mlp_dim": 28},
        "in the file, its MLP is 7 wide, in this model 28. Build the model wi",
    ),
]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("options", "advice"), OTHERS)
def test_weights_of_another_model_are_refused(
    tiny, saved, suffix, options, advice
):
    _, files = saved
    with pytest.raises(ValueError, match=r"Cannot load '.*tiny") as caught:
        tiny(weights=files[suffix], **options)
    message = str(caught.value)
    assert advice in message
    assert "\n- expected " in message or "\n+ received " in message


@pytest.mark.parametrize("include_top", [True, False])
def test_file_without_a_grid_is_not_resized(tiny, saved, include_top):
    _, files = saved
    options = {"input_shape": (8, 8, 3), "include_top": include_top}
    with pytest.raises(ValueError, match="Only token mixing differs"):
        tiny(weights=files[".weights.h5"], **options)


def test_weights_without_head_are_refused_for_model_with_head(tiny, tmp_path):
    tiny(include_top=False).save_weights(tmp_path / "headless.weights.h5")
    with pytest.raises(ValueError, match="- expected predictions/kernel"):
        tiny(weights=tmp_path / "headless.weights.h5")


def test_error_shows_all_differences_by_path():
    expected = {"a": np.zeros((2, 3)), "b": np.zeros(4), "d": np.zeros(1)}
    received = {"a": np.zeros((2, 5)), "c": np.zeros(4), "d": np.zeros(1)}
    with pytest.raises(ValueError, match="Cannot load 'file'") as caught:
        assigning.assign(expected, received, "file")
    assert str(caught.value).splitlines()[1:] == [
        "- expected a (2, 3)",
        "+ received a (2, 5)",
        "- expected b (4,)",
        "+ received c (4,)",
    ]


@pytest.mark.backends
def test_failed_load_does_not_change_the_model(tiny, saved):
    _, files = saved
    model = tiny(num_blocks=3)
    before = randomise(model, seed=9)
    with pytest.raises(keras_mixer.WeightsError, match="Cannot load"):
        load_into(model, files[".keras"])
    assert_equal(weights_of(model), before)


def test_nested_model_is_refused(tiny, tmp_path):
    backbone = tiny(include_top=False, pooling="avg", name="backbone")
    model = keras.Sequential([backbone, keras.layers.Dense(3)])
    model.save(tmp_path / "transfer.keras")
    with pytest.raises(
        ValueError, match="it contains the model 'backbone' within"
    ):
        tiny(include_top=False, weights=tmp_path / "transfer.keras")


def test_quantized_file_is_refused(tiny, tmp_path):
    model = tiny()
    model.quantize("int8")
    model.save(tmp_path / "int8.keras")
    with pytest.raises(
        ValueError, match=r"holds int8, .*`keras.saving.load_model`"
    ):
        tiny(weights=tmp_path / "int8.keras")


def save(model, path):
    if path.suffix == ".keras":
        model.save(path)
    elif path.suffix == ".h5":
        model.save_weights(path)
    else:
        keras_mixer.export_weights(model, path)
    return path


ALL = (*SUFFIXES, ".npz", ".safetensors")
WIDE = (8, 24, 3)  # twice as wide as `IMAGE`


@pytest.mark.parametrize("suffix", ALL)
def test_wider_model_is_not_taken_for_a_resized_one(tiny, tmp_path, suffix):
    path = save(tiny(tokens_mlp_dim=14), tmp_path / f"wide{suffix}")
    with pytest.raises(
        keras_mixer.WeightsError,
        match=r"14 wide, in this model 7\. Build .* `tokens_mlp_dim=14`",
    ):
        tiny(weights=path)


@pytest.mark.parametrize("is_trained", [False, True])
@pytest.mark.parametrize("suffix", ALL)
def test_resized_model_is_loaded_into_its_constructor(
    tiny, tmp_path, suffix, is_trained
):
    """A `.weights.h5` file shows it only before more training."""
    small = tiny()
    randomise(small)
    large = keras_mixer.resize(small, WIDE, "tile")
    if is_trained:
        randomise(large, seed=9)
    path = save(large, tmp_path / f"large{suffix}")
    options = {"weights": path, "input_shape": WIDE}
    if is_trained and suffix == ".weights.h5":
        with pytest.raises(keras_mixer.WeightsError, match="in this model 7"):
            tiny(**options)
        options["tokens_mlp_dim"] = 14
    loaded = tiny(**options)
    assert_equal(weights_of(loaded), weights_of(large))
    # The loaded model is as good as the resized one.
    again = save(loaded, tmp_path / f"again{suffix}")
    assert_equal(
        weights_of(tiny(**{**options, "weights": again})), weights_of(large)
    )


def test_converted_file_is_still_that_of_a_resized_model(tiny, tmp_path):
    large = keras_mixer.resize(tiny(), WIDE, "tile")
    arrays = randomise(large)
    source = save(large, tmp_path / "a.keras")
    for target in ("b.npz", "c.safetensors", "d.keras", "e.npz"):
        converting.convert(source, tmp_path / target)
        source = tmp_path / target
    assert_equal(weights_of(tiny(weights=source, input_shape=WIDE)), arrays)


@pytest.mark.parametrize(
    "name", ["a.npz", "a.safetensors", "a.keras", "a.weights.h5"]
)
def test_folders_are_not_replaced(tiny, tmp_path, name):
    source = save(tiny(), tmp_path / "source.npz")
    photo = tmp_path / name / "photo.jpg"
    photo.parent.mkdir()
    photo.write_text("precious")
    with pytest.raises(IsADirectoryError, match="must be a file"):
        converting.convert(source, photo.parent)
    if name.endswith((".npz", ".safetensors")):
        with pytest.raises(IsADirectoryError, match="must be a file"):
            keras_mixer.export_weights(tiny(), photo.parent)
    assert photo.read_text() == "precious"


@pytest.mark.parametrize("scheme", ["gs", "s3", "https", "file"])
def test_addresses_are_not_paths(tiny, tmp_path, monkeypatch, scheme):
    monkeypatch.chdir(tmp_path)
    source = save(tiny(), tmp_path / "source.npz")
    address = f"{scheme}://bucket/a.npz"
    match = rf"must be a path on this machine.*='{address}'"
    for call in (
        lambda: tiny(weights=address),
        lambda: converting.convert(address, "b.npz"),
        lambda: converting.convert(source, address),
        lambda: keras_mixer.export_weights(tiny(), address),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    assert [*tmp_path.iterdir()] == [source]
