"""Files that stay as they are.

`PYTHONPATH=tests python -m support.goldens` writes them.

`weights.json` has every weight of every variant, as `{variant: {path: shape}}`,
from models with their default of classes and size. Paths and shapes are a file
format: changing them makes saved files unreadable. `digits_mixer.keras` and
`digits_resmlp.keras` are small models that have learned scikit-learn's digits,
so that what is done to trained models can be tested without training one each
time.
"""

import contextlib
import json

import keras

import keras_mixer
from keras_mixer.weights import loading
from support import helpers

FILE = helpers.GOLDEN / "weights.json"

CONSTRUCTORS = {
    "mixer_s32": keras_mixer.MixerS32,
    "mixer_s16": keras_mixer.MixerS16,
    "mixer_s8": keras_mixer.MixerS8,
    "mixer_b32": keras_mixer.MixerB32,
    "mixer_b16": keras_mixer.MixerB16,
    "mixer_l32": keras_mixer.MixerL32,
    "mixer_l16": keras_mixer.MixerL16,
    "mixer_h14": keras_mixer.MixerH14,
    "mixer_nano": keras_mixer.MixerNano,
    "resmlp_s12": keras_mixer.ResMLPS12,
    "resmlp_s24": keras_mixer.ResMLPS24,
    "resmlp_s36": keras_mixer.ResMLPS36,
    "resmlp_b24": keras_mixer.ResMLPB24,
    "resmlp_b24p8": keras_mixer.ResMLPB24P8,
}


def build(name, **options):
    """A variant for its structure: on PyTorch its numbers are never drawn."""
    on_torch = keras.backend.backend() == "torch"
    with keras.device("meta") if on_torch else contextlib.nullcontext():
        return CONSTRUCTORS[name](weights=None, **options)


def shapes_of(model):
    return {
        path: list(variable.shape)
        for path, variable in loading.variables_of(model.layers).items()
    }


def load():
    return json.loads(FILE.read_text())


def main():
    write_shapes()
    write_digits()


def write_digits():
    train, _ = helpers.split_digits()
    for family in helpers.FAMILIES:
        learned = helpers.train_on_digits(family, *train)
        model = helpers.digits_model(family)  # without the optimizer's state
        model.set_weights(learned.get_weights())
        model.save(helpers.GOLDEN / f"digits_{family}.keras")


def write_shapes():
    golden = {name: shapes_of(build(name)) for name in CONSTRUCTORS}
    # A line for each weight, so that a difference can be read.
    variants = []
    for name, shapes in golden.items():
        lines = [f'  "{path}": {shape}' for path, shape in shapes.items()]
        variants.append(f'"{name}": {{\n' + ",\n".join(lines) + "\n}")
    FILE.write_text("{\n" + ",\n".join(variants) + "\n}\n")


if __name__ == "__main__":
    main()
