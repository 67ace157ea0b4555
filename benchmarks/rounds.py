"""From the rounds of a row to the numbers of the tables."""

import statistics

from benchmarks import cases


def percentile(values, fraction):
    """A percentile of a few values, with linear interpolation."""
    values = sorted(values)
    place = fraction * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


def times(row):
    """Seconds of one call: `(median, 10 %, 90 %)`, or `None`."""
    if row["reason"] is not None or not row["rounds"]:
        return None
    seconds = [each["seconds"] / row["calls"] for each in row["rounds"]]
    return (
        statistics.median(seconds),
        percentile(seconds, 0.1),
        percentile(seconds, 0.9),
    )


def rates(column):
    """Images per second of the contenders: `{name: (median, low, high)}`."""
    found = {}
    for row in column["rows"]:
        seconds = times(row)
        if seconds and not row["is_roof"]:
            median, fast, slow = (column["batch"] / each for each in seconds)
            found[row["contender"]] = median, slow, fast
    return found


def roof(case, seconds):
    """Images per second if a model took the time of its products alone.

    Args:
        case: Dict, the request of a column.
        seconds: Time of the product of `keras_models.build_gemm`.
    """
    tokens = (case["side"] // case["patch"]) ** 2
    product = case["batch"] * tokens * case["hidden"] * case["channels_mlp"]
    fields = cases.Model.__dataclass_fields__
    model = cases.Model(**{key: case[key] for key in fields})
    times = 3 if case["work"] == "training" else 1
    return product / seconds / (times * model.macs())


def roof_of(column):
    """Images per second of the fastest products of a column, or `None`."""
    found = [
        roof(column["case"], times(row)[0])
        for row in column["rows"]
        if row["is_roof"] and times(row)
    ]
    return max(found, default=None)


def best_peer(column, framework=None):
    """The name of the fastest contender that is not ours, or `None`.

    Args:
        column: A column of the results.
        framework: Only peers of this framework, if given.
    """
    found = rates(column)
    peers = {
        row["contender"]: found[row["contender"]][0]
        for row in column["rows"]
        if row["contender"] in found
        and not row["is_ours"]
        and framework in (None, row["framework"])
    }
    return max(peers, key=peers.get, default=None)


def ratio(column, name, peer):
    """The rate of a row divided by that of a peer, or `None`."""
    found = rates(column)
    if name not in found or peer not in found:
        return None
    return found[name][0] / found[peer][0]


def memory(column, name):
    """The peak memory of a row in GB, on a GPU what it has there, or `None`."""
    (row,) = [each for each in column["rows"] if each["contender"] == name]
    found = row.get("gpu_memory") or row.get("memory")
    return found / 1e9 if found else None


def other_work(columns):
    """The shares of the processors that other work had, of all rounds."""
    return [
        each["other_work"]
        for column in columns
        for row in column["rows"]
        for each in row["rounds"]
        if each["other_work"] is not None
    ]
