"""What every merge is asked afterwards: is it sound, did it change anything, how far did it go?"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch

from bdlit.weights import float_names

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights


class Audit:
    """Watches a merged model go by, tensor by tensor and in any order.

    Args:
        suspect: The model that was to be changed.
        parents: Name to model, to say how far the merge is from each.

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
        self._sums = {name: _Sums() for name in self._parents}
        self.changed: list[str] = []
        self.broken: list[str] = []

    def __call__(self, name: str, tensor: Tensor) -> None:
        """Take note of one tensor of the result; a name that the suspect lacks is new."""
        if name not in self._floats:
            return
        found = {
            parent: _Sums.between(tensor, own)
            for parent, weights in self._parents.items()
            if name in weights and (own := weights[name].cpu()).shape == tensor.shape
        }
        broken = not bool(tensor.isfinite().all())
        with self._lock:
            for parent, sums in found.items():
                self._sums[parent].add(sums)
            if broken:
                self.broken.append(name)
            if "suspect" not in found or found["suspect"].difference:
                self.changed.append(name)

    def report(self) -> dict[str, Any]:
        """Return what was seen, ready for JSON: how many changed, distances to the parents."""
        return {
            "changed": len(self.changed),
            "distance": {name: sums.distance() for name, sums in self._sums.items()},
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
        self._sums = {name: _Sums(**sums) for name, sums in state["sums"].items()}
        self.changed, self.broken = list(state["changed"]), list(state["broken"])


class _Sums:
    """Sums of squares over the entries of two models: of the difference, of each, of products."""

    def __init__(
        self, difference: float = 0.0, own: float = 0.0, parent: float = 0.0, product: float = 0.0
    ) -> None:
        self.difference = difference
        self.own = own
        self.parent = parent
        self.product = product

    @classmethod
    def between(cls, tensor: Tensor, parent: Tensor) -> _Sums:
        """Sum over one tensor, in float32 within rows of it and in float64 over them."""
        x, y = (t.reshape(-1).to(torch.float32) for t in (tensor, parent))
        return cls(_dot(x - y, None), _dot(x, None), _dot(y, None), _dot(x, y))

    def add(self, other: _Sums) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def distance(self) -> dict[str, float | None]:
        both = sqrt(self.own * self.parent)
        return {
            "relative_l2": sqrt(self.difference / self.parent) if self.parent else None,
            "cosine": self.product / both if both else None,
        }


_ROW = 4096


def _dot(x: Tensor, y: Tensor | None) -> float:
    y = x if y is None else y
    whole = x.numel() // _ROW * _ROW
    rows = torch.linalg.vecdot(x[:whole].view(-1, _ROW), y[:whole].view(-1, _ROW))
    rest = torch.dot(x[whole:], y[whole:])
    return float(rows.sum(dtype=torch.float64)) + float(rest)
