"""Maps of modules and layers: which model each module of each layer comes from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from itertools import cycle, islice
from typing import TYPE_CHECKING

from bdlit.drawing.style import COLOURS, INK, PAPER, QUIET, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUSPECT = "#d5d8de"


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
    sources = {key: [int(n in replaced.get(key, ())) for n in range(layers)] for key in modules}
    return sources_plot(sources, ["suspect's", "proxy's"], title)


def sources_plot(sources: Mapping[str, Sequence[int]], names: Sequence[str], title: str) -> Figure:
    """Draw module types against layers, in the colour of the model that each is from.

    Args:
        sources: Module type, from top to bottom, to the position of its model in every layer.
        names: Names of the models; the first, which is grey, is the suspect.
        title: What the map is of.

    Raises:
        BdlitError: Matplotlib is not installed.
    """
    layers = max(map(len, sources.values()))
    figure = new_figure(min(2.2 + 0.34 * layers, 18.0), 1.7 + 0.34 * len(sources))
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    others = islice(cycle(COLOURS), len(names) - 1)
    colours = [_SUSPECT, *others]
    axes = figure.subplots()
    axes.pcolormesh(
        list(sources.values()),
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=len(names) - 0.5,
        edgecolors=PAPER,
        linewidth=1.5,
    )
    axes.invert_yaxis()
    axes.set_aspect("equal" if layers <= 40 else "auto")
    every = max(1, layers // 24)
    axes.set_xticks([n + 0.5 for n in range(0, layers, every)], map(str, range(0, layers, every)))
    axes.set_yticks([y + 0.5 for y in range(len(sources))], [plain(key) for key in sources])
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.set_xlabel("layer", color=INK, fontsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.suptitle(plain(title), color=INK, fontsize=10)
    figure.legend(
        handles=[
            *(
                Patch(facecolor=c, label=plain(n))
                for c, n in zip(colours[1:], names[1:], strict=True)
            ),
            Patch(facecolor=_SUSPECT, edgecolor=QUIET, label=plain(names[0])),
        ],
        loc="outside lower center",
        ncols=min(len(names), 4),
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
