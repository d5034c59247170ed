"""One self-contained HTML page of `bdlit inspect`: facts, differences, and heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log10, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.atomic import whole_file
from bdlit.drawing.style import INK, PAPER, QUIET, new_figure, plain
from bdlit.drawing.svg import inline_svg
from bdlit.formatting import percent, printable
from bdlit.inspection.distance import Distance, combine, grouped
from bdlit.inspection.distance_table import ordered_modules
from bdlit.inspection.facts import Inspection
from bdlit.inspection.terminal import (
    Comparison,
    difference_facts,
    facts,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OUTSIDE = "all"  # column of a module over all of its layers, or without any
_MOST_NUMBERS = 32  # columns whose cells still have room for their number


def write_inspection_page(
    path: Path, found: Sequence[Inspection], comparisons: Sequence[Comparison] = ()
) -> None:
    """Write what was found as a page that needs no network and follows the reader's light or dark.

    Args:
        path: The HTML file; it appears whole or not at all.
        found: One checkpoint or several.
        comparisons: All but the first of them, each compared with the first.

    Raises:
        BdlitError: There are distances to draw and matplotlib is not installed, or the file cannot
            be written.
    """
    page = _render(found, comparisons)
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")


def distance_plot(comparison: Comparison) -> Figure:
    """Draw relative L2 distances as a heat map of modules against layers, on a logarithmic scale.

    The column `all` is a module over all layers; modules outside the layers have that one alone.
    White cells are those without any distance.

    Args:
        comparison: Two checkpoints with at least one distance between them.

    Raises:
        BdlitError: Matplotlib is not installed.
    """
    modules = ordered_modules(comparison.distances)
    layers = sorted({d.at.layer for d in comparison.distances if d.at.layer is not None})
    cells = grouped(comparison.distances, lambda at: (at.module, at.layer))
    whole = grouped(comparison.distances, lambda at: at.module)
    rows = [[*(cells.get((m, layer)) for layer in layers), whole[m]] for m in modules]
    columns = [*map(str, layers), _OUTSIDE]
    width = 2.6 + 0.46 * len(columns) + 0.07 * max(map(len, modules))
    figure = new_figure(min(width, 24.0), 1.1 + 0.3 * len(modules))
    axes = figure.subplots()
    _heat(axes, rows)
    axes.set_xticks([i + 0.5 for i in range(len(columns))], columns)
    axes.set_yticks([i + 0.5 for i in range(len(modules))], [plain(printable(m)) for m in modules])
    axes.set_xlabel("layer", color=INK)
    return figure


def _heat(axes: Axes, rows: Sequence[Sequence[Distance | None]]) -> None:
    from matplotlib.colors import LogNorm

    values = [[_drawn(cell) for cell in row] for row in rows]
    drawn = [value for row in values for value in row if isfinite(value)]
    low, high = (min(drawn), max(drawn)) if drawn else (0.01, 1.0)
    # At least a factor of ten from end to end: small differences should not look like large ones.
    norm = LogNorm(min(low, high / 10), high)
    mesh = axes.pcolormesh(values, norm=norm, cmap="YlOrRd", edgecolors=PAPER, linewidth=1)
    axes.invert_yaxis()
    axes.set_aspect("auto")
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_visible(False)
    if len(rows[0]) <= _MOST_NUMBERS:
        _write_numbers(axes, rows, norm)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.01, aspect=30, shrink=0.9)
    bar.set_label("relative L2 distance, in percent", color=INK, fontsize=8)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_edgecolor(QUIET)


def _write_numbers(axes: Axes, rows: Sequence[Sequence[Distance | None]], norm: Any) -> None:
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            if cell is None:
                continue
            value = _drawn(cell)
            # Black on light cells, white on dark ones; a cell without colour has the page's.
            dark = isfinite(value) and norm(value) > 0.65
            colour = ("#ffffff" if dark else "#000000") if isfinite(value) else INK
            axes.text(
                *(x + 0.5, y + 0.5, percent(cell.relative_l2)),
                ha="center",
                va="center",
                fontsize=7,
                color=colour,
            )


def _drawn(cell: Distance | None) -> float:
    """Return a distance in percent; None and values that are not finite get no colour."""
    value = cell.relative_l2 if cell else None
    return 100 * value if value and isfinite(value) and log10(value) > -300 else nan


def _render(found: Sequence[Inspection], comparisons: Sequence[Comparison]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Names come from files of others: every one is escaped.
    environment = Environment(
        loader=PackageLoader("bdlit.inspection"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("inspection.html").render(
        title=", ".join(printable(inspection.address) for inspection in found),
        checkpoints=[(printable(inspection.address), facts(inspection)) for inspection in found],
        comparisons=[_section(comparison) for comparison in comparisons],
    )


def _section(comparison: Comparison) -> dict[str, Any]:
    apart = comparison.distances
    whole = combine(apart, "all") if apart else None
    return {
        "first": printable(comparison.first),
        "other": printable(comparison.other),
        "facts": difference_facts(comparison.differences),
        "figure": inline_svg(distance_plot(comparison)) if apart else "",
        "distance": percent(whole.relative_l2) if whole else None,
        "cosine": whole.cosine if whole else None,
    }
