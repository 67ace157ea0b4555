"""The results of `scaling` as Markdown and as a PNG chart."""

from benchmarks import markdown

AXES = {
    "resolution": "tokens of an image",
    "batch": "images in a batch, 112 x 112 pixels",
    "depth": "blocks, images of 224 x 224 pixels",
}


def page(results):
    """Returns the Markdown page with the tables and the exponents."""
    parts = [
        f"{markdown.origin(results)} Medians of {results['rounds']} rounds.",
        exponents(results["exponents"]),
    ]
    for axis in axes_of(results):
        parts.append(f"### Seconds of a forward pass: {AXES[axis]}")
        parts.append(table(results["points"], axis, seconds))
        parts.append(f"### Peak memory of the process [GB]: {AXES[axis]}")
        parts.append(table(results["points"], axis, gigabytes))
    return "\n\n".join(parts) + "\n"


def axes_of(results):
    return list(dict.fromkeys(p["axis"] for p in results["points"]))


def exponents(rows):
    lines = [
        "Exponents of power laws, fitted to the times, and to the numbers of "
        "multiply-adds in the matrix products.",
        "",
        "| model | axis | from | time | multiply-adds |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows:
        macs = "" if row["gmacs"] is None else f"{row['gmacs']:.2f}"
        lines.append(
            f"| {row['subject']} | {AXES[row['axis']]} | {row['from']} "
            f"| {row['seconds']:.2f} | {macs} |"
        )
    return "\n".join(lines)


def seconds(point):
    if point["seconds"] is None:
        return f"not measured: {point['reason']}"
    return f"{point['seconds']:.4g}"


def gigabytes(point):
    return f"{point['memory'] / 1e9:.2f}" if point["memory"] else ""


def table(points, axis, text):
    """Rows are models, columns are values of an axis."""
    points = [p for p in points if p["axis"] == axis]
    values = list(dict.fromkeys(p["value"] for p in points))
    heads = {p["value"]: str(p["value"]) for p in points}
    if axis == "resolution":
        heads = {
            p["value"]: f"{p['value']} px, {p['tokens']} tokens" for p in points
        }
    lines = [
        "| model | " + " | ".join(heads[value] for value in values) + " |",
        "|---|" + "---:|" * len(values),
    ]
    for name in dict.fromkeys(p["subject"] for p in points):
        cells = {p["value"]: text(p) for p in points if p["subject"] == name}
        row = " | ".join(cells.get(value, "") for value in values)
        lines.append(f"| {name} | {row} |")
    return "\n".join(lines)


def draw(results, path):
    """Draws time and memory over each axis, in logarithmic scales."""
    from matplotlib.figure import Figure

    axes_names = axes_of(results)
    lines = [
        line
        for line in (
            ("seconds", "time of a forward pass [s]", 1),
            ("memory", "peak memory of the process [GB]", 1e-9),
        )
        if any(point[line[0]] for point in results["points"])
    ]
    if not lines:
        return
    # A model has the same color in all panels, also where others are missing.
    names = dict.fromkeys(p["subject"] for p in results["points"])
    colors = {name: f"C{i}" for i, name in enumerate(names)}
    size = (4.6 * len(axes_names), 3.7 * len(lines))
    figure = Figure(size, layout="constrained", facecolor="white")
    panels = figure.subplots(len(lines), len(axes_names), squeeze=False)
    for row, (key, label, unit) in enumerate(lines):
        for column, axis in enumerate(axes_names):
            points = [p for p in results["points"] if p["axis"] == axis]
            draw_panel(panels[row][column], points, key, unit, colors)
            panels[row][column].set(xlabel=AXES[axis], ylabel=label)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5)
    figure.savefig(path, dpi=110)


def draw_panel(axes, points, key, unit, colors):
    is_resolution = points[0]["axis"] == "resolution"
    place = "tokens" if is_resolution else "value"
    for name in dict.fromkeys(p["subject"] for p in points):
        curve = [p for p in points if p["subject"] == name and p[key]]
        axes.plot(
            [p[place] for p in curve],
            [unit * p[key] for p in curve],
            "o-",
            color=colors[name],
            label=name,
            markersize=4,
        )
    axes.set(xscale="log", yscale="log")
    ticks = sorted({p[place] for p in points})
    axes.set_xticks(ticks, ticks)
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
