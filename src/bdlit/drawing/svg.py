"""A figure as SVG to embed in a page, in the page's own colours."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from bdlit.drawing.style import INK, PAPER

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure


def inline_svg(figure: Figure) -> Markup:
    """Return a figure as SVG to embed in a page, in the colours of the page."""
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
