"""Times of several models, taken in turns, so that a busy moment hits all."""

import statistics
import time


def medians(models, images, repeats):
    """The median time of a forward pass, `{name: seconds}`.

    Args:
        models: `{name: Keras model}`.
        images: A batch that all of them take.
        repeats: How often each is timed, after one time to compile.
    """
    seconds = {name: [] for name in models}
    for repeat in range(repeats + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model.predict_on_batch(images)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}
