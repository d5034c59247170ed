"""What `bdlit inspect` found: facts, differences and distances in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from bdlit.formatting import printable, size_of
from bdlit.inspection.differences import Differences
from bdlit.inspection.distance import Distance
from bdlit.inspection.distance_table import print_distances
from bdlit.inspection.facts import Inspection

if TYPE_CHECKING:
    from rich.console import Console

_MOST = 5  # names shown of a longer list


@dataclass(frozen=True, slots=True)
class Comparison:
    """One checkpoint, compared with the first one.

    Attributes:
        first: Address of the first.
        other: Address of the other.
        differences: What stands against a merge.
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
            print_distances(console, comparison.distances)


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
        "quantised": found.quantised or "",
        "taken off names": _listed(found.wrappers),
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
        # A Text each: what files say is not markup.
        grid.add_row(Text(f"  {name}"), Text(text, style=_style(name, text)))
    console.print(grid)
    console.print()


def _style(name: str, text: str) -> str:
    if name in ("would run code", "NaN or infinite", "not read", "quantised"):
        return "red"
    if name in ("verdict", "merge"):
        return "green" if text in ("opens without running code", "can be merged") else "yellow"
    return ""
