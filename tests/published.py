"""Files of the exact structure of the published ones, with random weights.

Nothing here is downloaded: names, shapes and the form of the archive follow
from what is known of the official files, down to the byte.
"""

import zipfile

import numpy as np

from keras_mixer.weights import catalog
from keras_mixer.weights import naming


def official_shapes(record):
    """`{name: shape}` of an official `.npz`, from the paper's table."""
    patch, blocks, hidden, tokens_mlp, channels_mlp = {
        "mixer_s32": (32, 8, 512, 256, 2048),
        "mixer_s16": (16, 8, 512, 256, 2048),
        "mixer_s8": (8, 8, 512, 256, 2048),
        "mixer_b32": (32, 12, 768, 384, 3072),
        "mixer_b16": (16, 12, 768, 384, 3072),
        "mixer_l16": (16, 24, 1024, 512, 4096),
    }[record.variant]
    tokens = (224 // patch) ** 2
    shapes = {
        "stem/kernel": (patch, patch, 3, hidden),
        "stem/bias": (hidden,),
        "pre_head_layer_norm/scale": (hidden,),
        "pre_head_layer_norm/bias": (hidden,),
        "head/kernel": (hidden, record.classes),
        "head/bias": (record.classes,),
    }
    for i in range(blocks):
        for j, (mixing, size, width) in enumerate(
            (
                ("token", tokens, tokens_mlp),
                ("channel", hidden, channels_mlp),
            )
        ):
            block = f"MixerBlock_{i}"
            mlp = f"{block}/{mixing}_mixing"
            shapes |= {
                f"{block}/LayerNorm_{j}/scale": (hidden,),
                f"{block}/LayerNorm_{j}/bias": (hidden,),
                f"{mlp}/Dense_0/kernel": (size, width),
                f"{mlp}/Dense_0/bias": (width,),
                f"{mlp}/Dense_1/kernel": (width, size),
                f"{mlp}/Dense_1/bias": (size,),
            }
    return shapes


def write(record, file, seed=0):
    """Writes such a file with `numpy.savez`; returns its arrays."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in official_shapes(record).items():
        array = rng.standard_normal(shape, "float32")
        if len(shape) > 1:
            array *= np.prod(shape[:-1], dtype="float32") ** -0.5
        else:
            array = 0.1 * array + name.endswith("scale")
        arrays[name] = array
    file.parent.mkdir(parents=True, exist_ok=True)
    if "sam" in record.tag:
        np.savez(file, **arrays)
    else:
        _savez_of_2021(file, arrays)
    return arrays


def _savez_of_2021(file, arrays):
    """`numpy.savez` as it was in May 2021: without the records of zip64."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)


def put_into(home, name):
    """Puts such a file into the cache of `KERAS_HOME=home`."""
    (record,) = catalog.list_weights(name)
    return write(record, home / "models" / "keras_mixer" / record.file)


def as_ours(arrays):
    layout = naming.layout_of(arrays)
    return naming.rename(arrays, layout)
