"""timm on PyTorch: the same models, with the GELU of the official weights.

Mixed precision is `torch.autocast`, bfloat16 is a model with weights of this
dtype. timm's Mixer has the exact GELU by default; here it has the tanh form, so
that all contenders compute the same.
"""

import contextlib
import functools
import pathlib
import sys
import warnings

import torch

from benchmarks.peers import inputs
from benchmarks.peers.torch_calls import constant
from benchmarks.peers.torch_calls import device
from benchmarks.peers.torch_calls import gpu_memory
from benchmarks.peers.torch_calls import place
from benchmarks.peers.torch_calls import release
from benchmarks.peers.torch_calls import repeated

__all__ = ["build", "export", "gpu_memory", "release", "start"]


def start(name):
    import_timm()
    return device()


def import_timm():
    """timm, also where torchvision, which it imports, is not installed."""
    tests = str(pathlib.Path(__file__).parents[2] / "tests")
    if tests not in sys.path:
        sys.path.insert(0, tests)
    from support.peers import import_timm

    return import_timm()


def make(case):
    timm = import_timm()
    from timm.models import mlp_mixer

    if case["family"] == "vit":
        model = timm.create_model(
            "vit_base_patch16_224",
            img_size=case["side"],
            num_classes=case["classes"],
            depth=case["blocks"],
        )
        return model.eval().to(place())
    options = {
        "img_size": case["side"],
        "num_classes": case["classes"],
        "patch_size": case["patch"],
        "num_blocks": case["blocks"],
        "embed_dim": case["hidden"],
    }
    channels = case["channels_mlp"] / case["hidden"]
    if case["family"] == "mixer":
        tokens = case["tokens_mlp"] / case["hidden"]
        model = mlp_mixer.MlpMixer(
            mlp_ratio=(tokens, channels),
            act_layer=functools.partial(torch.nn.GELU, approximate="tanh"),
            **options,
        )
    elif case["family"] == "resmlp":
        model = mlp_mixer.MlpMixer(
            mlp_ratio=channels,
            block_layer=functools.partial(
                mlp_mixer.ResBlock, init_values=case["layer_scale"]
            ),
            norm_layer=mlp_mixer.Affine,
            **options,
        )
    else:
        raise ValueError(f"there is no '{case['family']}' here")
    return model.eval().to(place())


def images_of(case):
    return constant(inputs.images(case).transpose(0, 3, 1, 2).copy())


def build(form, case):
    model, images = make(case), images_of(case)
    if case["dtype"] == "bfloat16":
        model, images = model.bfloat16(), images.bfloat16()
    precision = contextlib.nullcontext
    if case["dtype"] == "mixed_bfloat16":
        precision = functools.partial(
            torch.autocast, place(), dtype=torch.bfloat16
        )
    if form.startswith("train"):
        return build_training(form, case, model, images, precision)
    gradients = contextlib.nullcontext
    if form != "eager":
        gradients = torch.inference_mode
    call = torch.compile(model) if form == "compiled" else model

    def once():
        with gradients(), precision():
            call(images)

    return repeated(once)


def build_training(form, case, model, images, precision):
    model.train()
    labels = constant(inputs.labels(case))
    optimizer = optimizer_of(case, model)
    call = torch.compile(model) if form == "train_compiled" else model

    def step():
        optimizer.zero_grad()
        with precision():
            logits = call(images)
            loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()

    return repeated(step)


def optimizer_of(case, model):
    if case["optimizer"] == "sgd":
        return torch.optim.SGD(
            model.parameters(), inputs.LEARNING_RATE, inputs.MOMENTUM
        )
    return torch.optim.AdamW(
        model.parameters(),
        inputs.LEARNING_RATE,
        inputs.BETAS,
        inputs.EPSILON,
        inputs.WEIGHT_DECAY,
    )


def export(form, case, path):
    """Writes an ONNX file with a dynamic batch."""
    sample = images_of({**case, "batch": 2})
    with warnings.catch_warnings():
        # The other exporter needs a library that is not needed otherwise.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            make(case),
            (sample,),
            path,
            dynamo=False,
            input_names=["image"],
            output_names=["predictions"],
            dynamic_axes={"image": {0: "batch"}, "predictions": {0: "batch"}},
        )
