"""The models of the benchmark are one function, in each framework."""

import dataclasses
import sys

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.weights import loading
from support.helpers import ROOT
from support.helpers import randomise
from support.peers import load_into_timm

sys.path.append(str(ROOT))

from benchmarks import cases
from benchmarks.peers import inputs
from benchmarks.peers import keras_models

pytestmark = pytest.mark.backends


@pytest.fixture
def case(monkeypatch):
    monkeypatch.setenv("BENCHMARK_DEVICE", "cpu")
    column = cases.Column("mixer_tiny", "inference", 3)
    return column.request()


@pytest.fixture
def model(case):
    model = keras_models.make(case)
    randomise(model)
    return model


def logits(model, case):
    return model.predict(inputs.images(case), verbose=0)


def test_timm_computes_what_ours_computes(model, case):
    import torch

    from benchmarks.peers import timm_models

    peer = timm_models.make(case)
    weights = {
        path: keras.ops.convert_to_numpy(variable)
        for path, variable in loading.variables_of(model.layers).items()
    }
    load_into_timm(peer, weights, case["blocks"])
    with torch.inference_mode():
        received = peer(timm_models.images_of(case)).numpy()
    np.testing.assert_allclose(received, logits(model, case), atol=1e-5)


def test_flax_computes_what_ours_computes(model, case, tmp_path):
    """The weights go through the file format of the official code."""
    pytest.importorskip("flax")
    import jax

    from benchmarks.peers import flax_models

    peer, expected = flax_models.make(case)
    keras_mixer.export_weights(model, tmp_path / "official.npz")
    weights = {}
    with np.load(tmp_path / "official.npz") as file:
        for name in file.files:
            place = weights
            *parents, last = name.split("/")
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = file[name]
    received, wanted = (
        jax.tree.map(np.shape, tree) for tree in ({"params": weights}, expected)
    )
    assert received == wanted
    received = peer.apply({"params": weights}, inputs.images(case))
    np.testing.assert_allclose(received, logits(model, case), atol=1e-5)


@pytest.mark.parametrize(
    ("family", "dtype", "forms"),
    [
        ("mixer", "float32", ("", "fused", "train", "predict")),
        ("resmlp", "mixed_bfloat16", ("train", "fit")),
        ("mixer", "bfloat16", ("", "gemm")),
    ],
)
def test_forms_of_this_library_run(case, family, dtype, forms):
    own = {
        "torch": {"": ["eager"], "train": ["train"], "fused": ["eager_fused"]},
        "jax": {
            "": ["eager", "xla"],
            "train": ["train_xla"],
            "fused": ["xla_fused"],
        },
        "tensorflow": {
            "": ["graph", "xla"],
            "train": ["train_graph", "train_xla"],
            "fused": ["xla_fused"],
        },
    }[keras.backend.backend()]
    sizes = cases.MODELS[f"{family}_tiny"]
    case = {**case, **dataclasses.asdict(sizes), "dtype": dtype}
    policy = keras.config.dtype_policy()
    try:
        for kind in forms:
            for form in own.get(kind, [kind]):
                keras_models.build(form, case)(2)
    finally:
        keras.config.set_dtype_policy(policy)


def test_one_training_step_changes_the_weights(case, model):
    before = [
        keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables
    ]
    kind = {"jax": "train_xla", "tensorflow": "train_graph"}
    form = kind.get(keras.backend.backend(), "train")
    if form == "train_xla":
        pytest.skip("the state of a step of JAX is not in the model")
    keras_models.build_call(form, case, model)(1)
    for old, new in zip(before, model.trainable_variables, strict=True):
        # It adds the same number to all channels, which the norms remove.
        if not new.path.endswith("token_mixing/dense_1/bias"):
            assert np.abs(old - keras.ops.convert_to_numpy(new)).max() > 0
