"""The results as a page of Markdown tables."""

from benchmarks import contenders
from benchmarks import rounds


def page(results):
    """Returns the page with all tables.

    Args:
        results: Dict, the content of `results.json`.
    """
    columns = results["columns"]
    parts = [header(results), pairs(columns), overview(columns)]
    parts += [details(column) for column in columns]
    parts.append(missing(columns))
    return "\n\n".join(part for part in parts if part) + "\n"


def origin(results):
    """Returns the sentence that names date, command, machine and versions."""
    machine = results["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    return (
        f"Measured on {results['date']} by `{results['command']}`: "
        f"{machine['cores']} cores of {machine['cpu']} "
        f"({', '.join(machine['flags'])}), Python {machine['python']}, "
        f"{versions}."
    )


def header(results):
    machine = results["machine"]
    lines = [
        origin(results),
        "Devices: "
        + "; ".join(f"{k}: {v}" for k, v in results["devices"].items())
        + ".",
    ]
    if machine["environment"]:
        lines.append(f"Environment variables: {machine['environment']}.")
    shares = rounds.other_work(results["columns"])
    if shares:
        lines.append(
            f"Other work had {100 * rounds.percentile(shares, 0.5):.0f} % of "
            "the processors in the median round, and "
            f"{100 * rounds.percentile(shares, 0.9):.0f} % in one of ten."
        )
    imports = ", ".join(
        f"{name} {seconds:.1f}" for name, seconds in results["imports"].items()
    )
    lines.append(f"Import of each process [s]: {imports}.")
    return "\n".join(lines)


HEADS = ("case", "form", "images/s", "peer", "of the peer", "ratio", "GB")


def pairs(columns):
    """One line for each row that has a peer of the same form."""
    lines = [
        pair(column, *each)
        for column in columns
        for each in contenders.PAIRS
        if rounds.ratio(column, *each[1:]) is not None
    ]
    if not lines:
        return ""
    return "\n".join(
        [
            "Images per second beside the peer that runs the same form, and, "
            "where it was measured, the peak memory of both in GB.",
            "",
            table_row(HEADS),
            table_row(["---", "---", "---:", "---", *["---:"] * 3]),
            *lines,
        ]
    )


def pair(column, form, name, peer):
    found = rounds.rates(column)
    sizes = [rounds.memory(column, each) for each in (name, peer)]
    return table_row(
        [
            column["name"],
            form,
            f"{found[name][0]:.3g}",
            f"`{peer}`",
            f"{found[peer][0]:.3g}",
            f"{rounds.ratio(column, name, peer):.2f}",
            "" if None in sizes else "{:.2f} / {:.2f}".format(*sizes),
        ]
    )


def overview(columns):
    """Rows are contenders, columns are cases, cells are rates and ratios."""
    names = list(
        dict.fromkeys(
            row["contender"]
            for column in columns
            for row in column["rows"]
            if not row["is_roof"]
        )
    )
    if not names:
        return ""
    titles = [column["name"].replace(", ", "<br>") for column in columns]
    lines = [
        "Images per second, and in brackets the ratio to the best peer of the "
        "column, which is bold.",
        "",
        table_row(["contender", *titles]),
        table_row(["---", *["---:"] * len(columns)]),
    ]
    peers = [rounds.best_peer(column) for column in columns]
    for name in names:
        cells = [
            cell(column, name, peer)
            for column, peer in zip(columns, peers, strict=True)
        ]
        lines.append(table_row([f"`{name}`", *cells]))
    roofs = [rounds.roof_of(column) for column in columns]
    cells = [f"{each:.3g}" if each else "" for each in roofs]
    lines.append(table_row(["roof: matrix products alone", *cells]))
    return "\n".join(lines)


def table_row(cells):
    return "| " + " | ".join(cells) + " |"


def cell(column, name, peer):
    (row, *_) = [r for r in column["rows"] if r["contender"] == name] or [None]
    if row is None:
        return ""
    found = rounds.rates(column).get(name)
    if found is None:
        return "not measured"
    text = f"{found[0]:.3g}"
    if name == peer:
        return f"**{text}**"
    share = rounds.ratio(column, name, peer)
    return text if share is None else f"{text} ({share:.2f})"


DETAILS = (
    "contender",
    "ms: median",
    "10 %",
    "90 %",
    "images/s",
    "to best peer",
    "to peer of the same framework",
    "of the roof [%]",
    "build [s]",
    "first call [s]",
    "memory [GB]",
)


def details(column):
    """One table for a column, the fastest contender first."""
    found = rounds.rates(column)
    lines = [
        f"### {column['name']}",
        "",
        table_row(DETAILS),
        table_row(["---", *["---:"] * (len(DETAILS) - 1)]),
    ]
    rows = [row for row in column["rows"] if row["contender"] in found]
    rows.sort(key=lambda row: -found[row["contender"]][0])
    lines += [table_row(detail(column, row)) for row in rows]
    for row in column["rows"]:
        if row["contender"] not in found and not row["is_roof"]:
            cells = [f"`{row['contender']}`", f"not measured: {row['reason']}"]
            lines.append(table_row(cells + [""] * (len(DETAILS) - 2)))
    return "\n".join(lines)


def detail(column, row):
    name = row["contender"]
    same = rounds.best_peer(column, row["framework"])
    roof = rounds.roof_of(column)
    rate = rounds.rates(column)[name][0]
    return [
        f"`{name}`",
        *(f"{1e3 * seconds:.4g}" for seconds in rounds.times(row)),
        f"{rate:.3g}",
        number(rounds.ratio(column, name, rounds.best_peer(column))),
        number(rounds.ratio(column, name, same) if row["is_ours"] else None),
        number(100 * rate / roof if roof else None, ".0f"),
        number(row.get("fresh_build", row.get("build"))),
        number(row.get("fresh_first_call", row.get("first_call"))),
        number(rounds.memory(column, name)),
    ]


def number(value, form=".2f"):
    return "" if value is None else format(value, form)


def missing(columns):
    """The contenders that were not measured, and why."""
    reasons = {}
    for column in columns:
        for row in column["rows"]:
            if row["reason"] is not None:
                key = row["contender"], row["reason"]
                reasons.setdefault(key, []).append(column["name"])
    if not reasons:
        return ""
    lines = ["### Not measured", "", "| contender | why | columns |"]
    lines.append("|---|---|---|")
    for (name, reason), where in reasons.items():
        places = "all" if len(where) == len(columns) else "; ".join(where)
        lines.append(table_row([f"`{name}`", reason, places]))
    return "\n".join(lines)
