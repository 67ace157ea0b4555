"""Tests reading PyTorch files: checkpoints, other objects, damage."""

import argparse
import collections
import io
import logging
import pickle
import pickletools
import re
import struct
import sys
import warnings

import numpy as np
import pytest
import torch

import keras_mixer
from keras_mixer.models.anatomy import weights_of
from keras_mixer.weights import reading
from support import damages
from support import peers
from support.damages import unzipped
from support.damages import zipped
from support.helpers import assert_equal
from support.layouts import as_ours
from support.layouts import as_timm
from support.published import official

FORMATS = pytest.mark.parametrize("is_zip", [True, False])


def save(value, path, is_zip=True):
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    return path


def state_dict(seed=6):
    """Returns weights with timm's names, and the same weights by path."""
    arrays = official(tokens=4, seed=seed)
    state = {k: torch.tensor(v) for k, v in as_timm(arrays).items()}
    return state, as_ours(arrays)


def load(tiny, path):
    return weights_of(tiny(input_shape=(8, 8, 3), weights=path))


def optimizer_of(state):
    """Returns the state of AdamW after a step."""
    parameters = [torch.nn.Parameter(value.clone()) for value in state.values()]
    optimizer = torch.optim.AdamW(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


def views():
    """Returns tensors that `torch.save` stores in different ways."""
    base = torch.arange(2 * 3 * 5.0).reshape(2, 3, 5) / 7
    flat = torch.arange(60.0)
    return {
        "whole": base,
        "transposed": base.permute(2, 0, 1),
        "sliced": base[1:, ::2, 1:4],
        "row": base[1, 2],
        "scalar": torch.tensor(0.125),
        "element": base[1, 1, 3],
        "expanded": torch.arange(12.0)[:, None].expand(12, 1),
        "first": flat[:20].reshape(4, 5),
        "second": flat[20:].reshape(5, 8),
        "parameter": torch.nn.Parameter(base[0].clone()),
        "half": base.half()[:, 1],
        "bfloat16": base.bfloat16().permute(1, 0, 2),
        "double": base.double() / 3,
    }


@FORMATS
def test_views_and_dtypes_agree_with_torch_load(tmp_path, is_zip):
    path = save(views(), tmp_path / "views.pth", is_zip)
    expected = torch.load(path, weights_only=True)
    received = reading.read(path).arrays
    assert received.keys() == expected.keys()
    for name, tensor in expected.items():
        tensor = tensor.detach()
        array = received[name]
        assert str(array.dtype) == str(tensor.dtype).removeprefix("torch.")
        assert array.shape == tuple(tensor.shape)
        np.testing.assert_array_equal(
            array.astype("float64"), tensor.double().numpy(), err_msg=name
        )


def test_without_pytorch_its_extra_is_named(tmp_path, tiny, monkeypatch):
    path = save(state_dict()[0], tmp_path / "weights.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install keras_mixer\[torch\]"):
        reading.read(path)


# Training checkpoints.


def timm_arguments():
    """Returns the kinds of values that scripts store in `args`."""
    return argparse.Namespace(
        model="mixer_b16_224",
        lr=1e-3,
        mean=(0.5, 0.5, 0.5),
        crop_pct=None,
        device=torch.device("cpu"),
        dtype=torch.bfloat16,
        size=torch.Size([224, 224]),
    )


def checkpoint_of_timm(state, averaged):
    """Like `timm.utils.CheckpointSaver` with `--model-ema`."""
    return {
        "epoch": 299,
        "arch": "mixer_b16_224",
        "state_dict": state,
        "optimizer": optimizer_of(state),
        "version": 2,
        "args": timm_arguments(),
        "amp_scaler": {"scale": 65536.0, "_growth_tracker": 7},
        "state_dict_ema": averaged,
        "metric": 76.5,
    }


def checkpoint_of_deit(state, averaged):
    """Like `main.py` of facebookresearch/deit."""
    return {
        "model": state,
        "optimizer": optimizer_of(state),
        "lr_scheduler": {"base_values": [1e-3], "t_in_epochs": True},
        "epoch": 299,
        "model_ema": averaged,
        "scaler": {"scale": 65536.0},
        "args": timm_arguments(),
    }


@FORMATS
@pytest.mark.parametrize(
    ("make", "averaged_key", "key"),
    [
        (checkpoint_of_timm, "state_dict_ema", "state_dict"),
        (checkpoint_of_deit, "model_ema", "model"),
    ],
)
def test_averaged_weights_of_checkpoint_are_loaded(
    tmp_path, tiny, caplog, is_zip, make, averaged_key, key
):
    state, plain = state_dict()
    averages, averaged = state_dict(seed=9)
    path = save(make(state, averages), tmp_path / "last.pth", is_zip)
    with caplog.at_level(logging.INFO, "keras_mixer"):
        assert_equal(load(tiny, path), averaged)
    assert caplog.messages == [
        f"{path}: averaged weights taken from '{averaged_key}', not from "
        f"'{key}'"
    ]
    caplog.clear()
    # A training without averages stores `None`.
    path = save(make(state, None), tmp_path / "plain.pth", is_zip)
    with caplog.at_level(logging.INFO, "keras_mixer"):
        assert_equal(load(tiny, path), plain)
    assert caplog.messages == [f"{path}: weights taken from '{key}'"]


@pytest.mark.parametrize(
    "keys",
    [
        ("state_dict_ema", "model_ema", "state_dict", "model"),
        ("model", "state_dict", "model_ema"),
        ("model", "state_dict"),
        ("model",),
    ],
)
def test_keys_are_searched_in_the_order_of_timm(tmp_path, keys):
    peers.import_timm()
    from timm.models import load_state_dict

    states = {key: {f"{key}.bias": torch.ones(3)} for key in keys}
    path = save(states, tmp_path / "checkpoint.pth")
    assert list(reading.read(path).arrays) == list(load_state_dict(path))


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "_orig_mod.module.", "model.net._a."],
)
def test_common_prefix_of_names_is_removed(tmp_path, tiny, caplog, prefix):
    from safetensors.torch import save_file

    state, expected = state_dict()
    prefixed = {
        prefix + name: value.contiguous() for name, value in state.items()
    }
    paths = [
        save({"state_dict": prefixed}, tmp_path / "ddp.pth"),
        tmp_path / "ddp.safetensors",
    ]
    save_file(prefixed, paths[1])
    for path in paths:
        with caplog.at_level(logging.INFO, "keras_mixer"):
            assert_equal(load(tiny, path), expected)
        assert caplog.messages[-1] == (
            f"{path}: prefix '{prefix}' removed from the names"
        )


def checkpoint_of_lightning(state):
    """Like `Trainer.save_checkpoint` of Lightning 2."""
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.1",
        "state_dict": collections.OrderedDict(
            (f"model.{name}", value) for name, value in state.items()
        ),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"n": 3}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'val_loss'}": {
                "best_model_score": torch.tensor(0.25),
                "best_model_path": "a.ckpt",
            }
        },
        "optimizer_states": [optimizer_of(state)],
        "lr_schedulers": [{"milestones": collections.Counter([30, 60])}],
        "MixedPrecision": {"scale": 1.0},
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1},
    }


@FORMATS
def test_lightning_checkpoint_is_loaded(tmp_path, tiny, is_zip):
    state, expected = state_dict()
    checkpoint = checkpoint_of_lightning(state)
    path = save(checkpoint, tmp_path / "epoch=3-step=120.ckpt", is_zip)
    assert_equal(load(tiny, path), expected)


def test_extra_weights_are_refused_and_prefix_is_reported(tmp_path, tiny):
    state, _ = state_dict()
    checkpoint = checkpoint_of_lightning(state)
    checkpoint["state_dict"]["criterion.weight"] = torch.ones(5)
    path = save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(
        keras_mixer.WeightsError,
        match=r"30 of 31 names are known without the prefix 'model\.': save",
    ):
        tiny(weights=path)


OTHERS = [
    *(
        torch.ones((2, 3), dtype=dtype)
        for dtype in (
            *(torch.int64, torch.int8, torch.bool, torch.complex64),
            *(torch.float8_e4m3fn, torch.uint16),
        )
    ),
    torch.ones((2, 3)).to_sparse(),
    torch.ones((2, 3), device="meta"),
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda tensor: str(tensor.dtype))
def test_tensors_beside_the_weights_can_have_any_type(tmp_path, tiny, other):
    state, expected = state_dict()
    path = save({"model": state, "other": other}, tmp_path / "other.pth")
    assert_equal(load(tiny, path), expected)
    path = save({"model": {**state, "head.bias": other}}, path)
    with pytest.raises(keras_mixer.WeightsError, match=r"head\.bias"):
        reading.read(path)


class Config:
    """A class of a training script."""


@FORMATS
def test_python_objects_are_refused_by_name(tmp_path, tiny, is_zip):
    state, _ = state_dict()
    checkpoint = {"state_dict": state, "config": [Config(), torch.nn.ReLU()]}
    path = save(checkpoint, tmp_path / "last.pth", is_zip)
    with pytest.raises(keras_mixer.WeightsError) as caught:
        tiny(weights=path)
    message = str(caught.value)
    assert message.startswith(
        f"Cannot load '{path}': it contains Python objects that PyTorch does "
        f"not load without running code: `{__name__}.Config`. "
    )
    assert "runs code from the file: do it only if you trust" in message
    # Runs the code that the message recommends.
    lines = re.findall("`(.*?)`", message)[1:3]
    assert "weights_only=False" in lines[0]
    code = "\n".join(lines).replace("'weights.pth'", "PATH")
    exec(code, {"torch": torch, "PATH": path})
    assert reading.read(path).arrays.keys() == state.keys()


WRONG = [
    ({"net": {"a": torch.ones(3)}, "epoch": 3}, "Received under 'net': `dict`"),
    (
        {"net": {"a": torch.ones(3)}, "epoch": 3},
        r"weights_only=False\)\['net'\]",
    ),
    ([torch.ones(3)], "expected a state dictionary. Received: `list`"),
    (argparse.Namespace(a=1), "Received: `Namespace`"),
    ({"a": torch.ones(3), 7: torch.ones(3)}, "Received under `int`: `Tensor`"),
    ({"a": np.ones(3)}, "without running code: `numpy._core.multiarray._recon"),
    (torch.nn.ReLU(), "without running code: `torch.nn.modules.activation.Re"),
    ({"a": torch.ones(3).to_sparse()}, "'a' is not a dense tensor"),
    ({"a": torch.ones(3, device="meta")}, "'a' is not a dense tensor"),
    ({"a": torch.arange(3)}, "'a' holds int64, not floating-point weights"),
    ({"a": torch.ones(1).expand(9)}, "declares 36 bytes, but stores 4"),
    ({"a": torch.ones(0, 3)}, r"'a' is empty: \(0, 3\)"),
]


@FORMATS
@pytest.mark.parametrize(("value", "message"), WRONG)
def test_other_objects_are_refused_with_a_description(
    tmp_path, value, message, is_zip
):
    path = save(value, tmp_path / "wrong.pth", is_zip)
    with pytest.raises(keras_mixer.WeightsError, match=message):
        reading.read(path)


@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file")
def test_torchscript_is_refused_by_its_name(tmp_path):
    torch.jit.script(torch.nn.ReLU()).save(tmp_path / "scripted.pt")
    with pytest.raises(keras_mixer.WeightsError, match="code: `TorchScript`"):
        reading.read(tmp_path / "scripted.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_other_pickle_protocols_are_refused(tmp_path):
    path = tmp_path / "protocol.pth"
    torch.save({"a": torch.ones(3)}, path, pickle_protocol=4)
    with pytest.raises(keras_mixer.WeightsError, match="`pickle_protocol`"):
        reading.read(path)


# Damaged and hostile files.

NAME = "stem.proj.bias"  # 10 numbers


@damages.COUNTS
def test_damaged_archives_are_refused(good, tmp_path, count):
    data = good[".pth"]
    entries = unzipped(data)
    pickled = entries["archive/data.pkl"]
    files = damages.damaged(
        data, damages.around(data, *damages.ZIP), count, damages.SAME_BITS
    )
    # In a new archive with a new checksum.
    in_pickle = damages.damaged(
        pickled, range(len(pickled)), count, damages.SAME_SHAPES
    )
    pickles = [*in_pickle, *evil_pickles(tmp_path)]
    first = "archive/data/0"
    damages.check(
        tmp_path,
        ".pth",
        data,
        [
            *files,
            *(
                (label, zipped(entries | {"archive/data.pkl": each}), *allowed)
                for label, each, *allowed in pickles
            ),
            *damages.odd_archives(entries, first, first),
            *damages.odd_archives(entries, "archive/data.pkl", "archive/x"),
            *damages.of_another_kind(good, ".pth"),
            *lies(good, tmp_path, True),
            *without_members(entries),
            ("pickle", pickle.dumps(damages.marking(tmp_path))),
        ],
    )


@damages.COUNTS
def test_damaged_files_of_the_older_format_are_refused(good, tmp_path, count):
    data = good["_legacy.pth"]
    state = torch.load(io.BytesIO(good[".pth"]), weights_only=True)
    # The numbers are at the end, with their count before each tensor.
    numbers = sum(tensor.nbytes for tensor in state.values())
    places = range(len(data) - numbers - 8 * len(state))
    damages.check(
        tmp_path,
        ".pth",
        data,
        [
            *damages.damaged(data, places, count, damages.SAME_SHAPES),
            *damages.of_another_kind(good, ".pth"),
            *lies(good, tmp_path, False),
        ],
    )


def without_members(entries):
    for missing in entries:
        if "/data" in missing:
            rest = {key: entries[key] for key in entries if key != missing}
            yield f"without {missing}", zipped(rest)


def evil_pickles(folder):
    """Yields pickles that call functions with other instructions."""
    command = f"touch '{folder / 'executed'}'"
    for protocol in (0, 1, 3, 4, 5):
        evil = pickle.dumps(damages.Runs(command), protocol)
        yield f"protocol {protocol}", evil
    text = b"X" + struct.pack("<I", len(command)) + command.encode()
    for label, received in (
        ("INST", b"(" + text + b"ios\nsystem\n."),
        ("OBJ", b"(cos\nsystem\n" + text + b"o."),
        ("NEWOBJ_EX", b"cos\nsystem\n" + text + b"\x85}\x92."),
        ("EXT1", b"\x82\x01" + text + b"\x85R."),
        ("DUP", b"]" + b"2" * 1000 + b"."),
        ("POP", b"]0."),
    ):
        assert label in {o.name for o, _, _ in pickletools.genops(received)}
        yield label, b"\x80\x02" + received


def saved(value, is_zip):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=is_zip)
    return file.getvalue()


class Makes:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self._made = function, arguments

    def __reduce__(self):
        return self._made


def lies(good, folder, is_zip):
    state = torch.load(io.BytesIO(good[".pth"]), weights_only=True)
    for missing in state:
        rest = {key: value for key, value in state.items() if key != missing}
        yield f"without {missing}", saved(rest, is_zip)
    for more in ("m", "blocks.2.norm1.weight", 7, None, ("a", "b")):
        yield f"with {more}", saved({**state, more: state[NAME]}, is_zip)
    evil = damages.marking(folder)
    values = [
        *(torch.ones(10, dtype=dtype) for dtype in DTYPES),
        *(torch.ones(shape) for shape in [(), (0,), (9,), (2, 5), (2, 10)]),
        torch.ones(10).to_sparse(),
        torch.ones(10, device="meta"),
        torch.ones(1).expand(10),
        torch.ones(1).expand(10**13),
        torch.ones(10).as_strided((10**7, 10**6), (0, 0)),
        torch.ones(16).as_strided((10, 7), (1, 1)),
        torch.ones(10).as_strided((1,) * 65, (1,) * 65),
        *(evil, [evil], {"a": evil}, 1, 1.5, "text", None, [1], {"a": 1}),
        *(np.ones(10, "f4"), np.float32(1), torch.Size([10]), torch.float32),
        *(torch.nn.Linear(1, 1), torch.device("cpu"), b"bytes", {1}, 1j),
        argparse.Namespace(learning_rate=0.1, more=[evil]),
        Makes(eval, f"open({str(folder / 'executed')!r}, 'w')"),
        Makes(exec, "raise SystemExit"),
        Makes(__import__, "antigravity"),
        Makes(torch.nn.Linear, 2**19, 2**19),
        Makes(getattr, "text", "upper"),
    ]
    for i, value in enumerate(values):
        label = f"{i} {type(value).__name__} {str(value)[:30]}"
        yield f"holds {label}", saved({**state, NAME: value}, is_zip)
        yield f"is {label}", saved(value, is_zip)
        aside = {"state_dict": state, "more": [evil, value]}
        yield f"has beside {label}", saved(aside, is_zip)
    yield from lies_about_shapes(state, is_zip)


def lies_about_shapes(state, is_zip):
    for shape, strides, offset in (
        *([(2**28,), (1,), 0], [(2**38,), (1,), 0], [(2**38,), (0,), 0]),
        *([(11,), (1,), 0], [(10,), (1,), 1], [(10,), (2**40,), 0]),
        *([(10,), (1,), 2**40], [(10,), (1,), -1], [(-10,), (1,), 0]),
        *([(10,), (-1,), 9], [(2**62, 4), (1, 1), 0], [(2**63 - 1,), (1,), 0]),
        *([(10,), (1, 1), 0], [(0,), (1,), 2**40], [(2**40, 0), (1, 1), 0]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about untyped storages
            storage = state[NAME].storage()
        lie = Makes(
            torch._utils._rebuild_tensor_v2,
            *(
                storage,
                offset,
                shape,
                strides,
                False,
                collections.OrderedDict(),
            ),
        )
        label = f"{shape} {strides} {offset}"
        yield f"declares {label}", saved({**state, NAME: lie}, is_zip)


DTYPES = [
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64),
    *(torch.bool, torch.complex64, torch.complex128),
    *(torch.float8_e4m3fn, torch.uint16, torch.uint64),
]
