"""`bdlit inspect`: what checkpoints are, whether they are safe, and how far they are apart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bdlit.progress import progress

if TYPE_CHECKING:
    from bdlit.inspection.facts import Inspection
    from bdlit.inspection.terminal import Comparison


def inspect(addresses: list[str], *, json: bool = False, html: str | None = None) -> None:
    """Tell what checkpoints are and how far they are apart, without running anything in them.

    Of each: form, architecture, tensors, labels, tokenizer, fingerprint, broken tensors, and what
    would run code if it were trusted. Of several, against the first: whether they can be merged,
    and their distance, by layer and by kind of module.

    Args:
        addresses: Directories of Hugging Face models, adapters or bdlit runs; files (.safetensors,
            .bin, .pt, .pth, .ckpt); or models on the hub, owner/name or owner/name@revision.
        json: Print everything as JSON instead, with a distance for every tensor.
        html: Also write it to this file, as one self-contained page with heat maps.

    Raises:
        BdlitError: There is no checkpoint at an address, a file is broken, or the page cannot be
            written.
    """
    from bdlit.defenses.head import HEAD_NAMES
    from bdlit.inspection.as_json import to_json
    from bdlit.inspection.facts import inspect as inspect_one
    from bdlit.inspection.terminal import print_inspections

    found = []
    for address in addresses:
        with progress(f"reading {address}") as watch:
            found.append(inspect_one(address, head_names=HEAD_NAMES, watch=watch))
    comparisons = [_compared(found[0], other) for other in found[1:]]
    if json:
        print(to_json(found, comparisons))
    else:
        print_inspections(found, comparisons)
    if html:
        from bdlit.inspection.page import write_inspection_page

        write_inspection_page(Path(html), found, comparisons)
        print(f"wrote {html}", file=sys.stderr)


def _compared(first: Inspection, other: Inspection) -> Comparison:
    from bdlit.inspection.differences import differences
    from bdlit.inspection.distance import aligned, distances
    from bdlit.inspection.terminal import Comparison

    apart = []
    if first.weights is not None and other.weights is not None:
        with progress(f"measuring {other.address}") as watch:
            apart = distances(*aligned(first.weights, other.weights), watch)
    return Comparison(first.address, other.address, differences(first, other), apart)
