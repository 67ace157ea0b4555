"""Files of the exact structure of the published ones, with random weights.

Nothing here is downloaded: names, shapes and the form of the archive follow
from what is known of the official files, down to the byte.
"""

import zipfile

import numpy as np

from keras_mixer.weights import catalog
from keras_mixer.weights import naming

# Of the paper's table: patch, blocks, hidden, tokens_mlp, channels_mlp.
SIZES = {
    "mixer_s32": (32, 8, 512, 256, 2048),
    "mixer_s16": (16, 8, 512, 256, 2048),
    "mixer_s8": (8, 8, 512, 256, 2048),
    "mixer_b32": (32, 12, 768, 384, 3072),
    "mixer_b16": (16, 12, 768, 384, 3072),
    "mixer_l16": (16, 24, 1024, 512, 4096),
}


def official(tokens, *sizes, seed=6):
    """Random weights under the names of the official checkpoints.

    `sizes` are those of `_shapes`; small ones, all different, unless given.
    """
    shapes = _shapes(tokens, *(sizes or (4, 2, 10, 7, 11, 5)))
    rng = np.random.default_rng(seed)
    return {name: _random(rng, name, shape) for name, shape in shapes.items()}


def official_shapes(record):
    """`{name: shape}` of the file of a record."""
    return _shapes(*_sizes(record))


def _sizes(record):
    patch, *sizes = SIZES[record.variant]
    return ((224 // patch) ** 2, patch, *sizes, record.classes)


def _shapes(tokens, patch, blocks, hidden, tokens_mlp, channels_mlp, classes):
    shapes = {
        "stem/kernel": (patch, patch, 3, hidden),
        "stem/bias": (hidden,),
        "pre_head_layer_norm/scale": (hidden,),
        "pre_head_layer_norm/bias": (hidden,),
        "head/kernel": (hidden, classes),
        "head/bias": (classes,),
    }
    mixings = (("token", tokens, tokens_mlp), ("channel", hidden, channels_mlp))
    for i in range(blocks):
        for j, (mixing, size, width) in enumerate(mixings):
            norm = f"MixerBlock_{i}/LayerNorm_{j}"
            mlp = f"MixerBlock_{i}/{mixing}_mixing"
            shapes |= {
                f"{norm}/scale": (hidden,),
                f"{norm}/bias": (hidden,),
                f"{mlp}/Dense_0/kernel": (size, width),
                f"{mlp}/Dense_0/bias": (width,),
                f"{mlp}/Dense_1/kernel": (width, size),
                f"{mlp}/Dense_1/bias": (size,),
            }
    return shapes


def _random(rng, name, shape):
    array = rng.standard_normal(shape, "float32")
    if len(shape) == 1:
        return np.float32(0.1) * array + name.endswith("scale")
    array *= np.prod(shape[:-1], dtype="float32") ** -0.5
    return array


def write(record, file):
    """Writes the file of a record with `numpy.savez`; returns its arrays."""
    arrays = official(*_sizes(record))
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
