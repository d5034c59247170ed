"""One self-contained HTML page: the table, and the plots as inline SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bdlit.drawing.style import INK, PAPER
from bdlit.report.columns import columns_for, failures, legend
from bdlit.report.plots import asr_cacc_plot, before_after_plot
from bdlit.report.row import Row
from bdlit.report.samples import samples_of
from bdlit.report.table import compare_table
from bdlit.whole import whole_file

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure


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


def inline_svg(figure: Figure) -> Markup:
    """Return a figure as SVG that may stand in a page, in the colours of the page."""
    from markupsafe import Markup
    from matplotlib import rc_context

    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    text = io.StringIO()
    # Text stays text, to be read, searched and set in the reader's font.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "bdlit"}):
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]  # neither the XML declaration nor the document type
    # The names that matplotlib gives to groups would be met twice in a page of two figures.
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    return Markup(svg.replace(INK, "currentColor").replace(PAPER, "var(--paper)"))
