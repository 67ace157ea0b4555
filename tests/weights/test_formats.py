"""Tests reading and writing the file formats of other libraries."""

import os
import pathlib
import re
import zipfile

import keras
import numpy as np
import pytest
import torch

import keras_mixer
from keras_mixer.cli import converting
from keras_mixer.models.anatomy import weights_of
from keras_mixer.weights import naming
from keras_mixer.weights import reading
from support import oracle
from support import peers
from support.helpers import CLASSES
from support.helpers import IMAGE
from support.helpers import SIZES
from support.helpers import assert_equal
from support.helpers import randomise
from support.layouts import as_ours
from support.layouts import as_timm
from support.published import official


def timm_model(name):
    """Returns a timm model with random parameters, and our constructor."""
    timm = peers.import_timm()
    from timm.models import mlp_mixer

    options = {"num_classes": CLASSES, "img_size": IMAGE[:2], "patch_size": 4}
    if name == "mixer_b16_224":
        model, ours = timm.create_model(name), keras_mixer.MixerB16
    elif name == "resmlp_12_224":
        model, ours = timm.create_model(name), keras_mixer.ResMLPS12
    elif name == "like mixer_l16_224":
        # A small L/16: tokens 32 -> 16 and channels 32 -> 128, 24 blocks.
        model = mlp_mixer.MlpMixer(num_blocks=24, embed_dim=32, **options)
        ours = small(keras_mixer.Mixer, 4, 24, 32, 16, 128)
    else:
        # A small ResMLP, with the depth in its name.
        num_blocks = int(re.search(r"_(\d+)_224", name)[1])
        model = mlp_mixer.MlpMixer(
            num_blocks=num_blocks,
            embed_dim=20,
            mlp_ratio=4,
            block_layer=mlp_mixer.ResBlock,
            norm_layer=mlp_mixer.Affine,
            **options,
        )
        ours = small(keras_mixer.ResMLP, 4, num_blocks, 20, 80, 1e-6)
    generator = torch.Generator().manual_seed(5)
    for key, value in model.state_dict().items():
        array = torch.randn(value.shape, generator=generator)
        if key.endswith("weight") and value.ndim > 1:
            array *= value[0].numel() ** -0.5
        else:
            array = 0.1 * array + key.endswith(("alpha", "weight"))
        value.copy_(array)
    return model.eval(), ours


def small(constructor, *sizes):
    def build(**options):
        return constructor(
            *sizes, input_shape=IMAGE, **{"classes": CLASSES, **options}
        )

    return build


def logits(model, images, mean, std):
    scaled = (images / 255 - np.array(mean)) / np.array(std)
    with torch.no_grad():
        tensor = torch.tensor(scaled.transpose(0, 3, 1, 2)).float()
        return model(tensor).numpy()


@pytest.mark.parametrize(
    "name",
    [
        "resmlp_12_224",
        "like mixer_l16_224",
        "like resmlp_36_224",
    ],
)
def test_timm_files_give_the_same_logits_as_timm(name, tmp_path):
    from safetensors.torch import save_file

    theirs, constructor = timm_model(name)
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    model = constructor(
        weights=tmp_path / "timm.safetensors", classifier_activation=None
    )
    images = np.random.default_rng(3).integers(
        0, 256, (2, *model.input.shape[1:])
    )
    mean_and_std = ((0.5,), (0.5,))
    if "resmlp" in name:
        mean_and_std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    expected = logits(theirs, images, *mean_and_std)
    assert expected.std() > 0.1
    received = keras.ops.convert_to_numpy(model(images.astype("uint8")))
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-4)
    pickled = constructor(weights=tmp_path / "timm.pth")
    assert_equal(weights_of(pickled), weights_of(model))


def test_resmlp_files_of_the_authors_are_read(tmp_path):
    """timm's own filter is the reference for the names."""
    theirs, constructor = timm_model("like resmlp_big_24_224")
    from timm.models.mlp_mixer import checkpoint_filter_fn

    state = {}
    for key, value in theirs.state_dict().items():
        for timm, facebook in (
            ("stem.", "patch_embed."),
            ("linear_tokens.", "attn."),
            ("mlp_channels.", "mlp."),
            (".ls", ".gamma_"),
        ):
            key = key.replace(timm, facebook)
        vector = key.endswith(("alpha", "beta"))
        state[key] = value.reshape(-1) if vector else value
    filtered = checkpoint_filter_fn(dict(state), theirs)
    theirs.load_state_dict(filtered, strict=True)
    torch.save(state, tmp_path / "resmlp.pth")
    assert "blocks.23.gamma_2" in state
    model = constructor(
        weights=tmp_path / "resmlp.pth", classifier_activation=None
    )
    images = np.random.default_rng(4).uniform(0, 255, (7, *IMAGE))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model(images)),
        logits(theirs, images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        rtol=0,
        atol=1e-4,
    )


def other_ports():
    """Returns `{port: {timm's name: its name}}`, by replacing parts of names.

    jeonsworld/MLP-Mixer-Pytorch, d-li14/mlp-mixer.pytorch, mlp_mixer of
    OpenMMLab and of PaddleClas.
    """
    yield (
        "jeonsworld",
        (
            *(
                ("stem.proj", "stem"),
                ("blocks.", "layer."),
                ("norm1", "pre_norm"),
            ),
            *(("norm2", "post_norm"), ("mlp_tokens.fc", "token_mlp_block.fc")),
            *(
                ("mlp_channels.fc", "channel_mlp_block.fc"),
                ("norm.", "pre_head."),
            ),
        ),
    )
    yield (
        "d-li14",
        (
            *(
                ("stem.proj", "patch_emb"),
                ("blocks.", "mlp."),
                ("norm1", "ln_t"),
            ),
            *(("norm2", "ln_channel"), ("mlp_tokens.fc", "token_mix.mlp.")),
            *(("mlp_channels.fc", "channel_mix.mlp."), ("head", "fc")),
        ),
    )
    yield (
        "OpenMMLab",
        (
            *(("stem.proj", "backbone.patch_embed.projection"), ("norm", "ln")),
            *(("blocks.", "backbone.layers."), ("head", "head.fc")),
            *(("mlp_tokens.fc1", "token_mix.layers.0.0"), ("fc2", "layers.1")),
        ),
    )
    yield (
        "PaddleClas",
        (
            *(("stem.proj", "patch_embed.proj"), ("blocks.", "mixer_layers.")),
            *(
                ("norm1", "norm_0"),
                ("norm2", "norm_1"),
                ("mlp_tokens.", "tok."),
            ),
        ),
    )


def other_models():
    """Yields names and state dicts of whole files of other models."""
    state = as_timm(official(tokens=4))
    for port, parts in other_ports():
        renamed = {}
        for name, array in state.items():
            for timm, theirs in parts:
                name = name.replace(timm, theirs)
            renamed[name] = array
        yield port, renamed
    gmlp, gmixer = {}, {}
    for name, array in state.items():
        if "mlp_tokens" in name:
            gate = name.replace("mlp_tokens.fc", "mlp_channels.gate.")
            gmlp[gate] = array
        else:
            gmlp[name.replace("norm1", "norm")] = array
        is_doubled = "fc1" in name  # a gated MLP
        gmixer[name] = np.concatenate([array, array]) if is_doubled else array
    yield "gMLP of timm", gmlp
    yield "gMixer of timm", gmixer


@pytest.mark.parametrize(
    ("port", "state"), [*other_models()], ids=lambda value: str(value)[:14]
)
def test_whole_files_of_other_models_are_not_called_damaged(
    tmp_path, tiny, port, state
):
    path = tmp_path / "other.pth"
    torch.save({k: torch.tensor(v.copy()) for k, v in state.items()}, path)
    with pytest.raises(
        keras_mixer.WeightsError, match="a file of another model"
    ) as caught:
        tiny(input_shape=(8, 8, 3), weights=path)
    message = str(caught.value)
    assert "damaged" not in message
    if port != "gMixer of timm":  # which has all of the names
        assert "its names begin with '" in message
        assert "expected names such as '" in message


@pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".npz", ".safetensors"])
def test_content_of_another_library_is_not_called_damaged(
    tmp_path, tiny, suffix
):
    """The start of a checkpoint of MindSpore, which is a protocol buffer."""
    path = tmp_path / f"mixer{suffix}"
    path.write_bytes(b"\n8\n\x0bstem.weight\x12)\n\x04" + bytes(range(200)))
    with pytest.raises(
        keras_mixer.WeightsError, match=f"not that of a {suffix} file. It is a"
    ):
        tiny(weights=path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other.keras", "a file of another model or library.*'conv2d/0'"),
        ("other.weights.h5", "a file of another model or library.*'conv2d/0'"),
        ("other.h5", "not written by `save_weights` of Keras 3"),
    ],
)
def test_other_files_of_keras_are_not_called_damaged(
    tmp_path, tiny, name, message
):
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv2d")]
    model = keras.Sequential([*layers, keras.layers.Dense(5, name="dense")])
    path = tmp_path / name
    if name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    with pytest.raises(keras_mixer.WeightsError, match=message) as caught:
        tiny(weights=path)
    assert "damaged" not in str(caught.value)


def before_linen(arrays):
    """Converts names to the old layout, which big_vision still reads."""
    old = {}
    for name, array in arrays.items():
        name = name.replace("MixerBlock_", "Mixer/encoderblock_")
        name = name.replace("pre_head_layer_norm", "Mixer/encoder_norm")
        name = name.replace("stem/", "embedding/")
        for i in (0, 1):
            for variable in ("kernel", "bias"):
                name = name.replace(
                    f"mixing/Dense_{i}/{variable}",
                    f"mixing_phase_0/{variable}{i + 1}",
                )
        if "phase_0" in name and array.ndim == 2:
            array = array[None]
        old[name] = array
    return old


@pytest.mark.parametrize("layout", [dict, before_linen])
def test_official_files_give_the_same_logits_as_the_oracle(
    layout, tmp_path, images
):
    square = images[:, :, :8]
    arrays = official(tokens=4)
    np.savez(tmp_path / "Mixer.npz", **layout(arrays))
    model = keras_mixer.Mixer(
        **SIZES,
        input_shape=(8, 8, 3),
        classes=CLASSES,
        classifier_activation=None,
        weights=tmp_path / "Mixer.npz",
    )
    assert_equal(weights_of(model), as_ours(arrays))
    weights = {k: v.astype("float64") for k, v in as_ours(arrays).items()}
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model(square)),
        oracle.mixer(square, weights, 4)["predictions"],
        atol=1e-5,
    )


@pytest.mark.backends
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float16", 0), ("bfloat16", 0), ("float64", 1e-7)]
)
def test_all_float_dtypes_are_read(tmp_path, dtype, tolerance):
    import ml_dtypes

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    arrays = {k: v.astype(kind) for k, v in official(tokens=4).items()}
    np.savez(tmp_path / "Mixer.npz", **arrays)  # bfloat16 becomes "|V2"
    tensors = {
        k: torch.tensor(v.astype("float64")).to(getattr(torch, dtype))
        for k, v in as_timm(arrays).items()
    }
    torch.save(tensors, tmp_path / "Mixer.pth")
    from safetensors.torch import save_file

    contiguous = {k: v.contiguous() for k, v in tensors.items()}
    save_file(contiguous, tmp_path / "Mixer.safetensors")
    for suffix in (".npz", ".pth", ".safetensors"):
        model = keras_mixer.Mixer(
            **SIZES,
            input_shape=(8, 8, 3),
            classes=CLASSES,
            weights=tmp_path / f"Mixer{suffix}",
        )
        for path, array in as_ours(arrays).items():
            np.testing.assert_allclose(
                weights_of(model)[path],
                array.astype("float32"),
                atol=tolerance,
                err_msg=path,
            )


def files_of_every_format(folder):
    """Returns weights by path, and files of all formats with them."""
    from safetensors.torch import save_file

    arrays = official(tokens=4)
    np.savez(folder / "a.npz", **arrays)
    state = {
        name: torch.tensor(array).contiguous()
        for name, array in as_timm(arrays).items()
    }
    save_file(state, folder / "a.safetensors")
    torch.save(state, folder / "a.pth")
    torch.save(
        state, folder / "legacy.pth", _use_new_zipfile_serialization=False
    )
    model = keras_mixer.Mixer(
        **SIZES,
        input_shape=(8, 8, 3),
        classes=CLASSES,
        weights=folder / "a.npz",
    )
    model.save_weights(folder / "a.weights.h5")
    model.save(folder / "a.keras")
    return as_ours(arrays), sorted(folder.iterdir())


@pytest.mark.parametrize(
    "name", ["model_best.pth.tar", "checkpoint_100", "weights", "a.b.data"]
)
def test_format_is_detected_from_content(tmp_path, tiny, name):
    expected, paths = files_of_every_format(tmp_path)
    assert len(paths) == 6
    for path in paths:
        if name.endswith(".pth.tar") and path.suffix != ".pth":
            continue
        renamed = path.rename(tmp_path / name)
        model = tiny(input_shape=(8, 8, 3), weights=str(renamed))
        assert_equal(weights_of(model), expected)


def test_wrong_suffix_is_reported(tmp_path, tiny):
    _, paths = files_of_every_format(tmp_path)
    for path in paths:
        other = ".npz" if path.suffix != ".npz" else ".safetensors"
        renamed = path.rename(tmp_path / f"other{other}")
        suffix = ".weights.h5" if path.suffix == ".h5" else path.suffix
        with pytest.raises(
            keras_mixer.WeightsError,
            match=rf"Its content is that of a {re.escape(suffix)} file: rename",
        ):
            tiny(input_shape=(8, 8, 3), weights=renamed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"these are not weights", "its content does not have one of these"),
        (b"", "its content does not have one of these"),
        (b"PK\x05\x06" + bytes(18), "does not have one of these formats"),
        # {"params": {}, "opt": {}} in MessagePack.
        (b"\x82\xa6params\x80\xa3opt\x80", "flax.serialization.msgpack_rest"),
    ],
)
def test_unknown_content_is_refused(tmp_path, tiny, content, message):
    path = tmp_path / "checkpoint_100"
    path.write_bytes(content)
    with pytest.raises(keras_mixer.WeightsError, match=message):
        tiny(weights=path)


@pytest.mark.parametrize("layout", [dict, before_linen])
def test_only_params_of_jax_checkpoint_are_read(tmp_path, tiny, caplog, layout):
    """Checkpoints of big_vision have `params/` and optimizer state."""
    import ml_dtypes

    arrays = official(tokens=4)
    params = {f"params/{k}": v for k, v in layout(arrays).items()}
    others = {
        f"opt/0/momentum/{name}": array.astype(ml_dtypes.bfloat16)
        for name, array in arrays.items()
    }
    others |= {"opt/1/count": np.int32(7), "extra/step": np.int64(7)}
    for more in ({}, others):
        path = tmp_path / "checkpoint.npz"
        np.savez(path, **params, **more)
        caplog.clear()
        with caplog.at_level("INFO", "keras_mixer"):
            model = tiny(input_shape=(8, 8, 3), weights=path)
        assert_equal(weights_of(model), as_ours(arrays))
        message = f"{path}: only the weights in 'params/' are used"
        taken = [message] if more else []
        removed = f"{path}: prefix 'params/' removed from the names"
        assert caplog.messages == [*taken, removed]


def families():
    yield keras_mixer.Mixer, tuple(SIZES.values()), (".npz", ".safetensors")
    yield keras_mixer.ResMLP, (4, 2, 10, 11, 0.1), (".safetensors",)


@pytest.mark.backends
@pytest.mark.parametrize(
    ("constructor", "sizes", "suffix"),
    [(c, s, suffix) for c, s, x in families() for suffix in x],
)
@pytest.mark.parametrize("include_top", [True, False])
def test_export_and_load_is_bit_identical(
    tmp_path, constructor, sizes, suffix, include_top
):
    options = {
        "input_shape": IMAGE,
        "classes": CLASSES,
        "include_top": include_top,
    }
    model = constructor(*sizes, **options)
    arrays = randomise(model)
    file = tmp_path / f"exported{suffix}"
    keras_mixer.export_weights(model, file)
    loaded = constructor(*sizes, **options, weights=file)
    assert_equal(weights_of(loaded), arrays)
    again = tmp_path / f"again{suffix}"
    keras_mixer.export_weights(loaded, str(again))
    first, second = reading.read(file), reading.read(again)
    assert first.config == second.config
    assert first.config.grid == (2, 3)
    assert_equal(second.arrays, first.arrays)


def test_exported_npz_has_the_official_names_and_bits(tmp_path, tiny):
    arrays = official(tokens=4)
    np.savez(tmp_path / "official.npz", **arrays)
    model = tiny(input_shape=(8, 8, 3), weights=tmp_path / "official.npz")
    keras_mixer.export_weights(model, tmp_path / "ours.npz")
    with np.load(tmp_path / "ours.npz") as exported:
        assert_equal(dict(exported), arrays)


@pytest.mark.parametrize(
    "name", ["like mixer_l16_224", "like resmlp_big_24_224"]
)
def test_timm_loads_exported_files(tmp_path, name):
    from safetensors.torch import load_file

    theirs, constructor = timm_model(name)
    model = constructor(classifier_activation=None, activation="gelu")
    randomise(model, seed=8)
    keras_mixer.export_weights(model, tmp_path / "ours.safetensors")
    theirs.load_state_dict(
        load_file(tmp_path / "ours.safetensors"), strict=True
    )
    images = np.random.default_rng(4).uniform(0, 255, (7, *IMAGE))
    mean_and_std = ((0.5,), (0.5,))
    if "resmlp" in name:
        mean_and_std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model(images)),
        logits(theirs, images, *mean_and_std),
        rtol=0,
        atol=1e-4,
    )


def test_exported_file_stores_a_grid_that_is_not_square(tmp_path, tiny):
    """The number of tokens is not enough: 2 x 8 equals 4 x 4."""
    model = tiny(input_shape=(8, 32, 3))
    arrays = randomise(model)
    for suffix in (".npz", ".safetensors"):
        file = tmp_path / f"wide{suffix}"
        keras_mixer.export_weights(model, file)
        same = tiny(input_shape=(8, 32, 3), weights=file, resize=None)
        assert_equal(weights_of(same), arrays)
        with pytest.raises(ValueError, match="are for 2 x 8 tokens, the mod"):
            tiny(input_shape=(16, 16, 3), weights=file, resize=None)
        taller = tiny(input_shape=(16, 32, 3), weights=file)
        expected = keras_mixer.resize(model, (16, 32, 3), "tile")
        assert_equal(weights_of(taller), weights_of(expected))


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_stem_is_adapted_to_other_channels_like_timm(tmp_path, tiny, channels):
    peers.import_timm()
    from timm.models import adapt_input_conv

    arrays = official(tokens=4)
    np.savez(tmp_path / "Mixer.npz", **arrays)
    model = tiny(input_shape=(8, 8, channels), weights=tmp_path / "Mixer.npz")
    kernel = arrays["stem/kernel"].transpose(3, 2, 0, 1)
    expected = adapt_input_conv(channels, torch.tensor(kernel)).numpy()
    np.testing.assert_allclose(
        weights_of(model)["stem/kernel"],
        expected.transpose(2, 3, 1, 0),
        rtol=1e-6,
        atol=1e-7,
    )


def test_stem_for_one_channel_is_not_adapted(tmp_path, tiny):
    model = tiny(input_shape=(8, 8, 1))
    keras_mixer.export_weights(model, tmp_path / "grey.npz")
    with pytest.raises(keras_mixer.WeightsError, match="expected stem/kernel"):
        tiny(input_shape=(8, 8, 3), weights=tmp_path / "grey.npz")


def test_weights_of_the_other_family_are_refused(tmp_path, tiny):
    model = keras_mixer.ResMLP(4, 2, 10, 11, 0.1, input_shape=IMAGE)
    for suffix in (".safetensors", ".weights.h5"):
        file = tmp_path / f"resmlp{suffix}"
        if suffix == ".safetensors":
            keras_mixer.export_weights(model, file)
        else:
            model.save_weights(file)
        with pytest.raises(
            keras_mixer.WeightsError,
            match=r"'mixer'\. Received: weights of the",
        ):
            tiny(weights=file)


@pytest.mark.parametrize("suffix", [".safetensors", ".keras", ".weights.h5"])
def test_resmlp_with_one_channel_is_loaded(tmp_path, suffix):
    options = {"input_shape": IMAGE, "classes": CLASSES}
    model = keras_mixer.ResMLP(4, 2, 1, 11, 0.1, **options)
    arrays = randomise(model)
    file = tmp_path / f"narrow{suffix}"
    if suffix == ".safetensors":
        keras_mixer.export_weights(model, file)
    elif suffix == ".keras":
        model.save(file)
    else:
        model.save_weights(file)
    loaded = keras_mixer.ResMLP(4, 2, 1, 11, 0.1, **options, weights=file)
    assert_equal(weights_of(loaded), arrays)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("block_1/token_norm/gamma", "two names in it stand for the same"),
        ("MixerBlock_{}/LayerNorm_0/scale", "begin with 'MixerBlock_{}/Layer"),
        ("MixerBlock_01/LayerNorm_0/scale", "do not form one complete model"),
        ("optimizer/step", "begin with 'optimizer/step', expected names such"),
    ],
)
def test_unexpected_names_are_refused(tmp_path, tiny, name, message):
    arrays = official(tokens=4)
    arrays[name] = np.zeros(10, "float32")
    np.savez(tmp_path / "Mixer.npz", **arrays)
    with pytest.raises(keras_mixer.WeightsError, match=message):
        tiny(input_shape=(8, 8, 3), weights=tmp_path / "Mixer.npz")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_written_files_respect_the_umask(tmp_path, tiny, umask, mode):
    model = tiny(input_shape=(8, 8, 3))
    before = os.umask(umask)
    try:
        for suffix in (".npz", ".safetensors"):
            exported = tmp_path / f"exported{suffix}"
            keras_mixer.export_weights(model, exported)
            keras_mixer.export_weights(model, exported)  # replaces it
        for suffix in (".npz", ".safetensors", ".weights.h5", ".keras"):
            converting.convert(exported, tmp_path / f"converted{suffix}")
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
    assert len(modes) == 6
    assert modes == dict.fromkeys(modes, mode)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.update({"norm.bias": arrays["norm.bias"] + 1}),
        lambda arrays: arrays.update({"norm.bias": arrays["norm.bias"][1:]}),
        lambda arrays: arrays.update({"a": arrays.pop("norm.bias")}),
        lambda arrays: arrays.update(
            {"norm.bias": arrays["norm.bias"].view("float16")}
        ),
        lambda arrays: arrays.pop("norm.bias"),
    ],
)
def test_checksum_covers_names_dtypes_shapes_and_values(tmp_path, tiny, change):
    from safetensors import safe_open
    from safetensors.numpy import load_file
    from safetensors.numpy import save_file

    path = tmp_path / "exported.safetensors"
    keras_mixer.export_weights(tiny(), path)
    arrays = load_file(path)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    save_file(arrays, path, metadata)
    assert_equal(reading.read(path).arrays, arrays)
    change(arrays)
    save_file(arrays, path, metadata)
    with pytest.raises(keras_mixer.WeightsError, match="differs from the chec"):
        reading.read(path)
    metadata["keras_mixer grid"] = "3x2"
    save_file(load_file(path), path, metadata)
    with pytest.raises(keras_mixer.WeightsError, match="differs from the chec"):
        reading.read(path)


EXPORTS = [
    ("mixer.pth", "must end in .npz .* or in .safetensors"),
    ("mixer", "must end in .npz"),
]


@pytest.mark.parametrize(("name", "message"), EXPORTS)
def test_export_refuses_other_formats(tmp_path, tiny, name, message):
    with pytest.raises(ValueError, match=message):
        keras_mixer.export_weights(tiny(), tmp_path / name)


def test_export_refuses_models_without_an_official_format(tmp_path, tiny):
    file = tmp_path / "mixer.npz"
    file.write_text("precious")
    resmlp = keras_mixer.ResMLP(4, 2, 10, 11, 0.1, input_shape=IMAGE)
    with pytest.raises(ValueError, match="There is no ResMLP in Flax"):
        keras_mixer.export_weights(resmlp, file)
    for pooling, layers in (
        ("max", [keras.layers.Dense(3, name="mine")]),
        ("avg", [keras.layers.Dense(3, name="mine", use_bias=False)]),
        ("avg", [keras.layers.ReLU(), keras.layers.Dense(3, name="mine")]),
        ("avg", [keras.layers.BatchNormalization(name="mine")]),
    ):
        backbone = tiny(include_top=False, pooling=pooling)
        wrapped = keras.Sequential([backbone, *layers])
        x = backbone.output
        for layer in layers:
            x = layer(x)
        for model in (wrapped, keras.Model(backbone.input, x)):
            with pytest.raises(ValueError, match=r"the layers \['mine'\]"):
                keras_mixer.export_weights(model, file)
    quantized = tiny()
    quantized.quantize("int8")
    with pytest.raises(ValueError, match="before it is quantized"):
        keras_mixer.export_weights(quantized, file)
    with pytest.raises(TypeError, match="`model` must be a Keras model"):
        keras_mixer.export_weights("model", file)
    with pytest.raises(TypeError, match="`path` must be a path"):
        keras_mixer.export_weights(tiny(), 3)
    missing = pathlib.Path(tmp_path, "missing", "mixer.npz")
    with pytest.raises(FileNotFoundError, match="missing"):
        keras_mixer.export_weights(tiny(), missing)
    assert file.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [file]


NOTES = [
    (
        "grid",
        "3x5",
        "its grid is 3 x 5, but has weights for 6 tokens",
    ),
    ("grid", "3 x 2", "its note 'keras_mixer grid' is not valid: '3 x 2'"),
    ("activation", "g(elu)", "its note 'keras_mixer activation' is not valid"),
    ("scaling", "[[0.5], [0.5]]", "its note 'keras_mixer scaling' is not val"),
    ("tiles", "0", "its note 'keras_mixer tiles' is not valid"),
    ("tiles", "2", "MLP over tokens, 7 wide, was widened 2 times"),
]


@pytest.mark.parametrize(("name", "text", "message"), NOTES)
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_wrong_notes_are_refused(tmp_path, tiny, name, text, message, suffix):
    path = tmp_path / f"exported{suffix}"
    keras_mixer.export_weights(tiny(), path)
    set_notes(path, {f"keras_mixer {name}": text})
    with pytest.raises(keras_mixer.WeightsError, match=re.escape(message)):
        tiny(weights=path)


def set_notes(path, notes):
    """Writes the notes of another program: without a checksum."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path, "a") as archive:
            lines = [f"{key} {text}" for key, text in notes.items()]
            archive.comment = "\n".join(lines).encode()
    else:
        from safetensors.numpy import load_file
        from safetensors.numpy import save_file

        save_file(load_file(path), path, notes)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("note", ["activation", "scaling"])
def test_changed_notes_are_detected(tmp_path, tiny, suffix, note):
    path = tmp_path / f"exported{suffix}"
    keras_mixer.export_weights(tiny(), path)
    content = path.read_bytes()
    at = content.index(f"keras_mixer {note}".encode()) + 25
    path.write_bytes(content[:at] + b"1" + content[at + 1 :])
    with pytest.raises(keras_mixer.WeightsError, match="differs from the chec"):
        tiny(weights=path)


def test_naming_is_invertible():
    """Converts the names of every layout to paths and back."""
    for layout in naming.LAYOUTS:
        names = list(layout.names().values())
        assert len(set(names)) == len(names) == len(layout.names())
        rank = {"kernel": 2, "stem/kernel": 4}
        for path, name in layout.names().items():
            shape = range(3, 3 + rank.get(path, rank.get(path[-6:], 1)))
            array = np.zeros(tuple(shape))
            exported = naming.export_names({path.format(17): array}, layout)
            assert list(exported) == [name.format(17)]
            back = naming.rename(exported, layout)
            assert {k: v.shape for k, v in back.items()} == {
                path.format(17): array.shape
            }
