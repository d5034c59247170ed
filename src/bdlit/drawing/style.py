"""How the figures look: colours, frames, legends, and names that are safe to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

from bdlit.errors import BdlitError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Legend: TypeAlias = Mapping[str, Sequence[tuple[str, dict[str, Any]]]]
"""Heading to entries, each a label and the style of its line or marker."""

INK = "#1f2430"
"""Colour of text and frames; a page puts its own text colour in its place."""
PAPER = "#fffffe"
"""Colour around points and labels; a page puts its own background in its place."""
QUIET = "#8a8f9c"
"""Colour of grids, floors and undefended bars: legible on white and on black."""

# Paul Tol's bright and muted schemes: told apart by colour-blind readers, on white and on black.
COLOURS = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"),
    *("#44aa99", "#999933", "#cc6677", "#88ccee", "#117733", "#882255"),
)
MARKERS = "os^DvP<>phd"


def can_draw() -> bool:
    """Return whether matplotlib is installed, for pictures that come only where it is."""
    return find_spec("matplotlib") is not None


def new_figure(width: float, height: float) -> Figure:
    """Begin a white figure of a size in inches.

    Raises:
        BdlitError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BdlitError('plots need matplotlib: pip install "bdlit[plots]"') from error
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_facecolor("white")
    return figure


def panels(
    names: Sequence[str], columns: int, size: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    """Make one figure with titled axes for each name, and room beside them for a legend.

    Args:
        names: Titles.
        columns: How many axes stand side by side.
        size: Width and height of the axes, in inches.

    Raises:
        BdlitError: Matplotlib is not installed.
    """
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(columns * size[0] + 2.0, rows * size[1])
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in every[len(names) :]:
        axes.remove()
    for axes, name in zip(every, names, strict=False):
        _frame(axes, name)
    return figure, every[: len(names)]


def _frame(axes: Axes, title: str) -> None:
    """Give axes a title, ASR in percent and a quiet frame."""
    from matplotlib.ticker import PercentFormatter

    axes.set_title(plain(title), loc="left", color=INK, fontsize=10, fontweight="bold")
    axes.set_ylabel("attack success rate (ASR)", color=INK)
    axes.set_ylim(-3, 105)
    axes.set_yticks(range(0, 101, 20))
    axes.yaxis.set_major_formatter(PercentFormatter(100))
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=QUIET, alpha=0.25, lw=0.6)
    axes.tick_params(colors=INK, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(QUIET)


def say_empty(axes: Axes) -> None:
    """Say why there is nothing in these axes."""
    words = "no poisoned victims among these results"
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", color=INK)
    axes.set_xticks([])


def add_title_and_legend(figure: Figure, title: str, legend: Legend) -> None:
    """Name a figure, and explain its colours, markers and lines beside its axes.

    Args:
        figure: Made by `panels`; it grows where the legend needs the height.
        title: What the figure shows.
        legend: Headings with their entries; headings without entries are left out.
    """
    from matplotlib.lines import Line2D

    figure.suptitle(title, color=INK, fontsize=12)
    handles: list[Line2D] = []
    labels: list[str] = []
    for heading, entries in legend.items():
        if entries:
            styles = [{}, {}, *(style for _, style in entries)]
            handles += [Line2D([], [], **({"linestyle": "none"} | style)) for style in styles]
            labels += ["", heading, *(plain(label) for label, _ in entries)]
    drawn = figure.legend(
        *(handles[1:], labels[1:]),  # no gap above the first heading
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )
    for text in drawn.get_texts():
        if text.get_text() in legend:
            text.set_fontweight("bold")
    figure.set_figheight(max(figure.get_figheight(), 0.2 * len(labels) + 0.3))


def plain(name: str) -> str:
    r"""Keep matplotlib from reading a name as mathematics, or as one to leave out of a legend.

    >>> plain("WAG ($2)")
    'WAG (\\$2)'
    """
    return ("\u200a" if name.startswith("_") else "") + name.replace("$", r"\$")
