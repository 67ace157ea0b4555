"""Measures time and memory against image size, batch size and depth.

    python -m benchmarks.scaling --output FOLDER

Mixer with a fixed D_S, Mixer with tiled token mixing, ResMLP, ViT and ResNet50,
all on PyTorch. It writes `scaling.json`, `scaling.md` and `scaling.png`, with
the exponents of power laws. docs/speed.md describes what is measured and how.
"""

import argparse
import dataclasses
import datetime
import math
import pathlib
import shutil
import statistics
import sys

from benchmarks import __main__ as command
from benchmarks import cases
from benchmarks import contenders
from benchmarks import measuring
from benchmarks import rounds
from benchmarks import scaling_output
from benchmarks import writing
from benchmarks.processes import Workers

# A fit over "the range where products dominate" begins with this many tokens:
# images of 224 x 224 pixels.
DOMINATED_FROM = 196

B16 = cases.MODELS["mixer_b16"]

# The process and the form that run a model, and its sizes. ResNet50 has no
# tokens: 16 is the patch with which its images are counted in.
# fmt: off
SUBJECTS = {
    "Mixer-B/16, fixed D_S": ("ours-torch", "eager", B16),
    "Mixer-B/16, tiled":     ("ours-torch", "eager",
                              dataclasses.replace(B16, tiled_from=224)),
    "ResMLP-S24":            ("ours-torch", "eager",
                              cases.MODELS["resmlp_s24"]),
    "ViT-B/16 (timm)":       ("timm", "inference_mode",
                              dataclasses.replace(B16, family="vit")),
    "ResNet50 (Keras)":      ("ours-torch", "eager",
                              dataclasses.replace(B16, family="resnet50")),
}
# fmt: on

AXES = {
    "resolution": (112, 224, 336, 448, 672, 896),
    "batch": (1, 4, 16, 64),
    "depth": (4, 12, 24),
}
# For tests: the shortest curves with a slope.
TINY = {"resolution": (32, 64), "batch": (1, 2), "depth": (1, 2)}

# Of the processes that measure memory: the C library of Linux returns each
# freed tensor of 1 MiB or more. By default, the peak depends on addresses, and
# differs by 0.7 GB from process to process.
RETURN_TENSORS = {"MALLOC_MMAP_THRESHOLD_": "1048576"}

# The side of the images where another axis is measured.
SIDE_OF_AXIS = {"batch": 112, "depth": 224}


def main(arguments=None):
    parser = make_parser()
    args = parser.parse_args(arguments)
    with command.errors_to(parser):
        check(args)
        results = run(args)
        results["command"] = command.command("benchmarks.scaling", arguments)
        page = scaling_output.page(results)
        paths = writing.write(
            args.output, results, page, scaling_output.draw, "scaling"
        )
        print(*paths, sep="\n")


def make_parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--axes", nargs="+", metavar="AXIS", default=list(AXES))
    add("--subjects", nargs="+", metavar="NAME", default=list(SUBJECTS))
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=0.3)
    add("--device", default="auto", help="auto, cpu or gpu (default: auto)")
    add("--tiny", action="store_true", help="small images, for tests")
    add("--no-memory", action="store_true", help="measure time only")
    add("--output", type=pathlib.Path, help="new folder for the results")
    return parser


def check(args):
    if args.output is None:
        raise ValueError("`--output` is required: the path of a new folder.")
    writing.check_output(args.output)
    command.check_names("--axes", args.axes, AXES)
    command.check_names("--subjects", args.subjects, SUBJECTS)
    command.check_names("--device", [args.device], cases.DEVICES)
    for name in ("rounds", "seconds"):
        if getattr(args, name) <= 0:
            raise ValueError(
                f"`--{name}` must be positive. Received: {getattr(args, name)}"
            )


def case_of(model, axis, value, tiny=False):
    """The request for one point of a curve.

    Args:
        model: A `cases.Model` of 224 x 224 pixels.
        axis: A key of `AXES`.
        value: The value on this axis.
        tiny: Whether images are small, for tests.
    """
    side, batch, depth = 32 if tiny else 224, 1, model.blocks
    if axis == "resolution":
        side = value
    else:
        side = 32 if tiny else SIDE_OF_AXIS[axis]
        batch = value if axis == "batch" else 1
        depth = value if axis == "depth" else depth
    if tiny and model.tiled_from:
        model = dataclasses.replace(model, tiled_from=32)
    model = dataclasses.replace(model, side=side, blocks=depth)
    return model, {
        "work": "inference",
        "batch": batch,
        "dtype": "float32",
        **dataclasses.asdict(model),
    }


def has(model, axis):
    """Whether a model has a point on an axis."""
    if model.family == "resnet50":
        return axis != "depth"  # its depth is not a number of equal blocks
    if model.tiled_from:
        # Elsewhere it is the model with a fixed D_S.
        return axis == "resolution" and model.side % model.tiled_from == 0
    return True


def run(args):
    """Measures all points, and returns the results as JSON values."""
    device = args.device
    if device == "auto":
        device = "gpu" if shutil.which("nvidia-smi") else "cpu"
    axes = TINY if args.tiny else AXES
    points = []
    with Workers(device) as workers:
        for axis in args.axes:
            for value in axes[axis]:
                points += measure_point(axis, value, args, workers)
        return {
            "date": datetime.datetime.now().strftime("%Y-%m-%d"),
            "device": device,
            "machine": measuring.machine(),
            "versions": dict(sorted(workers.versions.items())),
            "rounds": args.rounds,
            "points": points,
            "exponents": exponents(points),
        }


def measure_point(axis, value, args, workers):
    """Measures all subjects at one value of an axis, in turns."""
    rows = {}
    for name in args.subjects:
        process, form, model = SUBJECTS[name]
        model, case = case_of(model, axis, value, args.tiny)
        if has(model, axis):
            contender = contenders.Contender(process, form, ("forward",))
            rows[name] = measuring.Row(contender, case, key=name)
    for row in rows.values():
        # Memory is measured where it is not only that of the weights.
        if axis != "depth" and not args.no_memory:
            measuring.attempt(
                row, measuring.measure_memory, workers, RETURN_TENSORS
            )
        measuring.attempt(row, measuring.build, workers, args.seconds)
    measuring.take_turns([*rows.values()], workers, args.rounds)
    workers.release()
    return [point(axis, value, name, row) for name, row in rows.items()]


def point(axis, value, name, row):
    case, result = row.case, row.result()
    times = rounds.times(result)
    facts = {
        "axis": axis,
        "value": value,
        "subject": name,
        "tokens": (case["side"] // case["patch"]) ** 2,
        "reason": row.reason,
        "calls": row.calls,
        "rounds": row.rounds,
        "seconds": times and times[0],
        "memory": result.get("gpu_memory") or result.get("memory"),
        "gmacs": None,
    }
    if case["family"] != "resnet50":
        fields = cases.Model.__dataclass_fields__
        model = cases.Model(**{key: case[key] for key in fields})
        facts["gmacs"] = case["batch"] * model.macs() / 1e9
    text = row.reason or f"{1e3 * facts['seconds']:9.1f} ms"
    print(f"{axis} {value}: {name:24} {text}", file=sys.stderr, flush=True)
    return facts


def exponents(points):
    """Exponents of power laws, for each axis and subject.

    Returns:
        A list of dicts: "axis", "subject", "from" (the least value of the
        range; tokens on the axis "resolution"), and for "seconds" and "gmacs"
        the exponent or `None`.
    """
    found = []
    for axis, name in dict.fromkeys((p["axis"], p["subject"]) for p in points):
        curve = [
            p
            for p in points
            if (p["axis"], p["subject"]) == (axis, name) and p["seconds"]
        ]
        starts = {min(map(position, curve), default=0)}
        if axis == "resolution":
            starts.add(DOMINATED_FROM)
        for least in sorted(starts):
            part = [p for p in curve if position(p) >= least]
            if len(part) < 2:
                continue
            found.append(
                {
                    "axis": axis,
                    "subject": name,
                    "from": min(map(position, part)),
                    **{key: slope(part, key) for key in ("seconds", "gmacs")},
                }
            )
    return found


def position(point):
    """Where a point is on its axis; resolution is counted in tokens."""
    is_resolution = point["axis"] == "resolution"
    return point["tokens"] if is_resolution else point["value"]


def slope(points, key):
    """The exponent of a power law, by least squares of the logarithms."""
    if any(p[key] is None for p in points):
        return None
    x = [math.log(position(p)) for p in points]
    y = [math.log(p[key]) for p in points]
    return statistics.linear_regression(x, y).slope


if __name__ == "__main__":
    main()
