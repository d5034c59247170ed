"""What a defense chose among the training rows, held against what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdlit.training.dynamics import TrainingSet

DROPPED = "dropped"
"""What a filter takes rows for that it leaves out."""


def scored(
    notes: Mapping[str, Any],
    chosen: Mapping[str, Sequence[int]],
    training: TrainingSet | None,
) -> dict[str, Any]:
    """Return the notes of a defense with counts of the poisoned rows among those it chose.

    Of rows that it dropped there are also precision (the share of them that is poisoned) and
    recall (the share of the poisoned rows that is among them). Where no row is marked, the counts
    of poisoned rows are None.

    Args:
        notes: What the defense said.
        chosen: What it took rows for, to their positions in the training set.
        training: The training set, with its marks.
    """
    oracle = training.oracle if training is not None else None
    found = dict(notes)
    for name, positions in chosen.items():
        poisoned = sum(oracle.poisoned[i] for i in positions) if oracle else None
        own: dict[str, Any] = {"rows": len(positions), "poisoned": poisoned}
        if name == DROPPED and oracle is not None and poisoned is not None:
            every = sum(oracle.poisoned)
            own["precision"] = poisoned / len(positions) if positions else None
            own["recall"] = poisoned / every if every else None
        found[name] = {**found.get(name, {}), **own}
    return found
