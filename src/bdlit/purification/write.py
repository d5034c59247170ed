"""Writing a result as the suspect is cut: streamed, audited, and continued after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from bdlit.merging.audit import Audit
from bdlit.types import Weights
from bdlit.weights import SafetensorsWeights, outline
from bdlit.weights.streaming import shard_layout, write_shards
from bdlit.weights.tying import tied_like

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.purification.suspect import Writing
    from bdlit.weights import Read

_SEEN = ".seen.json"  # what the audit knows of the shards that stand


def write_like(
    suspect: Weights, result: Weights, audit: Audit, folder: Path, writing: Writing
) -> None:
    """Write the shards that do not stand yet, and look at every tensor on its way.

    Args:
        suspect: Says how the model is cut into files, and which tensors are one.
        result: What is written; a lazy one is computed now.
        audit: Told of every tensor; it goes on from what an interrupted run has seen.
        folder: Where.
        writing: How.
    """
    weights = tied_like(suspect, result)
    note = folder / _SEEN
    layout = layout_like(suspect, weights)
    standing = _standing(note, audit, folder, list(layout))
    progress = _Progress(weights, layout, standing, writing.progress)

    def seen(name: str, piece: Tensor, read: Read) -> None:
        audit(name, piece, read)
        progress.add(piece.nbytes)

    def finished(shard: str) -> None:
        if shard not in standing:
            standing.append(shard)
            _replace(note, json.dumps({"shards": standing, "audit": audit.state()}))

    write_shards(weights, folder, layout, workers=writing.workers, seen=seen, finished=finished)
    note.unlink(missing_ok=True)


def layout_like(suspect: Weights, weights: Weights) -> dict[str, list[str]]:
    """Return the suspect's cut into files where the names are the same, or a cut of our own."""
    if isinstance(suspect, SafetensorsWeights) and set(suspect) == set(weights):
        layout = suspect.layout
        return {"model.safetensors": [*suspect]} if len(layout) == 1 else layout
    return shard_layout(weights)


class _Progress:
    """Counts bytes, and tells of them."""

    def __init__(
        self,
        weights: Weights,
        layout: Mapping[str, Sequence[str]],
        standing: Sequence[str],
        tell: Callable[[int, int], None],
    ) -> None:
        sizes = {n: outline(weights, n).bytes for names in layout.values() for n in names}
        self._total = sum(sizes.values())
        self._done = sum(sizes[name] for shard in standing for name in layout[shard])
        self._tell = tell
        self._lock = Lock()
        tell(self._done, self._total)

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._tell(self._done, self._total)


def _standing(seen: Path, audit: Audit, part: Path, shards: Sequence[str]) -> list[str]:
    """Return the finished shards of an earlier run, and take up what its audit saw of them."""
    known = json.loads(seen.read_text()) if seen.is_file() else None
    standing = [str(shard) for shard in known["shards"]] if known else []
    if known:
        audit.restore(known["audit"])
    for shard in set(shards) - set(standing):  # killed between a shard and the note of it
        (part / shard).unlink(missing_ok=True)
    return standing


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)
