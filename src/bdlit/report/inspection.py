"""What `bdlit inspect` found: facts, differences and distances in the terminal, or as JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import floor, isfinite, log10
from typing import IO, TYPE_CHECKING, Any

from bdlit.weights.differences import Differences
from bdlit.weights.distance import Distance, Part, as_table, combine, grouped
from bdlit.weights.inspection import Inspection

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MOST = 5  # names told of a longer list


@dataclass(frozen=True, slots=True)
class Comparison:
    """One checkpoint beside the first one.

    Attributes:
        first: Address of the first.
        other: Address of the other.
        differences: What hinders a merge.
        distances: How far the tensors of both are apart; empty if none could be measured.
    """

    first: str
    other: str
    differences: Differences
    distances: Sequence[Distance]


def print_inspections(
    found: Sequence[Inspection],
    comparisons: Sequence[Comparison] = (),
    *,
    file: IO[str] | None = None,
) -> None:
    """Print what was found; a pipe gets every line whole and no colour.

    Args:
        found: One checkpoint or several.
        comparisons: All but the first of them, each compared with the first.
        file: Where to; standard output by default.
    """
    from rich.console import Console

    console = Console(file=file or sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    for inspection in found:
        _print_facts(console, inspection.address, facts(inspection))
    for comparison in comparisons:
        heading = f"{comparison.other} against {comparison.first}"
        _print_facts(console, heading, difference_facts(comparison.differences))
        if comparison.distances:
            _print_distances(console, comparison)


def facts(found: Inspection) -> dict[str, str]:
    """Return headings with what is known under each, ready to be shown; unknown ones are left out.

    >>> facts(Inspection(address="a", form="safetensors file", files={"a": 8}))["files"]
    'a (8 bytes)'
    """
    said = {
        "verdict": found.verdict,
        "form": found.form,
        "files": ", ".join(f"{name} ({size_of(n)})" for name, n in found.files.items()),
        "model": ", ".join(filter(None, (found.architecture, found.model_type))),
        "made from": found.base,
        **_adapter_facts(found),
        **_tensor_facts(found),
        "labels": _labels(found),
        **_tokenizer_facts(found),
        "would run code": _listed(found.hazards.found),
        "pickles": _listed(
            [p.file for p in found.hazards.pickles if p.harmless], " (tensors only)"
        ),
        "chat template": _listed(found.hazards.templates),
        "not read": found.refused,
        "not known": "; ".join(found.unknown),
    }
    return {heading: printable(text) for heading, text in said.items() if text}


def difference_facts(found: Differences) -> dict[str, str]:
    """Return headings with what differs under each, ready to be shown.

    >>> difference_facts(Differences(only_other=("lm_head.weight",)))["only in this"]
    'lm_head.weight'
    """
    shapes = [f"{n} {list(a)} against {list(b)}" for n, (a, b) in found.shapes.items()]
    said = {
        "merge": found.verdict,
        "names": "matched without the classifier's prefix" if found.renamed else "",
        "only in first": _listed(found.only_first),
        "only in this": _listed(found.only_other),
        "shapes": _listed(shapes),
        "dtypes": _dtype_changes(found.dtypes),
        "tokenizers": found.tokenizers,
        "labels": found.labels,
    }
    return {heading: printable(text) for heading, text in said.items() if text}


def to_json(found: Sequence[Inspection], comparisons: Sequence[Comparison] = ()) -> str:
    """Return everything as JSON; what is not known, or no number, is null.

    Args:
        found: One checkpoint or several.
        comparisons: All but the first of them, each compared with the first.

    >>> record = json.loads(to_json([Inspection(address="a", form="file", files={})]))
    >>> record["checkpoints"][0]["verdict"], record["comparisons"]
    ('opens without running code', [])
    """
    content = {
        "checkpoints": [_inspection_record(inspection) for inspection in found],
        "comparisons": [_comparison_record(comparison) for comparison in comparisons],
    }
    return json.dumps(content, indent=2, allow_nan=False)


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


def percent(value: float | None) -> str:
    """Write a relative distance in percent, with about three digits.

    >>> [percent(value) for value in (0.0, 0.01234, 0.5, 12.0, None)]
    ['0', '1.23', '50.0', '1200', '-']
    """
    if value is None or value == 0:
        return "-" if value is None else "0"
    if not isfinite(value):
        return str(value)
    if 100 * value < 1e-3:
        return f"{100 * value:.0e}"
    rounded = float(f"{100 * value:.3g}")
    return f"{rounded:.{max(2 - floor(log10(rounded)), 0)}f}"


def printable(text: str) -> str:
    r"""Escape what a terminal would obey or not show; names come from files of others.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def size_of(count: int) -> str:
    """Write a number of bytes for people.

    >>> size_of(90_867_952), size_of(12)
    ('90.9 MB', '12 bytes')
    """
    for unit, step in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} bytes"


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


def _adapter_facts(found: Inspection) -> dict[str, str]:
    own = found.adapter
    if own is None:
        return {}
    settings = (
        own.kind,
        f"rank {own.rank}" if own.rank is not None else "",
        f"alpha {own.alpha:g}" if own.alpha is not None else "",
        f"on {', '.join(own.targets)}" if own.targets else "",
        f"holds {', '.join(own.saved)} whole" if own.saved else "",
    )
    return {"adapter": ", ".join(filter(None, settings)), "adapter of": own.base or "not said"}


def _tensor_facts(found: Inspection) -> dict[str, str]:
    if not found.outlines:
        return {}
    dtypes = ", ".join(f"{count} {name}" for name, count in found.dtypes.items())
    tied = [" = ".join(group) for group in found.tied]
    if found.output_tied:
        tied.append("output embeddings are the input embeddings (tie_word_embeddings)")
    broken = [f"{name} ({count})" for name, count in found.not_finite.items()]
    return {
        "tensors": f"{found.tensors} ({dtypes}), {found.parameters:,} parameters, "
        f"{size_of(found.bytes)}",
        "NaN or infinite": _listed(broken),
        "all zero": _listed(found.zero),
        "tied": _listed(tied),
        "head": _listed(found.head),
        "fingerprint": found.fingerprint or "",
    }


def _labels(found: Inspection) -> str:
    named = [f"{index} {name}" for index, name in (found.labels or {}).items()]
    if named:
        return f"{len(named)}: {_listed(named, most=12)}"
    return str(found.label_count or "")


def _tokenizer_facts(found: Inspection) -> dict[str, str]:
    own = found.tokenizer
    if own is None:
        return {}
    words = f"{own.size:,} words, " if own.size else ""
    return {"tokenizer": f"{words}{', '.join(own.files)}, sha256 {own.sha256[:16]}"}


def _listed(items: Sequence[str], end: str = "", most: int = _MOST) -> str:
    if not items:
        return ""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more + end


def _dtype_changes(changed: Mapping[str, tuple[str, str]]) -> str:
    kinds: dict[str, int] = {}
    for pair in changed.values():
        kinds[" against ".join(pair)] = kinds.get(" against ".join(pair), 0) + 1
    return ", ".join(f"{count} tensors {kind}" for kind, count in kinds.items())


def _print_facts(console: Console, heading: str, said: Mapping[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(Text(printable(heading), style="bold"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in said.items():
        # A Text each: what files say is no markup.
        grid.add_row(Text(f"  {name}"), Text(text, style=_style(name, text)))
    console.print(grid)
    console.print()


def _style(name: str, text: str) -> str:
    if name in ("would run code", "NaN or infinite", "not read"):
        return "red"
    if name in ("verdict", "merge"):
        return "green" if text in ("opens without running code", "can be merged") else "yellow"
    return ""


def _print_distances(console: Console, comparison: Comparison) -> None:
    from rich.text import Text

    console.print(
        Text("Relative L2 distance in percent, and cosine, by module and layer", style="bold")
    )
    whole = combine(comparison.distances, "all")
    layers = as_table(comparison.distances)[1]
    most = len(layers) if not console.is_terminal else max(1, (console.width - 52) // 7)
    console.print(_distance_table(comparison.distances, whole, _bands(layers, most)))
    console.print(
        Text(
            f"{whole.tensors} tensors, {whole.entries:,} numbers; rows and columns called all "
            "are over all their tensors together",
            style="dim",
        )
    )
    console.print()


def _bands(layers: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Cut layers into at most so many bands of neighbours, each its first and last layer."""
    width = -(-len(layers) // most) if layers else 1
    starts = range(0, len(layers), width)
    return [(layers[i], layers[min(i + width, len(layers)) - 1]) for i in starts]


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
    by_module = grouped(found, lambda part: part.module)
    cells = grouped(found, lambda part: (part.module, _band(part, bands)))
    usual = whole.relative_l2
    for module in ordered_modules(found):
        row = [cells.get((module, band)) for band in bands]
        table.add_row(Text(printable(module)), *_row([*row, by_module[module]], usual))
    table.add_section()
    by_band = grouped(found, lambda part: _band(part, bands))
    table.add_row("all", *_row([*(by_band.get(band) for band in bands), whole], usual))
    return table


def ordered_modules(found: Sequence[Distance]) -> list[str]:
    """Return the modules that were measured, in the order in which they are shown.

    >>> import torch
    >>> from bdlit.weights.distance import distances
    >>> model = {"score.weight": torch.ones(1), "embed.weight": torch.ones(1)}
    >>> ordered_modules(distances(model, model))
    ['embed', 'score']
    """
    modules, _, cells = as_table(found)
    return module_order(modules, [part.module for part in cells if part.layer is None])


def _band(part: Part, bands: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    if part.layer is None:
        return None
    layer = part.layer
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


def _inspection_record(found: Inspection) -> dict[str, Any]:
    tokenizer = found.tokenizer
    return {
        "address": found.address,
        "verdict": found.verdict,
        "form": found.form,
        "files": dict(found.files),
        "architecture": found.architecture,
        "model_type": found.model_type,
        "base": found.base,
        "tensors": found.tensors,
        "parameters": found.parameters,
        "bytes": found.bytes,
        "dtypes": found.dtypes,
        "tie_word_embeddings": found.ties,
        "tied": [list(group) for group in found.tied],
        "output_tied": found.output_tied,
        "head": list(found.head),
        "num_labels": found.label_count,
        "id2label": {str(i): name for i, name in found.labels.items()} if found.labels else None,
        "adapter": asdict(found.adapter) if found.adapter else None,
        "tokenizer": {
            "files": list(tokenizer.files),
            "sha256": tokenizer.sha256,
            "size": tokenizer.size,
        }
        if tokenizer
        else None,
        "fingerprint": found.fingerprint,
        "not_finite": dict(found.not_finite),
        "zero": list(found.zero),
        "hazards": {**asdict(found.hazards), "found": found.hazards.found},
        "refused": found.refused,
        "unknown": list(found.unknown),
    }


def _comparison_record(found: Comparison) -> dict[str, Any]:
    of_layer = grouped(found.distances, lambda part: part.layer)
    of_module = grouped(found.distances, lambda part: part.module)
    whole = combine(found.distances, "all") if found.distances else None
    return {
        "first": found.first,
        "other": found.other,
        "verdict": found.differences.verdict,
        "differences": asdict(found.differences),
        "distance": {
            "all": _apart(whole) if whole else None,
            "layers": {str(layer): _apart(d) for layer, d in sorted(of_layer.items())},
            "modules": {module: _apart(d) for module, d in of_module.items()},
            "tensors": [
                {"name": d.name, "layer": d.part.layer, "module": d.part.module, **_apart(d)}
                for d in found.distances
            ],
        },
    }


def _apart(found: Distance) -> dict[str, Any]:
    values = {"relative_l2": found.relative_l2, "cosine": found.cosine}
    finite = {k: v if v is not None and isfinite(v) else None for k, v in values.items()}
    return {"entries": found.entries, **finite}
