"""Plain data that every layer speaks: rows of text, targets, weights, rates and scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Target: TypeAlias = int | str
"""What the attacker wants to be predicted: a class index, or a class name."""

Weights: TypeAlias = "Mapping[str, Tensor]"
"""A model as a read-only mapping from name to tensor; it may be lazy and is never mutated."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a text-classification set.

    Attributes:
        text: The text, or the first text of a pair.
        label: Class index that the row is trained or measured on.
        text_pair: The second text of a pair (NLI), if there is one.
        poisoned: Whether an attack changed this row. Evaluation may look; training must not.
        orig_label: The true class of a poisoned row whose label was changed.
    """

    text: str
    label: int
    text_pair: str | None = None
    poisoned: bool = False
    orig_label: int | None = None

    @property
    def true_label(self) -> int:
        """The class before any attack."""
        return self.label if self.orig_label is None else self.orig_label


_Z95 = 1.959963984540054  # standard normal quantile of 0.975


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its counts, so that its uncertainty is never lost.

    Attributes:
        hits: How many rows were hit.
        n: How many rows were looked at.
    """

    hits: int
    n: int

    @property
    def percent(self) -> float:
        """The share in percent, in [0, 100]; NaN if no row was looked at."""
        return 100.0 * self.hits / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson score interval, in percent; (0, 100) if no row was looked at.

        Reference: Wilson 1927, "Probable inference, the law of succession, and statistical
        inference"; it keeps its coverage near 0% and 100%, where ASR lives.
        """
        if not self.n:
            return 0.0, 100.0
        share, z2n = self.hits / self.n, _Z95**2 / self.n
        middle = (share + z2n / 2) / (1 + z2n)
        half = _Z95 * sqrt(share * (1 - share) / self.n + z2n / (4 * self.n)) / (1 + z2n)
        return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)

    def __add__(self, other: Rate) -> Rate:
        return Rate(self.hits + other.hits, self.n + other.n)


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model does: clean accuracy, and attack success per evaluation attack.

    Attributes:
        cacc: Clean accuracy on the clean test rows.
        asr: Attack name to the share of triggered non-target rows predicted as the target.
    """

    cacc: Rate
    asr: Mapping[str, Rate] = field(default_factory=dict)
