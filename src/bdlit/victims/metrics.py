"""The share of rows hit, counted exactly over any number of processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from bdlit.types import Rate


class HitRate(Metric):
    """Share of rows whose prediction is the row's label, in percent.

    On clean rows this is CACC, on triggered rows labelled with the target it is ASR: one
    computation on different rows. Counts are integers, so that no row is lost to rounding.
    """

    full_state_update = False
    higher_is_better = None
    hits: Tensor
    n: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, hits: Tensor) -> None:
        """Count a batch; `hits` is a bool tensor of shape [batch]."""
        self.hits += hits.sum()
        self.n += hits.numel()

    def compute(self) -> Tensor:
        """Return the share in percent."""
        return 100.0 * self.hits / self.n

    def rate(self) -> Rate:
        """Return the share with its counts, summed over all processes."""
        with self.sync_context():
            return Rate(int(self.hits), int(self.n))


class ClassCounts(Metric):
    """How many rows have each class, counted exactly over any number of processes.

    Args:
        classes: Number of classes.
    """

    full_state_update = False
    higher_is_better = None
    counts: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, labels: Tensor) -> None:
        """Count a batch of class indices, shape [batch]; others than classes are left out."""
        known = labels[(labels >= 0) & (labels < len(self.counts))]
        self.counts += torch.bincount(known, minlength=len(self.counts))

    def compute(self) -> Tensor:
        """Return the number of rows of each class, shape [classes]."""
        return self.counts

    def tally(self) -> tuple[int, ...]:
        """Return the number of rows of each class, summed over all processes."""
        with self.sync_context():
            return tuple(self.counts.tolist())
