"""The results of `scaling` as Markdown and as a PNG chart."""

from benchmarks import markdown

AXES = {
    "resolution": "tokens of an image",
    "batch": "images in a batch, 112 x 112 pixels",
    "depth": "blocks, images of 224 x 224 pixels",
}
# Lines of panels: the key of a point, the label, and the unit of the label.
LINES = (
    ("seconds", "time of a forward pass [s]", 1),
    ("memory", "peak memory of the process [GB]", 1e-9),
)


def page(results):
    """Returns the Markdown page with the tables and the exponents."""
    parts = [
        f"{markdown.origin(results)} Medians of {results['rounds']} rounds.",
        exponents(results["exponents"]),
    ]
    for axis in axes_of(results["points"]):
        points = [p for p in results["points"] if p["axis"] == axis]
        parts.append(f"### Seconds of a forward pass: {AXES[axis]}")
        parts.append(table(points, axis, seconds))
        if any(p["memory"] for p in points):
            parts.append(f"### Peak memory of the process [GB]: {AXES[axis]}")
            parts.append(table(points, axis, gigabytes))
    return "\n\n".join(parts) + "\n"


def axes_of(points):
    return list(dict.fromkeys(p["axis"] for p in points))


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
    """Draws the times and the memory that were measured into a PNG file."""
    points = results["points"]
    lines = [line for line in LINES if any(p[line[0]] for p in points)]
    if lines:
        make_figure(points, lines).savefig(path, dpi=110)


def make_figure(points, lines):
    """Returns a figure with one column for each axis, in logarithmic scales.

    A panel without a measured value stays empty.

    Args:
        points: List of the points of `scaling.json`.
        lines: Items of `LINES`, one for each line of panels.
    """
    from matplotlib.figure import Figure

    # A model has the same color in all panels, also where others are missing.
    names = dict.fromkeys(p["subject"] for p in points)
    colors = {name: f"C{i}" for i, name in enumerate(names)}
    names_of_axes = axes_of(points)
    size = (4.6 * len(names_of_axes), 3.7 * len(lines))
    figure = Figure(size, layout="constrained", facecolor="white")
    panels = figure.subplots(len(lines), len(names_of_axes), squeeze=False)
    legend = {}
    for row, (key, label, unit) in enumerate(lines):
        for panel, axis in zip(panels[row], names_of_axes, strict=True):
            measured = [p for p in points if p["axis"] == axis and p[key]]
            if not measured:
                panel.axis("off")
                continue
            legend |= draw_panel(panel, measured, key, unit, colors)
            panel.set(xlabel=AXES[axis], ylabel=label)
    figure.legend(
        legend.values(), legend.keys(), loc="outside upper center", ncols=5
    )
    return figure


def draw_panel(panel, points, key, unit, colors):
    """Draws a curve for each model, and returns the curves by name."""
    from matplotlib.ticker import LogLocator

    is_resolution = points[0]["axis"] == "resolution"
    place = "tokens" if is_resolution else "value"
    curves = {}
    for name in dict.fromkeys(p["subject"] for p in points):
        curve = [p for p in points if p["subject"] == name]
        (curves[name],) = panel.plot(
            [p[place] for p in curve],
            [unit * p[key] for p in curve],
            "o-",
            color=colors[name],
            markersize=4,
        )
    panel.set(xscale="log", yscale="log")
    # 0.1, 0.2, 0.5, 1 instead of powers of ten.
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter("")
    ticks = sorted({p[place] for p in points})
    panel.set_xticks(ticks, ticks)
    panel.set_xticks([], minor=True)
    panel.grid(alpha=0.3)
    return curves
