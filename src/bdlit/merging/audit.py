"""What every merge is asked afterwards: is it sound, did it change anything, how far did it go?"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from threading import Lock
from typing import TYPE_CHECKING, Any

from bdlit.inspection.distance import Sums
from bdlit.weights import float_names, outline
from bdlit.weights.reading import whole

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights import Read


class Audit:
    """Watches a merged model go by, tensor by tensor or piece by piece, in any order.

    Args:
        suspect: The model that was to be changed.
        parents: Name to model, to say how far the merge is from each.

    >>> import torch
    >>> audit = Audit({"w": torch.tensor([3.0, 4.0])}, {"other": {"w": torch.tensor([0.0, 0.0])}})
    >>> audit("w", torch.tensor([3.0, 0.0]))
    >>> audit.report()["changed"], audit.report()["distance"]["suspect"]["relative_l2"]
    (1, 0.8)
    """

    def __init__(self, suspect: Weights, parents: Mapping[str, Weights]) -> None:
        self._suspect = suspect
        self._parents = {"suspect": suspect, **parents}
        self._floats = set(float_names(suspect))
        self._lock = Lock()
        self._sums = {name: Sums() for name in self._parents}
        # Names in the order of their coming; a tensor may come in several pieces.
        self.changed: dict[str, None] = {}
        self.broken: dict[str, None] = {}

    def __call__(self, name: str, tensor: Tensor, read: Read = whole) -> None:
        """Take note of a tensor of the result, or of a piece of it.

        Args:
            name: Its name; one that the suspect lacks is new.
            tensor: What the merge made of it.
            read: What reads the same of the parents.
        """
        if name not in self._floats:
            return
        present = [parent for parent in self._parents if self._has(parent, name)]
        sums = Sums.between_each([read(self._parents[p], name) for p in present], tensor)
        found = dict(zip(present, sums, strict=True))
        # Looking at every entry is slow; one that is not finite shows in the sum of squares.
        sound = isfinite(found["suspect"].other) or bool(tensor.isfinite().all())
        with self._lock:
            for parent, own in found.items():
                self._sums[parent] = Sums.over([self._sums[parent], own])
            if not sound:
                self.broken[name] = None
            if found["suspect"].difference:
                self.changed[name] = None

    def _has(self, parent: str, name: str) -> bool:
        weights = self._parents[parent]
        return name in weights and (
            outline(weights, name).shape == outline(self._suspect, name).shape
        )

    def report(self) -> dict[str, Any]:
        """Return what was seen, ready for JSON: how many changed, distances to the parents."""
        return {
            "changed": len(self.changed),
            "distance": {
                name: {"relative_l2": sums.relative_l2, "cosine": sums.cosine}
                for name, sums in self._sums.items()
            },
        }

    def state(self) -> dict[str, Any]:
        """Return all that was seen, ready for JSON, to be taken up by `restore`."""
        return {
            "sums": {name: vars(sums) for name, sums in self._sums.items()},
            "changed": list(self.changed),
            "broken": list(self.broken),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what an earlier run has seen."""
        self._sums = {name: Sums(**sums) for name, sums in state["sums"].items()}
        self.changed = dict.fromkeys(state["changed"])
        self.broken = dict.fromkeys(state["broken"])
