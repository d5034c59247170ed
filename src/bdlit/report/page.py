"""One self-contained HTML page: the table, and the plots as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bdlit.atomic import whole_file
from bdlit.drawing.svg import inline_svg
from bdlit.report.columns import columns_for, failures, legend
from bdlit.report.plots import asr_cacc_plot, before_after_plot
from bdlit.report.row import Row
from bdlit.report.samples import samples_of
from bdlit.report.table import compare_table


def write_page(path: Path, rows: Sequence[Row]) -> None:
    """Write measurements as a page that needs no network and follows the reader's light or dark.

    Args:
        path: The HTML file; it appears whole or not at all.
        rows: Measurements, selected already; every one of them is in a line of the table.

    Raises:
        BdlitError: Matplotlib is not installed, or the file cannot be written.
    """
    page = _render(rows)
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")


def _render(rows: Sequence[Row]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    lines = compare_table(rows, attacks="all")
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
        figures=[inline_svg(asr_cacc_plot(rows)), inline_svg(before_after_plot(rows))],
        columns=columns_for(lines),
        lines=lines,
        legend=legend(lines),
        failures=failures(lines),
        samples=samples_of(rows),
    )
