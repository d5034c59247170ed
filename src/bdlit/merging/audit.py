"""What every merge is asked afterwards: is it sound, did it change anything, how far did it go?"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from bdlit.weights import float_names
from bdlit.weights.distance import Sums

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights


class Audit:
    """Watches a merged model go by, tensor by tensor and in any order.

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
        self.changed: list[str] = []
        self.broken: list[str] = []

    def __call__(self, name: str, tensor: Tensor) -> None:
        """Take note of one tensor of the result; a name that the suspect lacks is new."""
        if name not in self._floats:
            return
        found = {
            parent: Sums.between(own, tensor)
            for parent, weights in self._parents.items()
            if name in weights and (own := weights[name].cpu()).shape == tensor.shape
        }
        broken = not bool(tensor.isfinite().all())
        with self._lock:
            for parent, sums in found.items():
                self._sums[parent] = Sums.over([self._sums[parent], sums])
            if broken:
                self.broken.append(name)
            if "suspect" not in found or found["suspect"].difference:
                self.changed.append(name)

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
            "changed": self.changed,
            "broken": self.broken,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what an earlier run has seen."""
        self._sums = {name: Sums(**sums) for name, sums in state["sums"].items()}
        self.changed, self.broken = list(state["changed"]), list(state["broken"])
