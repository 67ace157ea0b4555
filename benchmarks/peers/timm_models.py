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


def start(name):
    import_timm()
    return inputs.versions("torch", "timm")


def gpu_memory():
    return torch.cuda.max_memory_allocated() if inputs.is_gpu() else None


def import_timm():
    """timm, also where torchvision, which it imports, is not installed."""
    tests = str(pathlib.Path(__file__).parents[2] / "tests")
    if tests not in sys.path:
        sys.path.insert(0, tests)
    from support.peers import import_timm

    return import_timm()


def place():
    return "cuda" if inputs.is_gpu() else "cpu"


def make(case):
    timm = import_timm()
    from timm.models import mlp_mixer

    sizes = {"img_size": case["side"], "num_classes": case["classes"]}
    if case["family"] == "vit":
        name = "vit_base_patch16_224"
        model = timm.create_model(name, depth=case["blocks"], **sizes)
        return model.eval().to(place())
    channels = case["channels_mlp"] / case["hidden"]
    if case["family"] == "mixer":
        options = {
            "mlp_ratio": (case["tokens_mlp"] / case["hidden"], channels),
            "act_layer": functools.partial(torch.nn.GELU, approximate="tanh"),
        }
    else:
        block, init = mlp_mixer.ResBlock, case["layer_scale"]
        options = {
            "mlp_ratio": channels,
            "block_layer": functools.partial(block, init_values=init),
            "norm_layer": mlp_mixer.Affine,
        }
    model = mlp_mixer.MlpMixer(
        patch_size=case["patch"],
        num_blocks=case["blocks"],
        embed_dim=case["hidden"],
        **sizes,
        **options,
    )
    return model.eval().to(place())


def images_of(case):
    images = inputs.images(case).transpose(0, 3, 1, 2).copy()
    return torch.as_tensor(images, device=place())


def build(form, case):
    model, images = make(case), images_of(case)
    if case["dtype"] == "bfloat16":
        model, images = model.bfloat16(), images.bfloat16()
    precision = contextlib.nullcontext
    if case["dtype"] == "mixed_bfloat16":
        precision = functools.partial(
            torch.autocast, place(), dtype=torch.bfloat16
        )
    if form == "train":
        once = build_training(case, model, images, precision)
    else:
        call = torch.compile(model) if form == "compiled" else model

        def once():
            with torch.inference_mode(), precision():
                return call(images)[0, 0]

    return inputs.repeated(once, lambda output: output.item())


def build_training(case, model, images, precision):
    model.train()
    labels = torch.as_tensor(inputs.labels(case), device=place())
    optimizer = torch.optim.SGD(
        model.parameters(), inputs.LEARNING_RATE, inputs.MOMENTUM
    )

    def step():
        optimizer.zero_grad()
        with precision():
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


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
