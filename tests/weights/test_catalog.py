"""Tests the table of published weights, and files with their structure."""

import hashlib
import inspect
import json
import os
import shutil

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import mixer
from keras_mixer import resmlp
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.models.anatomy import weights_of
from keras_mixer.models.constructors import MODELS
from keras_mixer.weights import catalog
from keras_mixer.weights import keras_config
from support import peers
from support import published
from support import weights_table
from support.helpers import FAMILIES
from support.helpers import ROOT
from support.helpers import assert_equal
from support.helpers import family_model
from support.helpers import python
from support.helpers import randomise

GOOGLE = [r for r in catalog.RECORDS if r.source is catalog.SOURCES["google"]]


def test_every_record_is_found():
    variants = {**mixer.VARIANTS, **resmlp.VARIANTS}
    names = [record.name for record in catalog.RECORDS]
    assert len(set(names)) == len(names) == 25
    for record in catalog.RECORDS:
        assert record.variant in variants
        assert catalog.find(record.variant, record.tag) is record
        (constructor,) = (
            name
            for name in MODELS
            if inspect.signature(MODELS[name]).parameters["name"].default
            == record.variant
        )
        assert catalog.record_of(constructor, record.tag) is record
        assert catalog.record_of(constructor, "file.npz") is None
        if record.packaged is None:
            assert record.url.startswith("https://")
            assert "{" not in record.url
        assert (record.top1 is None) == record.protocol.startswith("none")


def test_default_tags():
    defaults = {
        "mixer_b16": "imagenet",
        "mixer_l16": "imagenet",
        "mixer_b32": None,
        "mixer_s16": None,
        "mixer_h14": None,
        "resmlp_s12": "imagenet",
        "resmlp_s36": "imagenet",
        "mixer_nano": "cifar10",
        "resmlp_b24": None,
        "resmlp_b24p8": "imagenet",
    }
    for variant, tag in defaults.items():
        assert catalog.default_tag(variant) == tag
    for constructor, tag in (
        (keras_mixer.MixerB16, "imagenet"),
        (keras_mixer.MixerB32, None),
        (keras_mixer.ResMLPB24P8, "imagenet"),
        (keras_mixer.Mixer, None),
    ):
        parameters = inspect.signature(constructor).parameters
        assert parameters["weights"].default == tag


def test_packaged_file_matches_its_record():
    (record,) = keras_mixer.list_weights("mixer_nano.*")
    content = record.packaged.read_bytes()
    assert len(content) == record.size < 4_000_000
    assert hashlib.sha256(content).hexdigest() == record.sha256


def test_list_weights_takes_patterns():
    names = [record.name for record in keras_mixer.list_weights("*_b32.*")]
    assert names == ["mixer_b32.imagenet_sam", "mixer_b32.imagenet_gsam"]
    assert keras_mixer.list_weights("nothing") == []
    assert len(keras_mixer.list_weights()) == len(catalog.RECORDS)


def test_readme_has_the_table_of_weights():
    assert weights_table.table() in (ROOT / "README.md").read_text(), (
        "run `PYTHONPATH=tests python -m support.weights_table` and put its "
        "table into README.md"
    )


def test_sizes_add_up_to_the_total_of_the_bucket():
    """A folder marker of 6 bytes is subtracted from the total."""
    assert sum(record.size for record in GOOGLE) == 3_489_219_014 - 6


@pytest.mark.parametrize("record", GOOGLE, ids=lambda record: record.name)
def test_sizes_follow_from_the_tensors(record):
    """The size includes zip headers, and a NumPy header for each array."""
    total = 22
    for name, shape in published.official_shapes(record).items():
        total += 4 * int(np.prod(shape)) + 128
        total += 30 + 46 + 2 * len(f"{name}.npy")
        # Files since June 2021 use zip64.
        total += 20 if "sam" in record.tag else 0
    assert record.size == total


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def offline(home, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.setenv("KERAS_MIXER_OFFLINE", "1")
    return home


@pytest.fixture(scope="module")
def sam(home):
    """Puts a file with the structure of sam/Mixer-B_16.npz into the cache."""
    return published.put_into(home, "mixer_b16.imagenet_sam")


def test_npz_file_has_the_exact_size_and_loads(offline, sam):
    file = offline / "models" / "keras_mixer" / "sam" / "Mixer-B_16.npz"
    assert file.stat().st_size == 239_567_448
    model = keras_mixer.MixerB16(weights="imagenet_sam", name="anything")
    assert_equal(weights_of(model), published.as_ours(sam))
    assert model.get_layer("block_0").activation is gelu_tanh
    scaling = model.get_layer("preprocessing")
    assert (scaling.scale, scaling.offset) == (1 / 127.5, -1)


def test_weights_load_for_other_resolutions_and_channels(offline, sam):
    options = {"weights": "imagenet_sam", "include_top": False}
    options["pooling"] = "avg"
    for shape, tokens_mlp in (
        ((448, 448, 3), 4 * 384),
        ((384, 640, 3), 384),
        ((160, 160, 1), 384),
    ):
        model = keras_mixer.MixerB16(input_shape=shape, **options)
        assert model.get_layer("block_0").tokens_mlp_dim == tokens_mlp
        image = np.full((1, *shape), 100, "uint8")
        assert np.isfinite(keras.ops.convert_to_numpy(model(image))).all()


def test_model_sizes_select_the_checkpoint(offline, sam):
    b16 = keras_mixer.Mixer(
        16, 12, 768, 384, 3072, weights="imagenet_sam", name="mixer_s32"
    )
    assert_equal(weights_of(b16), published.as_ours(sam))
    with pytest.raises(ValueError, match="argument should be either `None`"):
        keras_mixer.Mixer(
            16, 12, 768, 384, 3000, weights="imagenet_sam", name="mixer_b16"
        )


def test_missing_file_is_reported_offline(offline):
    with pytest.raises(keras_mixer.DownloadError) as caught:
        keras_mixer.MixerB16()
    message = str(caught.value)
    assert "KERAS_MIXER_OFFLINE is set" in message
    assert str(offline / "models/keras_mixer/imagenet1k/Mixer-B_16.npz") in (
        message
    )
    with pytest.raises(keras_mixer.DownloadError, match="resmlp_12_224"):
        keras_mixer.ResMLPS12()


def test_weights_set_activation_and_pixel_range(offline, tmp_path):
    """The weights of MIIL need exact GELU and pixels in [0, 1]."""
    import torch
    from safetensors.torch import save_file

    timm = peers.import_timm()
    theirs = timm.create_model("mixer_b16_224.miil_in21k_ft_in1k", False).eval()
    generator = torch.Generator().manual_seed(3)
    torch.nn.init.normal_(theirs.head.weight, 0, 0.03, generator)
    (record,) = keras_mixer.list_weights("mixer_b16.imagenet_miil")
    file = offline / "models" / "keras_mixer" / record.file
    file.parent.mkdir(parents=True)
    save_file(theirs.state_dict(), file)
    model = keras_mixer.MixerB16(
        weights="imagenet_miil", classifier_activation=None
    )
    assert model.get_layer("block_0").activation is keras.activations.gelu
    images = np.random.default_rng(3).integers(0, 256, (2, 224, 224, 3))
    with torch.no_grad():
        scaled = torch.tensor(images.transpose(0, 3, 1, 2) / 255).float()
        expected = theirs(scaled).numpy()
    received = model.predict(images, verbose=0)
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-4)
    again = keras_mixer.MixerB16(
        weights="hf://timm/mixer_b16_224.miil_in21k_ft_in1k",
        classifier_activation=None,
    )
    np.testing.assert_array_equal(again.predict(images, verbose=0), received)


def test_hub_config_sets_the_pixel_range(offline, tiny, tmp_path):
    """The repository has timm's `config.json`."""
    model = tiny(include_top=False, input_shape=(8, 8, 3))
    folder = offline / "models" / "keras_mixer" / "someone" / "tiny"
    folder.mkdir(parents=True)
    keras_mixer.export_weights(model, folder / "model.safetensors")
    options = {"weights": "hf://someone/tiny", "input_shape": (8, 8, 3)}
    options["include_top"] = False
    for text, mean in (
        ("[1, 2]", 0.5),
        (json.dumps({"pretrained_cfg": {"mean": [0.1] * 3}}), 0.5),
        (json.dumps({"mean": [0.1] * 3, "std": [0, 1, 1]}), 0.5),
        (json.dumps({"mean": [0.1] * 3, "std": [0.5] * 3}), 0.1),
        (
            json.dumps({"pretrained_cfg": {"mean": [0.2] * 3, "std": [1] * 3}}),
            0.2,
        ),
    ):
        (folder / "config.json").write_text(text)
        scaling = tiny(**options).get_layer("preprocessing")
        assert scaling.offset / scaling.scale / -255 == pytest.approx(mean)


@pytest.mark.parametrize("family", FAMILIES)
def test_repository_that_keras_wrote_is_read(offline, family):
    """`model.save("hf://...")` uploads the files of `zipped=False`."""
    weights = f"hf://someone/{family}"
    folder = offline / "models" / "keras_mixer" / "someone" / family
    model = family_model(family, activation="relu")
    randomise(model)
    model.compile("adam", "sparse_categorical_crossentropy")
    keras.saving.save_model(model, folder, zipped=False)
    assert {"config.json", "model.weights.h5"} <= {*os.listdir(folder)}
    images = np.random.default_rng(3).uniform(0, 255, (7, 8, 12, 3))
    loaded = family_model(family, weights=weights)
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0)
    )
    options = {"input_shape": (8, 24, 3), "weights": weights}
    wider = family_model(family, **options)  # the grid is only in config.json
    resized = keras_mixer.resize(model, (8, 24, 3))
    assert_equal(weights_of(wider), weights_of(resized))
    (folder / "config.json").unlink()
    assert family_model(family, weights=weights)
    config = folder / "config.json"
    with config.open("wb") as file:
        file.truncate(keras_config.MAX_BYTES + 1)
    with pytest.raises(keras_mixer.WeightsError, match="bytes are allowed"):
        family_model(family, weights=weights)


LOAD_LARGEST = """
import pathlib
import keras
import keras_mixer
keras.ops.convert_to_numpy(keras.ops.ones(3) * 2)

def peak():
    # `ru_maxrss` is inherited from the parent process, so it is not used.
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])

before = peak()
keras_mixer.MixerL16(weights="imagenet21k", classes=21843)
print(peak() - before)
"""


@pytest.mark.nightly
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_loading_the_largest_file_needs_at_most_2_2_times_its_size(
    offline, backend
):
    """The memory of the backend itself is not counted."""
    (record,) = keras_mixer.list_weights("mixer_l16.imagenet21k")
    file = offline / "models" / "keras_mixer" / record.file
    if not file.exists():
        published.write(record, file)
    assert file.stat().st_size == record.size
    taken = int(python(LOAD_LARGEST, backend=backend).split()[-1])
    assert taken < 2.2 * record.size
