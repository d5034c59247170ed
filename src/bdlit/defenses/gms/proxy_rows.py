"""Two small sets that stand in for what a defender lacks: triggered rows, and clean ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from bdlit.errors import BdlitError
from bdlit.types import Example

if TYPE_CHECKING:
    from torch import Tensor

Ranking: TypeAlias = Literal["inverse", "confidence", "variability", "published-confidence"]
"""How training rows are ranked by the probability p of their label in each epoch: by the mean of
1 / (1 - p), by the mean of p, by the spread of p, least first, or by the mean of p, least first."""


@dataclass(frozen=True)
class ProxyRows:
    """Rows of a proxy set.

    Attributes:
        rows: The rows, with the labels or answers of training.
        source: Where they come from, in words.
        positions: Where they stand in the untrusted training set; None of other rows.
        poisoned: How many of them are poisoned in truth, where their source says so; those of the
            training set are counted by whoever knows.
    """

    rows: Sequence[Example]
    source: str
    positions: Sequence[int] | None = None
    poisoned: int | None = None

    def described(self) -> dict[str, Any]:
        """Return counts and source, ready for JSON."""
        return {"rows": len(self.rows), "source": self.source, "poisoned": self.poisoned}


def most_suspicious(certainty: Tensor, count: int, ranking: Ranking = "inverse") -> list[int]:
    """Return the positions of the training rows that a ranking puts first, the first first.

    But for `published-confidence`, these are the rows that the model was surest of.

    Args:
        certainty: -log(1 - p) of each row's label or answer, float64, shape [rows, epochs].
        count: How many rows, at least 1.
        ranking: What to rank by; ties go to the earlier row.

    Raises:
        BdlitError: There are not that many rows.

    Reference: Tong et al. 2025, arXiv:2412.20476, section 4.1, after He et al. 2024 (SEEP).
    Deviation: The published code takes 1 / (1 - p) in float32, where p rounds to 1, and adds 1e-8;
        here its logarithm is summed in float64. Its `confidence` takes the rows of the *least*
        mean p, which are those that the model was least sure of; ours takes the surest, as the
        other rankings do, and `published-confidence` does as the code.

    >>> most_suspicious(torch.tensor([[1.0], [40.0], [39.0]]).double(), 2)
    [1, 2]
    """
    match ranking:
        case "inverse":  # log of the mean of 1 / (1 - p)
            value = certainty.logsumexp(dim=1)
        case "confidence":  # 1 - p averaged, least first: p itself rounds to 1
            value = -(-certainty).exp().mean(dim=1)
        case "published-confidence":
            value = (-certainty).exp().mean(dim=1)
        case "variability":
            value = -(-torch.expm1(-certainty)).std(dim=1, correction=0)
    return highest(value, count)


def highest(value: Tensor, count: int) -> list[int]:
    """Return the positions of the highest values, the highest first; ties go to the earlier one.

    Raises:
        BdlitError: There are not that many values.
    """
    _require_rows("suspect", count, len(value))
    order = torch.sort(value, descending=True, stable=True).indices
    return [int(position) for position in order[:count]]


def drawn(rows: Sequence[Example], count: int, seed: int, name: str) -> list[Example]:
    """Return rows drawn at random, without replacement, in their order.

    Raises:
        BdlitError: There are not that many rows.

    >>> rows = [Example(text, 0) for text in "abc"]
    >>> drawn(rows, 3, seed=0, name="clean") == rows
    True
    """
    return [rows[position] for position in drawn_positions(len(rows), count, seed, name)]


def drawn_positions(rows: int, count: int, seed: int, name: str) -> list[int]:
    """Return positions of so many rows drawn at random, without replacement, in their order.

    Raises:
        BdlitError: There are not that many rows.
    """
    _require_rows(name, count, rows)
    return sorted(random.Random(f"{name} rows {seed}").sample(range(rows), count))


def count_poisoned(rows: Sequence[Example], known: bool) -> int | None:
    """Return how many rows are poisoned in truth, where it is known."""
    return sum(row.poisoned for row in rows) if known else None


def require_classes(proxy: ProxyRows) -> None:
    """Refuse a clean set of one class or answer: accuracy on it would reward giving it always.

    Raises:
        BdlitError: All rows have one label, or for a language model one answer.
    """
    answered = any(row.response is not None for row in proxy.rows)
    kind = "answer" if answered else "class"
    found = {row.response if answered else row.label for row in proxy.rows}
    if len(found) < 2:
        raise BdlitError(
            f"the clean set ({proxy.source}) holds rows of {len(found)} {kind} only: "
            "give rows of at least two"
        )


def _require_rows(name: str, count: int, available: int) -> None:
    if not 1 <= count <= available:
        raise BdlitError(
            f"{name}_rows {count} is out of range: there are {available} rows to choose from"
        )
