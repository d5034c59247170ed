"""A strategy as a map: which modules of which layers are the proxy's, and which the suspect's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from bdlit.drawing.style import INK, PAPER, QUIET, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#d5d8de", "#4477aa")  # the suspect's, the proxy's


def strategy_plot(
    replaced: Mapping[str, Collection[int]], modules: Sequence[str], layers: int, title: str
) -> Figure:
    """Draw module types against layers; what is replaced is blue.

    Args:
        replaced: Module type to the layers in which it is replaced.
        modules: All module types, from top to bottom.
        layers: How many layers there are.
        title: What the map is of.

    Raises:
        BdlitError: Matplotlib is not installed.
    """
    figure = new_figure(min(2.2 + 0.34 * layers, 18.0), 1.7 + 0.34 * len(modules))
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    cells = [[float(n in replaced.get(key, ())) for n in range(layers)] for key in modules]
    axes = figure.subplots()
    axes.pcolormesh(
        cells, cmap=ListedColormap(_COLOURS), vmin=0, vmax=1, edgecolors=PAPER, linewidth=1.5
    )
    axes.invert_yaxis()
    axes.set_aspect("equal" if layers <= 40 else "auto")
    every = max(1, layers // 24)
    axes.set_xticks([n + 0.5 for n in range(0, layers, every)], map(str, range(0, layers, every)))
    axes.set_yticks([y + 0.5 for y in range(len(modules))], [plain(key) for key in modules])
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.set_xlabel("layer", color=INK, fontsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.suptitle(plain(title), color=INK, fontsize=10)
    figure.legend(
        handles=[
            Patch(facecolor=_COLOURS[1], label="proxy's"),
            Patch(facecolor=_COLOURS[0], edgecolor=QUIET, label="suspect's"),
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
    )
    return figure


def png_of(figure: Figure) -> bytes:
    """Return a figure as PNG, the same bytes for the same figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
