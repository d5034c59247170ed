"""The table of results in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import IO, TYPE_CHECKING

from bdlit.report.against import hold_against
from bdlit.report.columns import Column, columns_for
from bdlit.report.lines import Line, aggregate, line_columns
from bdlit.report.notes import failures, legend, notes
from bdlit.report.row import Row
from bdlit.report.select import DEFAULT_SORT, Attacks, column_of, select, sort_by

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table
    from rich.text import Text


_GAP = 2  # blanks between columns


def compare_table(
    rows: Sequence[Row],
    *,
    sort: str = DEFAULT_SORT,
    where: Iterable[str] = (),
    attacks: Attacks = "own",
    against: str | None = None,
) -> list[Line]:
    """Select, sum up over seeds and sort: the lines that the terminal and the page show.

    Args:
        rows: Measurements, from `collect`.
        sort: Columns, as `sort_by` takes them.
        where: Conditions, as `select` takes them.
        attacks: Which attacks of a victim are shown, as `select` takes it.
        against: A defense that all lines are held against. Conditions on `defense` do not hide
            it from them; all others hold for it as well.

    Raises:
        BdlitError: A column or the defense is unknown, or no row meets the conditions.
    """
    conditions = list(where)
    lines = aggregate(select(rows, conditions, attacks))
    if against is not None:
        others = [text for text in conditions if column_of(text) != "defense"]
        lines = hold_against(lines, select(rows, others, attacks), against)
    return sort_by(lines, sort, line_columns())


def print_table(lines: Sequence[Line], *, file: IO[str] | None = None) -> None:
    """Print lines as a table, with what failed below it.

    A terminal that is too narrow loses the columns that can be spared. A pipe gets every line
    whole and no colour.

    Args:
        lines: What `compare_table` made.
        file: Where to; standard output by default.
    """
    from rich.cells import cell_len
    from rich.console import Console

    console = Console(file=file or sys.stdout, highlight=False)
    widths = {
        column: max(cell_len(text) for text in [column.header, *map(column.text, lines)])
        for column in columns_for(lines)
    }
    if console.is_terminal:
        while (
            _width(widths) > console.width and (spare := max(widths, key=lambda c: c.spare)).spare
        ):
            del widths[spare]
    else:
        console.width = _width(widths)
    console.print(_table(lines, widths))
    for sentence in [legend(lines), *notes(lines), *failures(lines)]:
        console.print(sentence, style="dim", markup=False)


def _width(widths: Mapping[Column, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _table(lines: Sequence[Line], widths: Mapping[Column, int]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        header_style="bold",
    )
    for column, width in widths.items():
        # In a terminal that is narrower still, names are cut short, but no numbers.
        least = width if column.numeric else min(width, 4)
        justify: JustifyMethod = "right" if column.numeric else "left"
        table.add_column(column.header, justify=justify, min_width=least, no_wrap=True)
    groups = [list(group) for _, group in groupby(lines, _model)]
    # Gaps between models help where the order keeps the lines of a model together.
    together = len(groups) == len(set(map(_model, lines)))
    for group in groups:
        for line in group:
            table.add_row(
                *(_cell(line, column) for column in widths),
                end_section=together and line is group[-1],
            )
    return table


def _model(line: Line) -> tuple[str, str, str]:
    return line.data, line.run, line.victim


def _cell(line: Line, column: Column) -> Text:
    """Write a cell: undefended models stand out, and the excess says how bad it is."""
    from rich.text import Text

    style = "bold" if line.undefended else ""
    if column.header == "excess" and line.excess is not None:
        style += " red" if line.excess >= 50 else " green" if line.excess <= 15 else " yellow"
    return Text(column.text(line), style=style.strip())  # a Text: names are no markup
