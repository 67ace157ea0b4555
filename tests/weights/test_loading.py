"""Tests that weights files are loaded exactly or refused without changes."""

import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.models.anatomy import weights_of
from keras_mixer.weights import assigning
from keras_mixer.weights import keras_files
from keras_mixer.weights import loading
from keras_mixer.weights import naming
from keras_mixer.weights import reading
from support.helpers import CLASSES
from support.helpers import IMAGE
from support.helpers import assert_equal
from support.helpers import randomise

pytestmark = pytest.mark.backends

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
    assert (layout.name, layout.family, file.grid) == ("keras", "mixer", (2, 3))
    assert_equal(naming.rename(file.arrays, layout), arrays)


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
    ({"tokens_mlp_dim": 28}, "Only token mixing differs: the weights are"),
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


def test_failed_load_does_not_change_the_model(tiny, saved):
    _, files = saved
    model = tiny(num_blocks=3)
    before = randomise(model, seed=9)
    with pytest.raises(keras_mixer.WeightsError, match="Cannot load"):
        load_into(model, files[".keras"])
    assert_equal(weights_of(model), before)


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("these are not weights")


def without_names(path):
    def edit(h5):
        del h5["layers/mixer_block/vars"].attrs["name"]

    edit_h5(path, edit)


def holding_text(path):
    def edit(h5):
        name = "layers/mixer_block_1/token_norm/vars/0"
        del h5[name]
        h5[name] = np.array([b"text"] * 10)

    edit_h5(path, edit)


def holding_complex_numbers(path):
    def edit(h5):
        del h5["layers/conv2d/vars/1"]
        h5["layers/conv2d/vars/1"] = np.full(10, 1j, "complex64")

    edit_h5(path, edit)


def numbered_with_words(path):
    def edit(h5):
        h5["layers/conv2d/vars/zero"] = np.zeros(10, "float32")

    edit_h5(path, edit)


def with_a_layer_twice(path):
    def edit(h5):
        h5.copy("layers/conv2d", "layers/conv2d_1")

    edit_h5(path, edit)


def linked_at_the_root(path):
    def edit(h5):
        h5["elsewhere"] = h5["layers"]
        del h5["layers"]
        h5["layers"] = h5py.SoftLink("/elsewhere")

    edit_h5(path, edit)


def linked_out(path):
    def edit(h5):
        del h5["layers/conv2d/vars/0"]
        h5["layers/conv2d/vars/0"] = h5py.ExternalLink("other.h5", "/secret")

    edit_h5(path, edit)


def linked_back(path):
    def edit(h5):
        h5["layers/mixer_block/token_norm"]["again"] = h5["layers/mixer_block"]

    edit_h5(path, edit)


def stored_outside(path):
    def edit(h5):
        del h5["layers/conv2d/vars/1"]
        h5["layers/conv2d/vars"].create_dataset(
            "1", (10,), "float32", external=[("/etc/hostname", 0, 40)]
        )

    edit_h5(path, edit)


def declaring_a_terabyte(path):
    def edit(h5):
        del h5["layers/conv2d/vars/1"]
        h5["layers/conv2d/vars"].create_dataset(
            "1", (2**38,), "float32", chunks=(2**20,)
        )

    edit_h5(path, edit)


def edit_h5(path, edit):
    """Edits the HDF5 file at `path`, or the one inside the archive."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as h5:
            edit(h5)
        return
    folder = path.with_suffix("")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    with h5py.File(folder / keras_files.ARCHIVED, "r+") as h5:
        edit(h5)
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    shutil.rmtree(folder)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        emptied,
        text,
        without_names,
        holding_text,
        holding_complex_numbers,
        numbered_with_words,
        with_a_layer_twice,
        linked_at_the_root,
        linked_out,
        linked_back,
        stored_outside,
        declaring_a_terabyte,
    ],
)
def test_damaged_file_is_refused(tiny, saved, damage, suffix):
    path = saved[1][suffix]
    damage(path)
    model = tiny()
    before = randomise(model, seed=9)
    with pytest.raises(
        keras_mixer.WeightsError, match=r"^Cannot load '.*tiny.*': "
    ):
        load_into(model, path)
    assert_equal(weights_of(model), before)


def test_nested_model_is_refused(tiny, tmp_path):
    backbone = tiny(include_top=False, pooling="avg", name="backbone")
    model = keras.Sequential([backbone, keras.layers.Dense(3)])
    model.save(tmp_path / "transfer.keras")
    with pytest.raises(
        ValueError, match="it contains the model 'backbone' within"
    ):
        tiny(include_top=False, weights=tmp_path / "transfer.keras")


def test_quantised_file_is_refused(tiny, tmp_path):
    model = tiny()
    model.quantize("int8")
    model.save(tmp_path / "int8.keras")
    with pytest.raises(
        ValueError, match=r"holds int8, .*`keras.saving.load_model`"
    ):
        tiny(weights=tmp_path / "int8.keras")


def test_zip_bomb_is_refused(tiny, saved):
    path = saved[1][".keras"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(keras_files.ARCHIVED, bytes(50_000_000))
    with pytest.raises(ValueError, match="declares 50000000 bytes"):
        tiny(weights=path)
