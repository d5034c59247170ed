"""Writing a model shard by shard, piece by piece: never more of it in memory than is at work."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bdlit.weights.outlines import Outline, outline
from bdlit.weights.safetensors_file import DTYPES
from bdlit.weights.threads import Each, threads

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights.reading import Piece, Read

INDEX = "model.safetensors.index.json"
"""Name of the file that says which shard holds which tensor."""

SHARD_BYTES = 5_000_000_000
"""Largest shard, where the suspect does not say how its model is cut."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}

Seen = Callable[[str, "Tensor", "Read"], None]


def write_shards(
    weights: Weights,
    folder: Path,
    layout: Mapping[str, Sequence[str]],
    *,
    workers: int = 1,
    seen: Seen | None = None,
    finished: Callable[[str], None] | None = None,
) -> None:
    """Write a model into a folder as safetensors; shards that stand there already are kept.

    A shard takes its name when it is complete, so that whatever stands under its name is whole.
    Tensors are computed in threads, as many at once as `workers`, each piece by piece (`threads`).

    Args:
        weights: The model; a lazy one is computed now.
        folder: Where to write; it exists.
        layout: File name to the names of its tensors.
        workers: Number of threads.
        seen: Called with the name and each piece of the tensors that were computed, on the CPU,
            and with what reads the same piece of other models, from several threads.
        finished: Called with the name of each shard that stands, written now or before.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    every = [name for names in layout.values() for name in names]
    with threads(weights, every, workers) as each:
        for file, names in layout.items():
            if not (folder / file).exists():
                _write_shard(weights, folder / file, names, each, seen)
            if finished is not None:
                finished(file)
    if list(layout) != ["model.safetensors"]:
        _write_index(weights, folder / INDEX, layout)


def shard_layout(weights: Weights, limit: int = SHARD_BYTES) -> dict[str, list[str]]:
    """Return file names and what each holds, for a model that nobody has cut yet.

    Args:
        weights: The model.
        limit: Largest shard in bytes; a single tensor may be larger.

    >>> shard_layout({"a": torch.ones(2), "b": torch.ones(2)}, limit=8)
    {'model-00001-of-00002.safetensors': ['a'], 'model-00002-of-00002.safetensors': ['b']}
    """
    shards: list[list[str]] = []
    room = 0
    for name in weights:
        size = outline(weights, name).bytes
        if not shards or size > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    count = len(shards)
    return {f"model-{i:05}-of-{count:05}.safetensors": names for i, names in enumerate(shards, 1)}


def _write_shard(
    weights: Weights,
    path: Path,
    names: Sequence[str],
    each: Each,
    seen: Seen | None,
) -> None:
    outlines = {name: outline(weights, name) for name in names}
    header, offsets, size = _header(outlines)
    part = path.with_name(f".part.{path.name}")
    try:
        with part.open("wb") as file:
            # Room for the whole shard is taken first: a full disk is told before the work.
            _take_room(file.fileno(), size)
            os.pwrite(file.fileno(), header, 0)

            def write(name: str, reads: Callable[[], Iterator[Piece]]) -> None:
                width = outlines[name].dtype.itemsize
                for read in reads():
                    piece = read(weights, name).detach().cpu().contiguous()
                    if seen is not None:
                        seen(name, piece, read)
                    _write_at(file.fileno(), piece, offsets[name] + read.start * width)

            for _ in each(names, write):
                pass
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _header(outlines: Mapping[str, Outline]) -> tuple[bytes, dict[str, int], int]:
    """Return the header of a file, where each tensor begins, and the size of the file."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts = {}
    end = 0
    # Wide types first, as the library does, so that every tensor is aligned.
    for name in sorted(outlines, key=lambda n: -outlines[n].dtype.itemsize):
        own = outlines[name]
        starts[name], end = end, end + own.bytes
        entries[name] = {
            "dtype": _NAMES[own.dtype],
            "shape": list(own.shape),
            "data_offsets": [starts[name], end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, {n: len(header) + start for n, start in starts.items()}, len(header) + end


def _take_room(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)


def _write_at(file: int, tensor: Tensor, offset: int) -> None:
    left = tensor.reshape(-1).view(torch.uint8).numpy().data
    while left:
        count = os.pwrite(file, left, offset)
        left, offset = left[count:], offset + count


def _write_index(weights: Weights, path: Path, layout: Mapping[str, Sequence[str]]) -> None:
    held = {name: file for file, names in layout.items() for name in names}
    total = sum(outline(weights, name).bytes for name in held)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(held.items()))}
    path.write_text(json.dumps(index, indent=2) + "\n")
