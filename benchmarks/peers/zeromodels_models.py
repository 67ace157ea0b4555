"""zeromodels on the backend of the process, called as our models are.

Its models have the exact GELU, which is its default.
"""

import keras

from benchmarks.peers.keras_models import build_call
from benchmarks.peers.keras_models import calls
from benchmarks.peers.keras_models import gpu_memory
from benchmarks.peers.keras_models import release

__all__ = ["build", "gpu_memory", "release", "start"]


def start(name):
    import zeromodels  # noqa: F401  # part of the time of the import

    return calls().device()


def build(form, case):
    keras.config.set_dtype_policy(case["dtype"])
    return build_call(form, case, make(case))


def make(case):
    from zeromodels.models import mlp_mixer
    from zeromodels.models import resmlp

    options = {
        "image_size": case["side"],
        "num_classes": case["classes"],
        "patch_size": case["patch"],
        "embed_dim": case["hidden"],
    }
    channels = case["channels_mlp"] / case["hidden"]
    if case["family"] == "mixer":
        return mlp_mixer.MLPMixerImageClassify(
            depths=case["blocks"],
            mlp_ratio=(case["tokens_mlp"] / case["hidden"], channels),
            **options,
        )
    return resmlp.ResMLPImageClassify(
        depth=case["blocks"],
        mlp_ratio=int(channels),
        layer_scale_init=case["layer_scale"],
        **options,
    )
