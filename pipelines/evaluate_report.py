"""What `tithe evaluate` found, as tables and as a picture."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tithe.transforms.errors import UsageError

TITLES = {
    "draws free": "Draws free: losses are asked for the anchors alone",
    "every loss counts": "Every loss counts: the sample's too, and what needs no anchors draws as many more records",
}
CAPTION = (
    "Root mean square error of the estimated total, in % of the total; +- half the 95 % interval of an error found by "
    "drawing, the others in closed form; in parentheses tithe's error over this one"
)
WIDTH = 110
"""Columns of a table that goes to no terminal."""


def console() -> Console:
    """Returns the console for reports: standard output."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=WIDTH)


def print_report(found: dict[str, Any], out: Console) -> None:
    """Prints a table for each accounting; `found` is what `evaluate` returned."""
    out.print(
        f"{found['records']:,} records, mean loss {found['mean_loss']:.5g}; {found['anchors']:,} anchors "
        f"({found['representatives']:,} representatives, {found['pilot']:,} in the pilot); "
        f"{found['seeds']:,} draws for each error without a closed form; one clustering and one pilot for all"
    )
    if found["chosen"]["sentence"]:
        out.print(f"the pilot says: {found['chosen']['sentence']}", markup=False)
    for accounting, title in TITLES.items():
        rows = [row for row in found["errors"] if row["accounting"] == accounting]
        if rows:
            out.print()
            out.print(_table(title, rows))
    out.print(CAPTION)


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("way to draw", no_wrap=True)
    sizes = sorted({row["size"] for row in rows})
    counted = rows[0]["accounting"] == "every loss counts"
    for size in sizes:
        losses = max(row["losses"] for row in rows if row["size"] == size)
        head = f"{losses:,} losses" if counted else f"{size:,} draws"
        table.add_column(head, justify="right", no_wrap=True)
    for way in dict.fromkeys(row["way"] for row in rows):
        cells = {row["size"]: _cell(row) for row in rows if row["way"] == way}
        table.add_row(way, *(cells.get(size, "") for size in sizes))
    return table


def _cell(row: dict[str, Any]) -> str:
    spread = "" if row["closed_form"] else f" +- {50 * (row['high'] - row['low']):.2f}"
    ratio = "" if row["ratio"] is None or row["way"] == "tithe" else f" ({row['ratio']:.2f})"
    return f"{100 * row['error']:.2f}{spread}{ratio}"


def check_picture(path: str) -> None:
    """Raises UsageError where a picture cannot be drawn to this path."""
    if not path.endswith((".png", ".svg", ".pdf")):
        raise UsageError(f"--picture {path}: name a .png, .svg or .pdf file")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--picture needs matplotlib; install it with pip install 'tithe[report]'") from None


def draw_picture(found: dict[str, Any], path: str) -> None:
    """Draws error against size, log-log, one panel for each accounting."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    titles = {
        "draws free": ("draws free", "draws", "draws"),
        "every loss counts": ("every loss counts", "losses", "losses asked for"),
    }
    for panel, (accounting, (title, against, label)) in zip(panels, titles.items(), strict=True):
        rows = [row for row in found["errors"] if row["accounting"] == accounting and row["error"] > 0]
        for number, way in enumerate(dict.fromkeys(row["way"] for row in found["errors"])):
            some = [row for row in rows if row["way"] == way]
            x, y = [row[against] for row in some], [100 * row["error"] for row in some]
            spread = [
                [100 * (row["error"] - row["low"]) for row in some],
                [100 * (row["high"] - row["error"]) for row in some],
            ]
            own = way == "tithe"
            panel.errorbar(
                x,
                y,
                yerr=spread,
                label=way,
                color=f"C{number}",
                marker="os^Dv"[number % 5],
                linewidth=2.5 if own else 1.3,
                capsize=2,
                zorder=3 if own else 2,
            )
        panel.set(xscale="log", yscale="log", title=title, xlabel=label)
        ticks = sorted({row[against] for row in rows})
        panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        panel.minorticks_off()
        panel.grid(True, alpha=0.3)
    errors = [100 * row["error"] for row in found["errors"] if row["error"] > 0]
    levels = [t for t in _LEVELS if min(errors) / 1.5 <= t <= 1.5 * max(errors)]
    panels[0].set_yticks(levels, [f"{level:g} %" for level in levels])
    panels[0].set_ylabel("root mean square error of the total")
    panels[0].minorticks_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


_LEVELS = [m * 10.0**e for e in range(-4, 3) for m in (1, 1.5, 2, 3, 5, 7)]
