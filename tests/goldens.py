"""Every weight of every variant: `python tests/goldens.py` writes the file.

Paths and shapes are a file format: a change here makes saved files unreadable.
The file holds `{variant: {path: shape}}`, from models with 1000 classes.
"""

import json
import pathlib

import keras_mixer
from keras_mixer.weights import loading

FILE = pathlib.Path(__file__).parent / "golden" / "weights.json"

CONSTRUCTORS = {
    "mixer_s32": keras_mixer.MixerS32,
    "mixer_s16": keras_mixer.MixerS16,
    "mixer_s8": keras_mixer.MixerS8,
    "mixer_b32": keras_mixer.MixerB32,
    "mixer_b16": keras_mixer.MixerB16,
    "mixer_l32": keras_mixer.MixerL32,
    "mixer_l16": keras_mixer.MixerL16,
    "mixer_h14": keras_mixer.MixerH14,
    "resmlp_s12": keras_mixer.ResMLPS12,
    "resmlp_s24": keras_mixer.ResMLPS24,
    "resmlp_s36": keras_mixer.ResMLPS36,
    "resmlp_b24": keras_mixer.ResMLPB24,
    "resmlp_b24p8": keras_mixer.ResMLPB24P8,
}


def shapes_of(model):
    return {
        path: list(variable.shape)
        for path, variable in loading.variables_of(model.layers).items()
    }


def load():
    return json.loads(FILE.read_text())


def main():
    golden = {
        name: shapes_of(constructor(weights=None))
        for name, constructor in CONSTRUCTORS.items()
    }
    # A line for each weight, so that a difference can be read.
    variants = []
    for name, shapes in golden.items():
        lines = [f'  "{path}": {shape}' for path, shape in shapes.items()]
        variants.append(f'"{name}": {{\n' + ",\n".join(lines) + "\n}")
    FILE.write_text("{\n" + ",\n".join(variants) + "\n}\n")


if __name__ == "__main__":
    main()
