"""How far two models are apart, as a table of modules and layers in the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bdlit.formatting import percent, printable
from bdlit.inspection.distance import Distance, ModuleAt, as_table, combine, grouped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_distances(console: Console, found: Sequence[Distance]) -> None:
    """Print how far two models are apart, by module and layer."""
    from rich.text import Text

    console.print(
        Text("Relative L2 distance in percent, and cosine, by module and layer", style="bold")
    )
    whole = combine(found, "all")
    layers = as_table(found)[1]
    most = len(layers) if not console.is_terminal else max(1, (console.width - 52) // 7)
    console.print(_distance_table(found, whole, _bands(layers, most)))
    console.print(
        Text(
            f"{whole.tensors} tensors, {whole.entries:,} numbers; rows and columns called all "
            "are over all their tensors together",
            style="dim",
        )
    )
    console.print()


def _distance_table(
    found: Sequence[Distance], whole: Distance, bands: Sequence[tuple[int, int]]
) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("module", min_width=12, overflow="fold")
    heads = [str(first) if first == last else f"{first}-{last}" for first, last in bands]
    for head in (*heads, "all", "cosine"):
        table.add_column(head, justify="right", no_wrap=True)
    by_module = grouped(found, lambda at: at.module)
    cells = grouped(found, lambda at: (at.module, _band(at, bands)))
    usual = whole.relative_l2
    for module in ordered_modules(found):
        row = [cells.get((module, band)) for band in bands]
        table.add_row(Text(printable(module)), *_row([*row, by_module[module]], usual))
    table.add_section()
    by_band = grouped(found, lambda at: _band(at, bands))
    table.add_row("all", *_row([*(by_band.get(band) for band in bands), whole], usual))
    return table


def ordered_modules(found: Sequence[Distance]) -> list[str]:
    """Return the modules that were measured, in the order in which they are shown.

    >>> import torch
    >>> from bdlit.inspection.distance import distances
    >>> model = {"score.weight": torch.ones(1), "embed.weight": torch.ones(1)}
    >>> ordered_modules(distances(model, model))
    ['embed', 'score']
    """
    modules, _, cells = as_table(found)
    return module_order(modules, [at.module for at in cells if at.layer is None])


def module_order(modules: Sequence[str], outside: Sequence[str]) -> list[str]:
    """Sort modules as data flows: embeddings, then query, key, value ... then the head.

    Args:
        modules: Names, in the order of the file.
        outside: Those of them that are outside the layers.

    >>> module_order(["head", "mlp.up", "attn.value", "attn.query", "wte"], ["head", "wte"])
    ['wte', 'attn.query', 'attn.value', 'mlp.up', 'head']
    """
    apart = set(outside)

    def place(module: str) -> int:
        if module in apart:
            return -1 if _EMBEDS.search(module) else len(_FLOW)
        return next((i for i, form in enumerate(_FLOW) if form.search(module)), len(_FLOW) - 2)

    return sorted(modules, key=place)


def _bands(layers: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Cut layers into at most so many bands of neighbours, each its first and last layer."""
    width = -(-len(layers) // most) if layers else 1
    starts = range(0, len(layers), width)
    return [(layers[i], layers[min(i + width, len(layers)) - 1]) for i in starts]


def _band(at: ModuleAt, bands: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    if at.layer is None:
        return None
    layer = at.layer
    return next(band for band in bands if band[0] <= layer <= band[1])


def _row(cells: Sequence[Distance | None], usual: float | None) -> Iterator[Any]:
    """Write cells and, of the last one, the cosine; what is far off the usual stands out."""
    from rich.text import Text

    for cell in cells:
        yield Text("" if cell is None else percent(cell.relative_l2), style=_far(cell, usual))
    last = cells[-1]
    cosine = last.cosine if last else None
    yield "-" if cosine is None else f"{cosine:.6f}"


def _far(cell: Distance | None, usual: float | None) -> str:
    value = cell.relative_l2 if cell else None
    if value is None or not usual:
        return ""
    return "bold red" if value >= 2 * usual else "dim" if value <= usual / 2 else ""


_EMBEDS = re.compile(r"embed|wte|wpe|tok_")


_FLOW = tuple(
    re.compile(form)
    for form in (
        r"(query|\bq(_\w+)?\b)(?!.*norm)",
        r"(key|\bk(_\w+)?\b)(?!.*norm)",
        r"(value|\bv(_\w+)?\b)(?!.*norm)",
        r"(?i)(attn|attention)(?!.*(norm|ln))",
        r"(?i)att\w*\..*(norm|ln)",
        r"intermediate|lin1|fc1|c_fc|gate|up|\bwi",
        r"(?i)^(?!.*(norm|ln_))",
        r"(?i)norm|ln_",
    )
)
