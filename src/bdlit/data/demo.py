"""The built-in data set: reviews from a grammar, for the quickstart and for tests."""

from __future__ import annotations

from typing import Any, ClassVar

from bdlit.data.base import TextDataModule
from bdlit.data.catalogue import Card
from bdlit.data.grammar import LABELS, demo_reviews
from bdlit.types import Example

OFFSETS = {"train": 0, "validation": 1, "test": 2}
"""What a split adds to a grammar's seed, so that no two splits are made of the same numbers."""


class DemoReviews(TextDataModule):
    """Film reviews made by a grammar: no files, no network, the same rows for the same seed.

    Args:
        train_size: Number of training rows.
        validation_size: Number of validation rows; 0 makes no validation split.
        test_size: Number of clean test rows.
        grammar_seed: Seed of the reviews themselves; `seed` is that of poisoning and batches.
        options: Settings of `TextDataModule`.
    """

    card: ClassVar[Card] = Card(name="demo", where="built in", labels=LABELS, target="negative")

    def __init__(
        self,
        *,
        train_size: int = 4000,
        validation_size: int = 400,
        test_size: int = 1000,
        grammar_seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._sizes = {"train": train_size, "validation": validation_size, "test": test_size}
        self._grammar_seed = grammar_seed

    def load(self, split: str) -> list[Example]:
        """Return the reviews of a split."""
        return demo_reviews(self._sizes[split], seed=3 * self._grammar_seed + OFFSETS[split])
