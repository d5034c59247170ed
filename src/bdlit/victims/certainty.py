"""How sure a model is of a class or of an answer, told apart where probabilities round to 1."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def certainty_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log(1 - p) of each row's label, float64.

    It tells probabilities apart that round to 1, and p is `-expm1` of its negative.

    Args:
        logits: Shape [rows, classes].
        labels: Class indices, shape [rows].

    >>> certainty_of(torch.tensor([[0.0, 50.0]]), torch.tensor([1]))
    tensor([50.], dtype=torch.float64)
    """
    logits = logits.double()
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return logits.logsumexp(-1) - others.logsumexp(-1)


def together(certainty: Tensor) -> Tensor:
    """Return -log(1 - p) where p is the product of the probabilities of several predictions.

    Args:
        certainty: -log(1 - p) of each prediction, float64, shape [predictions].

    >>> halves = torch.full((2,), 0.5).double()
    >>> (-together(-(1 - halves).log())).exp()  # 1 - p of a quarter
    tensor(0.7500, dtype=torch.float64)
    >>> together(torch.tensor([60.0, 60.0]).double()).item() == 60 - log(2)
    True
    """
    return _of_complement(_of_complement(certainty).sum())


def _of_complement(value: Tensor) -> Tensor:
    """Return -log(1 - exp(-value)): -log(p) from -log(1 - p), and the other way round."""
    # Each form is exact where the other one rounds to 0 or 1.
    near_one, near_zero = torch.log1p(-(-value).exp()), (-torch.expm1(-value)).log()
    return -torch.where(value > log(2), near_one, near_zero)
