"""What a larger image costs: a whole model, resized by each method.

    KERAS_BACKEND=torch python benchmarks/resizing.py --repeats 7

Prints parameters, and the time of a forward pass as a multiple of that of
"interpolate", interleaved in one run (median of the repeats).
"""

import argparse

import numpy as np
from interleaved import medians

import keras_mixer

METHODS = ("interpolate", "tile", "interleave")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="MixerB16")
    parser.add_argument("--factor", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    small = getattr(keras_mixer, args.model)(weights=None)
    side = 224 * args.factor
    shape = (side, side, 3)
    models = {m: keras_mixer.resize(small, shape, m) for m in METHODS}
    images = np.random.default_rng(0).uniform(0, 255, (args.batch_size, *shape))
    images = images.astype("float32")
    seconds = medians(models, images, args.repeats)
    for method, model in models.items():
        median = seconds[method]
        print(
            f"{method:12} {model.count_params():12,} parameters  "
            f"{median:6.3f} s  {median / seconds['interpolate']:5.2f}"
        )


if __name__ == "__main__":
    main()
