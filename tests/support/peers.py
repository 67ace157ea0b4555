"""timm's Mixer with the weights of ours: the peer the tests compare with.

timm imports torchvision, which need not be installed and which its Mixer does
not use: where it is missing, empty modules stand in for what timm imports.
"""

import functools
import importlib.machinery
import importlib.util
import sys
import types

STAND_INS = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


class _Anything(type):
    """The type of the classes that stand in: any attribute is a name."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name


def _any_class(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything(name, (), {})


@functools.cache
def import_timm():
    if importlib.util.find_spec("torchvision") is None:
        for name in STAND_INS:
            module = types.ModuleType(name)
            module.__path__ = []
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            module.__getattr__ = _any_class
            sys.modules[name] = module
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
    import timm

    return timm


# The paths of ours and of timm's, `{}` for the number of the block.
PATHS = (
    ("stem/kernel", "stem.proj.weight"),
    ("stem/bias", "stem.proj.bias"),
    ("block_{}/token_norm/gamma", "blocks.{}.norm1.weight"),
    ("block_{}/token_norm/beta", "blocks.{}.norm1.bias"),
    ("block_{}/token_mixing/dense_0/kernel", "blocks.{}.mlp_tokens.fc1.weight"),
    ("block_{}/token_mixing/dense_0/bias", "blocks.{}.mlp_tokens.fc1.bias"),
    ("block_{}/token_mixing/dense_1/kernel", "blocks.{}.mlp_tokens.fc2.weight"),
    ("block_{}/token_mixing/dense_1/bias", "blocks.{}.mlp_tokens.fc2.bias"),
    ("block_{}/channel_norm/gamma", "blocks.{}.norm2.weight"),
    ("block_{}/channel_norm/beta", "blocks.{}.norm2.bias"),
    (
        "block_{}/channel_mixing/dense_0/kernel",
        "blocks.{}.mlp_channels.fc1.weight",
    ),
    ("block_{}/channel_mixing/dense_0/bias", "blocks.{}.mlp_channels.fc1.bias"),
    (
        "block_{}/channel_mixing/dense_1/kernel",
        "blocks.{}.mlp_channels.fc2.weight",
    ),
    ("block_{}/channel_mixing/dense_1/bias", "blocks.{}.mlp_channels.fc2.bias"),
    ("norm/gamma", "norm.weight"),
    ("norm/beta", "norm.bias"),
    ("predictions/kernel", "head.weight"),
    ("predictions/bias", "head.bias"),
)


def load_into_timm(model, weights, num_blocks):
    """Gives `model`, a timm Mixer, our weights `{path: array}`, strictly."""
    import torch

    state = {}
    for ours, theirs in PATHS:
        for i in range(num_blocks if "{}" in ours else 1):
            array = weights[ours.format(i)]
            if array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            elif array.ndim == 2:
                array = array.T
            state[theirs.format(i)] = torch.tensor(array.copy())
    model.load_state_dict(state, strict=True)
    return model.eval()
