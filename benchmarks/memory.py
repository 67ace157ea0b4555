"""How much memory a training step takes, with and without rematerialization.

    KERAS_BACKEND=torch python benchmarks/memory.py

Each row is a process of its own, which builds a Mixer with random weights and
trains it on random images with `train_on_batch`, as Keras compiles it by
default. As in fine-tuning in the paper, the MLPs over tokens are wider by as
much as the images have more patches than images of 224 x 224 pixels.

"Peak" is the most memory that the process had at any time. Python, the backend,
the weights and what compiling takes are part of it. "Training" is the peak less
what the process had before the first step. The times are for a comparison of
the rows on a machine that does nothing else: the median of the steps after the
first two, which compile.

Two settings decide what a CPU gains, see docs/memory.md:
`MALLOC_MMAP_THRESHOLD_=1048576` for PyTorch, and
`XLA_FLAGS=--xla_cpu_enable_concurrency_optimized_scheduler=false` for JAX.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import time

MODES = ("none", "activations", "full")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--variant", default="mixer_l16")
    add("--image-size", type=int, default=448)
    add("--batch-size", type=int, default=1)
    add("--optimizers", nargs="+", default=["sgd", "adamw"])
    add("--modes", nargs="+", choices=MODES, default=["none", "full"])
    add("--steps", type=int, default=5)
    add("--case", nargs=2, metavar=("OPTIMIZER", "MODE"), help="one row alone")
    args = parser.parse_args()
    if args.case:
        measure(args, *args.case)
        return
    header = "optimizer  remat        peak GB  training GB  s/step  loss"
    print(header, flush=True)
    for optimizer in args.optimizers:
        for mode in args.modes:
            case = [*sys.argv[1:], "--case", optimizer, mode]
            subprocess.run([sys.executable, __file__, *case], check=True)


def measure(args, optimizer, mode):
    import keras
    import numpy as np

    import keras_mixer
    from keras_mixer.mixer import VARIANTS

    keras.utils.set_random_seed(0)
    patch, blocks, hidden, tokens, channels = VARIANTS[args.variant]
    tokens = tokens * args.image_size**2 // 224**2
    with keras.RematScope(None if mode == "none" else mode):
        model = keras_mixer.Mixer(
            *(patch, blocks, hidden, tokens, channels),
            input_shape=(args.image_size, args.image_size, 3),
            classifier_activation=None,
        )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    rng = np.random.default_rng(0)
    shape = (args.batch_size, *model.input_shape[1:])
    images = rng.uniform(0, 255, shape).astype("float32")
    labels = np.arange(args.batch_size)
    before = memory("VmRSS")
    seconds = []
    for _ in range(args.steps):
        start = time.perf_counter()
        result = float(model.train_on_batch(images, labels))
        seconds.append(time.perf_counter() - start)
    peak = memory("VmHWM")
    print(
        f"{optimizer:10} {mode:12} {peak:7.2f}  {peak - before:11.2f}  "
        f"{statistics.median(seconds[2:]):6.2f}  {result:.5f}",
        flush=True,
    )


def memory(key):
    """Returns a size of this process in GB.

    `VmRSS` is the memory that it has now, `VmHWM` the most that it had. This is
    not `ru_maxrss`, which a child has from its parent.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{key}:")[1].split()[0]) / 1e9


if __name__ == "__main__":
    main()
