"""The table and the chart of the results."""

import math
import statistics


def page(results):
    """Returns the Markdown page with the table."""
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    parts = [
        f"Measured on {results['date']} by `{results['command']}`: "
        f"{results['machine']}, device {results['device']}; {versions}. "
        f"Medians of {results['rounds']} rounds, and the values below which "
        "10 % and 90 % of the rounds are.",
        table(results["columns"]),
    ]
    found = exponents(results["columns"])
    if found:
        parts.append(
            "Exponents of power laws over the tokens of an image, fitted to "
            "the times and to the multiply-adds of the matrix products."
        )
        parts.append("\n".join(found))
    return "\n\n".join(parts) + "\n"


def table(columns):
    lines = [
        "| case | contender | images/s | 10 to 90 % | of the peer | GB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for column in columns:
        rates = {row["contender"]: rate(column, row) for row in column["rows"]}
        for row in column["rows"]:
            lines.append(
                f"| {column['name']} | `{row['contender']}` | "
                + " | ".join(cells(row, rates))
                + " |"
            )
    return "\n".join(lines)


def cells(row, rates):
    if row["reason"] is not None:
        return [f"not measured: {row['reason']}", "", "", ""]
    own = rates[row["contender"]]
    peer = rates.get(row["peer"])
    memory = row.get("memory")
    return [
        f"{own[0]:.3g}",
        f"{own[1]:.3g} to {own[2]:.3g}",
        f"{own[0] / peer[0]:.2f} (`{row['peer']}`)" if peer else "",
        f"{memory / 1e9:.2f}" if memory else "",
    ]


def rate(column, row):
    """Images per second: `(median, 10 %, 90 %)`, or `None`."""
    if row["reason"] is not None:
        return None
    values = sorted(column["batch"] / seconds for seconds in row["seconds"])
    last = len(values) - 1
    low, high = values[round(0.1 * last)], values[round(0.9 * last)]
    return statistics.median(values), low, high


def curves(columns):
    """Returns `{(model, contender): [(tokens, seconds, multiply-adds)]}`."""
    found = {}
    for column in columns:
        if column["is_scaling"]:
            for row in column["rows"]:
                if row["reason"] is None:
                    key = column["model"], row["contender"]
                    seconds = statistics.median(row["seconds"])
                    point = column["tokens"], seconds, column["macs"]
                    found.setdefault(key, []).append(point)
    return found


# From here on, products take most of the time: images of 224 x 224 pixels.
DOMINATED_FROM = 196


def exponents(columns):
    """Returns the lines of a table of the exponents of power laws."""
    lines = []
    for (model, _), points in curves(columns).items():
        for least in (0, DOMINATED_FROM):
            part = [point for point in points if point[0] >= least]
            if len(part) > 1 and not (least and len(part) == len(points)):
                tokens, seconds, macs = zip(*part, strict=True)
                cost = "" if None in macs else f"{slope(tokens, macs):.2f}"
                time = f"{slope(tokens, seconds):.2f}"
                lines.append(f"| {model} | {tokens[0]} | {time} | {cost} |")
    heads = "| model | from tokens | time | multiply-adds |"
    return [heads, "|---|---:|---:|---:|", *lines] if lines else []


def slope(x, y):
    """The exponent of a power law, by least squares of the logarithms."""
    logarithms = ([math.log(value) for value in values] for values in (x, y))
    return statistics.linear_regression(*logarithms).slope


def draw(results, path):
    """Draws the chart: bars of images per second, and curves over tokens."""
    from matplotlib.figure import Figure

    bars = [column for column in results["columns"] if not column["is_scaling"]]
    lines = curves(results["columns"])
    panels = len(bars) + bool(lines)
    figure = Figure((7, 3.6 * panels), layout="constrained", facecolor="white")
    axes = figure.subplots(panels, squeeze=False)[:, 0]
    for panel, column in zip(axes, bars, strict=False):
        rows = [r for r in column["rows"][::-1] if r["reason"] is None]
        values = [rate(column, row)[0] for row in rows]
        colors = ["C0" if row["peer"] else "C7" for row in rows]
        panel.barh([row["contender"] for row in rows], values, color=colors)
        panel.set(title=column["name"], xlabel="images per second")
    for (model, _), points in lines.items():
        tokens, seconds, _ = zip(*points, strict=True)
        axes[-1].plot(tokens, seconds, "o-", markersize=4, label=model)
    if lines:
        axes[-1].set(
            xscale="log",
            yscale="log",
            xlabel="tokens of an image",
            ylabel="seconds of a forward pass",
        )
        axes[-1].legend()
    figure.savefig(path, dpi=110)
