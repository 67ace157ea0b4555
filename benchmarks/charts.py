"""The results as a PNG chart: bars of images per second."""

from benchmarks import rounds

OURS, PEERS, ROOF = "#1f6fb4", "#9a9a9a", "#c0392b"


def draw(results, path):
    """Draws one panel for each column, the fastest contender on top.

    Args:
        results: Dict, the content of `results.json`.
        path: Path of the PNG file to write.
    """
    from matplotlib.figure import Figure

    columns = [each for each in results["columns"] if rounds.rates(each)]
    if not columns:
        return
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    most = max(len(rounds.rates(each)) for each in columns)
    figure = Figure(
        (5.2 * across, down * (1.2 + 0.21 * most)),
        layout="constrained",
        facecolor="white",
    )
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, column in zip(panels, columns, strict=False):
        draw_column(axes, column)
    for axes in panels[len(columns) :]:
        axes.axis("off")
    figure.suptitle(
        "Images per second: median, 10 % and 90 % of the rounds\n"
        "blue: keras_mixer, gray: peers, red: matrix products alone",
        fontsize=9,
    )
    figure.savefig(path, dpi=110)


def draw_column(axes, column):
    found = rounds.rates(column)
    ours = {row["contender"] for row in column["rows"] if row["is_ours"]}
    names = sorted(found, key=lambda name: found[name][0])
    for place, name in enumerate(names):
        median, low, high = found[name]
        axes.barh(
            place,
            median,
            xerr=[[median - low], [high - median]],
            color=OURS if name in ours else PEERS,
            error_kw={"elinewidth": 0.8, "capsize": 1.5},
        )
        axes.text(high, place, f"  {median:.3g}", va="center", fontsize=7)
    roof = rounds.roof_of(column)
    if roof:
        axes.axvline(roof, color=ROOF, linestyle="--", linewidth=1)
    # Room for the numbers beside the bars.
    axes.set_xlim(0, 1.15 * axes.get_xlim()[1])
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("images per second", fontsize=8)
    axes.set_title(column["name"], fontsize=9)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
