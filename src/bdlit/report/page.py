"""One self-contained HTML page: the table, and the plots as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bdlit.atomic import whole_file
from bdlit.drawing.svg import inline_svg
from bdlit.report.columns import columns_for
from bdlit.report.lines import Line
from bdlit.report.notes import failures, legend, notes
from bdlit.report.plots import asr_cacc_plot, before_after_plot
from bdlit.report.row import Row
from bdlit.report.samples import samples_of
from bdlit.report.table import compare_table

_POINTS = "Large points are means over seeds, small ones the single seeds."
_BARS = (
    "Whiskers are the 95% intervals of the table, small points the single seeds. Of one seed, and "
    "where all agree, an interval is over rows only."
)


def write_page(path: Path, rows: Sequence[Row], lines: Sequence[Line] | None = None) -> None:
    """Write measurements as a page that needs no network and follows the reader's light or dark.

    Args:
        path: The HTML file; it appears whole or not at all.
        rows: Measurements, selected already; every one of them is in a line of the table.
        lines: The lines of the table, if they are held against a defense, or are in an order that
            is not the default.

    Raises:
        BdlitError: Matplotlib is not installed, or the file cannot be written.
    """
    page = _render(rows, compare_table(rows, attacks="all") if lines is None else lines)
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")


def _render(rows: Sequence[Row], lines: Sequence[Line]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Names come from files of others: every one is escaped.
    environment = Environment(
        loader=PackageLoader("bdlit.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html").render(
        title="Backdoors and defenses on " + ", ".join(sorted({line.data for line in lines})),
        measurements=len(rows),
        figures=[
            (inline_svg(asr_cacc_plot(rows)), _POINTS),
            (inline_svg(before_after_plot(rows)), _BARS),
        ],
        columns=columns_for(lines, wide=True),
        lines=lines,
        legend=legend(lines),
        notes=[*notes(lines), *failures(lines)],
        samples=samples_of(rows),
    )
