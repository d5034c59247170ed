"""Two figures of a comparison: ASR against CACC, and ASR before and after each defense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from math import nan
from typing import TYPE_CHECKING

from bdlit.drawing.style import (
    COLOURS,
    INK,
    MARKERS,
    PAPER,
    QUIET,
    add_title_and_legend,
    panels,
    plain,
    say_empty,
)
from bdlit.evaluation.result import UNDEFENDED
from bdlit.report.lines import Line
from bdlit.report.row import Row
from bdlit.report.table import compare_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_LABELS = 36  # bars of one plot that still have room for their number


def asr_cacc_plot(rows: Sequence[Row]) -> Figure:
    """Draw ASR against CACC: one point per victim and defense, means over seeds.

    A colour is a victim, a marker a defense; small points are the single seeds. A dashed line is
    the benign floor of a victim's attack, the dotted line the benign models' clean
    accuracy: a perfect defense brings its victim to where the two cross.

    Args:
        rows: Measurements, from `collect`; each data set gets axes of its own.

    Raises:
        BdlitError: Matplotlib is not installed.
    """
    lines = [line for line in compare_table(rows) if line.cacc is not None and line.asr is not None]
    victims = [line for line in lines if not line.benign]
    colours = dict(zip(_names(victims), cycle(COLOURS), strict=False))
    markers = {UNDEFENDED: "X"} | dict(zip(_defenses(victims), cycle(MARKERS), strict=False))
    names = _data(victims)
    figure, every = panels(names, 2, (5.4, 4.3))
    for axes, name in zip(every, names, strict=True):
        here = [line for line in victims if line.data == name]
        if not here:
            say_empty(axes)
            continue
        _scatter(axes, here, colours, markers)
        benign = [line for line in lines if line.data == name and line.benign and line.undefended]
        for line in benign[:1]:  # its clean accuracy stands in the line of every attack
            axes.axvline(_drawn(line.cacc), color=QUIET, lw=1, ls=":")
    key = {
        "victim": [(_inline(name), {"marker": "o", "color": c}) for name, c in colours.items()],
        "defense": [(_defense(d), {"marker": m, "color": QUIET}) for d, m in markers.items()],
        "benign models": [
            ("floor (ASR)", {"linestyle": "--", "color": QUIET}),
            ("CACC", {"linestyle": ":", "color": QUIET}),
        ],
    }
    add_title_and_legend(figure, "Attack success against clean accuracy", key)
    return figure


def before_after_plot(rows: Sequence[Row]) -> Figure:
    """Draw the ASR of every victim before and after each defense, as bars.

    Whiskers are the 95% intervals of the table, small points the single seeds; a dashed line is
    the benign floor of the victim's attack.

    Args:
        rows: Measurements, from `collect`; each data set gets axes of its own.

    Raises:
        BdlitError: Matplotlib is not installed.
    """
    victims = [line for line in compare_table(rows) if not line.benign and line.asr is not None]
    colours = {UNDEFENDED: QUIET} | dict(zip(_defenses(victims), cycle(COLOURS), strict=False))
    names = _data(victims)
    most = max(sum(line.data == name for line in victims) for name in names)
    figure, every = panels(names, 1, (min(max(6.0, 1.5 + 0.36 * most), 15.0), 3.6))
    for axes, name in zip(every, names, strict=True):
        here = [line for line in victims if line.data == name]
        if here:
            _bars(axes, here, colours)
        else:
            say_empty(axes)
    key = {
        "defense": [(_defense(d), {"marker": "s", "color": c}) for d, c in colours.items()],
        "benign models": [("floor (ASR)", {"linestyle": "--", "color": INK})],
    }
    add_title_and_legend(figure, "Attack success before and after defense", key)
    return figure


def _scatter(
    axes: Axes, lines: Sequence[Line], colours: Mapping[str, str], markers: Mapping[str, str]
) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    before = {_name(line): line for line in lines if line.undefended}
    for line in lines:
        colour, start = colours[_name(line)], before.get(_name(line), line)
        cacc, asr = _drawn(line.cacc), _drawn(line.asr)
        from_to = [_drawn(start.cacc), cacc], [_drawn(start.asr), asr]
        axes.plot(*from_to, color=colour, lw=0.8, alpha=0.35)
        marker = markers[line.defense]
        if line.seeds > 1:
            caccs, asrs = (list(map(_drawn, line.by_seed(key))) for key in ("cacc", "asr"))
            axes.scatter(caccs, asrs, s=12, marker=marker, color=colour, alpha=0.45, lw=0)
        axes.plot(
            *(cacc, asr),
            marker=marker,
            markersize=8 if line.undefended else 7,
            markeredgecolor=PAPER,
            markeredgewidth=0.7,
            color=colour,
            zorder=3,
        )
    for name in _names(lines):
        floor = next(line.floor for line in lines if _name(line) == name)
        if floor is not None:
            axes.axhline(floor, color=colours[name], lw=1, ls="--", alpha=0.7)
    axes.set_xlabel("clean accuracy (CACC)", color=INK)
    axes.xaxis.set_major_formatter(PercentFormatter(100, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=3))
    axes.margins(x=0.12)
    # At least four points wide: a tenth of a point should not look like a difference.
    low, high = axes.get_xlim()
    wider = max(0.0, 4.0 - (high - low)) / 2
    axes.set_xlim(low - wider, high + wider)


def _bars(axes: Axes, lines: Sequence[Line], colours: Mapping[str, str]) -> None:
    ticks: dict[float, str] = {}
    left = 0
    for name in _names(lines):
        group = [line for line in lines if _name(line) == name]
        for place, line in enumerate(group, left):
            _bar(axes, place, line, colours[line.defense], labelled=len(lines) <= _MOST_LABELS)
        middle, reach = left + (len(group) - 1) / 2, len(group) / 2 + 0.1
        if group[0].floor is not None:
            axes.hlines(group[0].floor, middle - reach, middle + reach, color=INK, lw=1.2, ls="--")
        ticks[middle] = plain(name)
        left += len(group) + 1
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.margins(x=0.02)
    axes.set_ylim(bottom=0)


def _bar(axes: Axes, place: int, line: Line, colour: str, *, labelled: bool) -> None:
    from matplotlib.patheffects import withStroke

    asr = line.asr or 0.0
    interval = line.asr_interval
    low, high = (interval.low, interval.high) if interval else (asr, asr)
    axes.bar(place, asr, width=0.86, color=colour)
    # Rounding may put the end of an interval on the wrong side of 0 or 100.
    reach = [[max(0.0, asr - low)], [max(0.0, high - asr)]]
    axes.errorbar(place, asr, reach, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    if line.seeds > 1:
        values = list(map(_drawn, line.by_seed("asr")))
        axes.scatter(
            [place + 0.22] * len(values), values, s=7, color=INK, alpha=0.7, lw=0, zorder=3
        )
    if labelled:
        label = axes.annotate(
            *(f"{asr:.0f}", (place, max(asr, high))),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=INK,
        )
        label.set_path_effects([withStroke(linewidth=2.5, foreground=PAPER)])


def _drawn(value: float | None) -> float:
    """Matplotlib draws nothing at NaN."""
    return nan if value is None else value


def _name(line: Line) -> str:
    """Tell victims apart: by name, and by attack or run where the name is not enough."""
    parts = [line.victim, line.attack if line.attack != line.victim else "", line.run]
    return "\n".join(filter(None, parts))


def _inline(name: str) -> str:
    return name.replace("\n", ", ")


def _names(lines: Iterable[Line]) -> list[str]:
    return list(dict.fromkeys(map(_name, lines)))


def _data(lines: Iterable[Line]) -> list[str]:
    return list(dict.fromkeys(line.data for line in lines)) or [""]


def _defenses(lines: Iterable[Line]) -> list[str]:
    return sorted({line.defense for line in lines if not line.undefended})


def _defense(name: str) -> str:
    return "undefended" if name == UNDEFENDED else name
