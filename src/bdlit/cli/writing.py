"""What the terminal shows while a model is written, and after."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError
from bdlit.progress import progress
from bdlit.purification.suspect import Writing
from bdlit.purification.verify import verify as load_and_run

_SHOWN = 5  # names of a longer list


@contextmanager
def writing_with_progress(
    name: str,
    *,
    device: str = "cpu",
    dense: bool = False,
    rank: int | None = None,
    verify: bool = False,
) -> Iterator[Writing]:
    """Yield how to write a model, with a progress bar where a person is looking.

    Args:
        name: Name of the method, beside the bar.
        device: Where to compute.
        dense: Write a dense model even if the suspect is an adapter.
        rank: Write an adapter of this rank where no adapter is exactly the result.
        verify: Load the result with transformers and run it once.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BdlitError("there is no CUDA device here: leave --device out")
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with progress(name) as tell:
        yield Writing(
            workers=workers or 1,
            device=device,
            dense=dense,
            rank=rank,
            progress=tell,
            check=_check if verify else None,
        )


def _check(folder: Path) -> None:
    print(f"verified: {load_and_run(folder)}")


def show_written(out: Path, origin: Mapping[str, Any]) -> None:
    """Print what was written, how far it is from its parents, and what to know about it."""
    notes = origin["notes"]
    changed = f"{len(origin['changed'])} changed, " if origin["changed"] else ""
    print(
        f"wrote {out}: {origin['name']}, {len(origin['merged'])} tensors merged, {changed}"
        f"{len(origin['copied'])} copied, {origin['seconds']:.1f} s, "
        f"peak memory {origin['peak_memory'] / 1e9:.2f} GB"
    )
    for parent, apart in notes["distance"].items():
        if apart["relative_l2"] is not None and apart["cosine"] is not None:
            print(
                f"  from {parent}: relative L2 {apart['relative_l2']:.4f}, "
                f"cosine {apart['cosine']:.6f}"
            )
    guards = origin["guards"].values()
    if guards:
        print(f"  the model is the suspect, guarded by {', '.join(guards)}")
    elif not notes["changed"]:
        print("  warning: nothing changed; every tensor is the suspect's own")
    for other, names in notes.get("left_out", {}).items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        said = f"{', '.join(names[:_SHOWN])}{more}"
        print(f"  left out of {other}, since the suspect has no such tensors: {said}")
    if origin["left_behind"]:
        print(f"  left behind: {', '.join(origin['left_behind'])}")
