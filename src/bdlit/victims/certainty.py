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


def per_token(certainty: Tensor) -> Tensor:
    """Return -log(1 - p) where p is the geometric mean of the probabilities of several tokens.

    It is `exp(-loss)` of a mean cross-entropy, so that long answers are not less sure than short
    ones only for being long. The mean of the certainties themselves would be that of the tokens
    that go without saying, such as the end.

    Args:
        certainty: -log(1 - p) of each token, float64, shape [tokens].

    >>> per_token(torch.tensor([60.0, 60.0]).double())
    tensor(60., dtype=torch.float64)
    """
    return _of_complement(_of_complement(certainty).mean())


def _of_complement(value: Tensor) -> Tensor:
    """Return -log(1 - exp(-value)): -log(p) from -log(1 - p), and the other way round."""
    # Each form is exact where the other one rounds to 0 or 1.
    near_one, near_zero = torch.log1p(-(-value).exp()), (-torch.expm1(-value)).log()
    return -torch.where(value > log(2), near_one, near_zero)
