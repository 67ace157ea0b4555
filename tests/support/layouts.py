"""The names of the official files in other layouts, written out once more."""

from support import peers


def as_ours(arrays):
    """Official names to ours, written out once more."""
    ours = {}
    for name, array in arrays.items():
        for theirs, path in (
            ("MixerBlock_", "block_"),
            ("LayerNorm_0", "token_norm"),
            ("LayerNorm_1", "channel_norm"),
            ("pre_head_layer_norm", "norm"),
            ("head/", "predictions/"),
            ("Dense_", "dense_"),
            ("scale", "gamma"),
        ):
            name = name.replace(theirs, path)
        if "norm/" in name:
            name = name.replace("bias", "beta")
        ours[name] = array
    return ours


def as_timm(arrays):
    ours = as_ours(arrays)
    state = {}
    for path, name in peers.PATHS:
        for i in range(2 if "{}" in path else 1):
            array = ours[path.format(i)]
            if array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            state[name.format(i)] = array.T if array.ndim == 2 else array
    return state
