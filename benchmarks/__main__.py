"""Compares the speed of models with that of other libraries.

    python -m benchmarks --output FOLDER
    python -m benchmarks --output FOLDER --models mixer_b16 --modes train fit
    python -m benchmarks --join FOLDER FOLDER --output FOLDER

It writes `results.json`, `results.md` and `results.png` into the folder. A
contender that is not installed, or that fails, is named there with the reason.
docs/speed.md describes what is measured and how.
"""

import argparse
import contextlib
import datetime
import json
import pathlib
import shlex
import shutil
import signal
import sys

from benchmarks import cases
from benchmarks import charts
from benchmarks import contenders
from benchmarks import markdown
from benchmarks import measuring
from benchmarks import writing
from benchmarks.processes import Workers


def main(arguments=None):
    parser = make_parser()
    args = parser.parse_args(arguments)
    if args.list:
        print(listing())
        return
    with errors_to(parser):
        check(args)
        results = joined(args.join, args.models) if args.join else run(args)
        results["command"] = command("benchmarks", arguments)
        page = markdown.page(results)
        paths = writing.write(args.output, results, page, charts.draw)
        print(*paths, sep="\n")


@contextlib.contextmanager
def errors_to(parser):
    """Prints wrong values of options as argparse does."""
    try:
        yield
    except ValueError as error:
        parser.error(str(error))


def make_parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--models", nargs="+", metavar="NAME", help="models to measure")
    add(
        "--contenders",
        "--backends",
        nargs="+",
        metavar="NAME",
        help="processes or single contenders, such as `ours-torch` or "
        "`timm.compiled`; a backend stands for the contenders of this library",
    )
    add("--modes", nargs="+", metavar="MODE", default=list(cases.MODES))
    add("--batch", type=int, help="replaces the batch sizes of the plan")
    add("--dtypes", nargs="+", metavar="DTYPE", help="replaces the dtypes")
    add("--rounds", type=int, help="rounds of each column (default: 7)")
    add(
        "--seconds",
        type=float,
        help="least time of one contender in one round (default: 0.3)",
    )
    add("--device", default="auto", help="auto, cpu or gpu (default: auto)")
    add(
        "--memory",
        default="some",
        choices=("some", "all", "none"),
        help="in which columns to measure peak memory, in fresh processes "
        "(default: some)",
    )
    add("--short", action="store_true", help="a plan of about three minutes")
    add(
        "--join",
        nargs="+",
        metavar="FOLDER",
        help="results to put together, of all models or of --models",
    )
    add("--output", type=pathlib.Path, help="new folder for the results")
    add("--list", action="store_true", help="show all names and the plan")
    return parser


def check(args):
    """Checks all options before anything is measured."""
    if args.output is None:
        raise ValueError("`--output` is required: the path of a new folder.")
    writing.check_output(args.output)
    if args.contenders:
        args.contenders = [
            f"ours-{name}" if name in contenders.BACKENDS else name
            for name in args.contenders
        ]
    check_names("--models", args.models, cases.MODELS)
    known = [*contenders.BACKENDS, *contenders.groups()]
    check_names("--contenders", args.contenders, known)
    check_names("--modes", args.modes, cases.MODES)
    check_names("--dtypes", args.dtypes, cases.DTYPES)
    check_names("--device", [args.device], cases.DEVICES)
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


def run(args):
    """Measures, and returns the results as JSON values."""
    args.rounds = args.rounds or (3 if args.short else 7)
    args.seconds = args.seconds or (0.2 if args.short else 0.3)
    plan = cases.SHORT if args.short else cases.STANDARD
    columns = cases.choose(
        plan, args.models, args.modes, args.batch, args.dtypes
    )

    def rows_of(column):
        return [
            each
            for each in contenders.CONTENDERS
            if each.is_in(column, args.modes, args.contenders)
        ]

    if not any(map(rows_of, columns)):
        raise ValueError(
            "No contender has these models, modes and dtypes. See `--list`. "
            f"Received: {args.contenders}"
        )
    return collect(columns, rows_of, args)


def collect(columns, rows_of, args):
    """Starts the processes and measures the columns."""
    device = args.device
    if device == "auto":
        device = "gpu" if shutil.which("nvidia-smi") else "cpu"
    date = datetime.datetime.now().strftime("%Y-%m-%d")
    # `kill` ends the processes of the frameworks too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    with Workers(device) as workers:
        measured = measuring.measure(columns, rows_of, workers, args, say)
        return {
            "date": date,
            "device": device,
            "machine": measuring.machine(),
            "versions": dict(sorted(workers.versions.items())),
            "devices": workers.devices,
            "imports": workers.imports,
            "rounds": args.rounds,
            "columns": measured,
        }


def say(line):
    print(line, file=sys.stderr, flush=True)


def command(module, arguments):
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", "-m", module, *map(str, given)])


def joined(folders, models=None):
    """The columns of several results of one machine, of some or all models."""
    parts = []
    for folder in folders:
        path = pathlib.Path(folder, "results.json")
        if not path.exists():
            raise ValueError(
                f"`--join` takes folders with results. Received: '{folder}'"
            )
        parts.append(json.loads(path.read_text("utf-8")))
    if any(part["machine"] != parts[0]["machine"] for part in parts):
        raise ValueError(
            "`--join` takes results of one machine. Received: "
            f"{[part['machine'] for part in parts]}"
        )
    result = dict(parts[0])
    for key in ("versions", "devices", "imports"):
        result[key] = {k: v for part in parts for k, v in part[key].items()}
    columns = {c["name"]: c for part in parts for c in part["columns"]}
    result["columns"] = [
        column
        for column in columns.values()
        if models is None or column["model"] in models
    ]
    return result


def listing():
    lines = ["models: " + ", ".join(cases.MODELS)]
    lines.append("processes: " + ", ".join(contenders.PROCESSES))
    lines.append("backends: " + ", ".join(contenders.BACKENDS))
    lines.append("modes: " + ", ".join(cases.MODES))
    lines.append("dtypes: " + ", ".join(cases.DTYPES))
    lines.append("devices: " + ", ".join(cases.DEVICES))
    lines.append("contenders:")
    lines += [
        f"  {each.name:28} {', '.join(each.modes)}"
        for each in contenders.CONTENDERS
    ]
    lines.append("plan:")
    lines += [f"  {column.name}" for column in cases.STANDARD]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
