"""Compares the speed and the memory of models with those of other libraries.

    python -m benchmarks --output FOLDER
    python -m benchmarks --output FOLDER --plan scaling
    python -m benchmarks --output FOLDER --models mixer_b16 --contenders timm

It writes `results.json`, `results.md` (the table) and `results.png` (the chart)
into the folder. A contender that is not installed, or that fails, is in the
table with the reason. docs/speed.md describes what is measured and how.
"""

import argparse
import datetime
import json
import pathlib
import shlex
import shutil
import sys

from benchmarks import cases
from benchmarks import contenders
from benchmarks import measuring
from benchmarks import output
from keras_mixer.arguments import check_local_path


def main(arguments=None):
    parser = make_parser()
    args = parser.parse_args(arguments)
    if args.list:
        print(listing())
        return
    try:
        check(args)
        columns = chosen(args)
    except ValueError as error:
        parser.error(str(error))
    device = args.device
    if device == "auto":
        device = "gpu" if shutil.which("nvidia-smi") else "cpu"
    given = sys.argv[1:] if arguments is None else arguments
    results = {
        "command": shlex.join(["python", "-m", "benchmarks", *map(str, given)]),
        "date": datetime.datetime.now().strftime("%Y-%m-%d"),
        "device": device,
        **measuring.measure(columns, rows_of(args), device, args),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    data = json.dumps(results, indent=1)
    (args.output / "results.json").write_text(data, "utf-8")
    (args.output / "results.md").write_text(output.page(results), "utf-8")
    output.draw(results, args.output / "results.png")
    print(args.output / "results.md")


def make_parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=pathlib.Path, help="new folder for the results")
    add("--plan", choices=list(cases.PLANS), default="standard")
    add("--models", nargs="+", metavar="NAME", help="only these of the plan")
    add(
        "--contenders",
        nargs="+",
        metavar="NAME",
        help="only these processes or rows: `ours-torch`, `timm.compiled`",
    )
    add("--batch", type=int, help="replaces the batch sizes of the plan")
    add("--rounds", type=int, default=7)
    add("--seconds", type=float, default=0.3, help="least time of a round")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto")
    add("--no-memory", action="store_true", help="measure no peak memory")
    add("--list", action="store_true", help="show all names and the plans")
    return parser


def check(args):
    """Checks all options before anything is measured."""
    if args.output is None:
        raise ValueError("`--output` is required: the path of a new folder.")
    check_local_path("output", args.output)
    is_used = args.output.exists() and (
        not args.output.is_dir() or any(args.output.iterdir())
    )
    if is_used:
        raise ValueError(
            "`--output` must be the path of a new or an empty folder. "
            f"Received: '{args.output}'"
        )
    models = list(dict.fromkeys(c.model.name for c in cases.PLANS[args.plan]))
    check_names("--models", args.models, models)
    check_names("--contenders", args.contenders, contenders.names())
    for name in ("batch", "rounds", "seconds"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise ValueError(f"`--{name}` must be positive. Received: {value}")


def check_names(option, received, known):
    unknown = [name for name in received or () if name not in known]
    if unknown:
        raise ValueError(
            f"`{option}` must be among {list(known)}. Received: {unknown}"
        )


def chosen(args):
    """Returns the columns that the options ask for."""
    columns = [
        column.with_batch(args.batch)
        for column in cases.PLANS[args.plan]
        if args.models is None or column.model.name in args.models
    ]
    columns = list(dict.fromkeys(columns))
    if not any(map(rows_of(args), columns)):
        raise ValueError(
            "No contender runs these columns. See `--list`. "
            f"Received: {args.contenders}"
        )
    return columns


def rows_of(args):
    def rows(column):
        return [
            each
            for each in contenders.CONTENDERS
            if each.runs(column) and each.is_among(args.contenders)
        ]

    return rows


def listing():
    lines = ["contenders:"]
    lines += [f"  {each.name}" for each in contenders.CONTENDERS]
    for name, columns in cases.PLANS.items():
        lines += [f"plan {name}:", *(f"  {column.name}" for column in columns)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
