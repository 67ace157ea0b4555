"""Trains with several seeds, and summarises the accuracies.

The trainings run one after another in this process. Each starts from a cleared
state of Keras, and is equal to a training with `--seed` in a process of its
own. Each has its own folder, so a training that was stopped is resumed, and one
that is finished is not repeated.
"""

import dataclasses
import logging
import pathlib
import statistics

import keras

from keras_mixer import distributing
from keras_mixer import training
from keras_mixer.arguments import check_natural
from keras_mixer.commands.train import train
from keras_mixer.training.runs import write_json

logger = logging.getLogger("keras_mixer")

SUMMARY_FILE = "summary.json"


def train_seeds(settings, seeds, folder, verbose="auto"):
    """Trains once with each seed, and summarises the accuracies.

    The folder gets a folder of a training for each seed, such as `seed_0`, and
    `summary.json` with the dict that is returned. The summary is about the
    seeds of this call. To add a seed, repeat the call with all seeds.

    Args:
        settings: The `Settings`. Its `seed` is not used.
        seeds: Natural numbers.
        folder: Path of a new folder, or of an earlier call.
        verbose: As in Keras; 0 prints nothing.

    Returns:
        A dict with `seeds`, `{seed: result of the training}`, the `mean` of the
        accuracies on the test images, and their `standard_deviation`. This is
        that of a sample (divided by the number of seeds minus 1), or `None` for
        one seed.

    Raises:
        ValueError: If a seed is given twice, the folder has other files, or
            several processes train together, or as `train`.
        TypeError: If a seed is not an integer.
        FloatingPointError: As `train`, as well as `OSError` and `ImportError`.
            The trainings with later seeds are not started.
    """
    folder, seeds = pathlib.Path(folder), _check_seeds(seeds)
    _check_folder(folder)
    results = {}
    for seed in seeds:
        logger.info("Training with seed %d", seed)
        keras.utils.clear_session()
        results[seed] = train(
            dataclasses.replace(settings, seed=seed),
            folder / f"seed_{seed}",
            verbose,
        )
    accuracies = [result["accuracy"] for result in results.values()]
    summary = {
        "seeds": results,
        "mean": statistics.mean(accuracies),
        "standard_deviation": statistics.stdev(accuracies)
        if len(accuracies) > 1
        else None,
    }
    write_json(folder / SUMMARY_FILE, summary)
    return summary


def _check_seeds(seeds):
    seeds = [check_natural("seeds", seed) for seed in seeds]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"Each seed must be given once. Received: {seeds}")
    if distributing.is_one_of_several():
        raise ValueError(
            "Several seeds cannot be trained by several processes. Give one "
            f"seed, and repeat the command. Received: seeds={seeds}"
        )
    return seeds


def _check_folder(folder):
    """Raises an error if the folder has anything but trainings of seeds."""
    if not folder.exists():
        return
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    others = [
        name
        for name in names
        if not name.startswith("seed_")
        and pathlib.Path(name).stem != pathlib.Path(SUMMARY_FILE).stem
    ]
    if others or not folder.is_dir():
        what = (
            "the folder of one training"
            if training.RUN_FILE in others
            else "not a folder of trainings with several seeds"
        )
        raise ValueError(
            f"'{folder}' is {what}. Give the path of a new or an empty folder. "
            f"Received: {sorted(others) or 'a file'}"
        )


def described(summary):
    """Returns the lines that the command prints about a summary."""
    lines = [
        f"seed {seed}: {100 * result['accuracy']:.2f} % "
        f"({result['seconds']:.0f} s)"
        for seed, result in summary["seeds"].items()
    ]
    mean = f"mean accuracy on the test images: {100 * summary['mean']:.2f} %"
    deviation = summary["standard_deviation"]
    if deviation is not None:
        mean += (
            f", standard deviation {100 * deviation:.2f} (of a sample of "
            f"{len(lines)} seeds)"
        )
    return [*lines, mean]
