"""The built-in instruction data, for the quickstart and for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from bdlit.data.catalogue import Card
from bdlit.data.demo import OFFSETS
from bdlit.data.instructions import InstructionDataModule
from bdlit.data.small_tasks import small_tasks
from bdlit.types import Example


class DemoInstructions(InstructionDataModule):
    """Small tasks made by a grammar: no files, no network, the same rows for the same seed.

    Args:
        train_size: Number of training rows.
        validation_size: Number of validation rows; 0 makes no validation split.
        test_size: Number of clean test rows.
        grammar_seed: Seed of the tasks themselves; `seed` is that of poisoning and batches.
        tasks: Which small tasks there are: any of capital, color, opposite, sentiment, first, last,
            count; by default all.
        options: Settings of `InstructionDataModule`.
    """

    card: ClassVar[Card] = Card(name="demo-instructions", where="built in")

    def __init__(
        self,
        *,
        train_size: int = 6000,
        validation_size: int = 0,
        test_size: int = 500,
        grammar_seed: int = 0,
        tasks: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._sizes = {"train": train_size, "validation": validation_size, "test": test_size}
        self._grammar_seed = grammar_seed
        self._tasks = tasks

    def load(self, split: str) -> list[Example]:
        """Return the tasks of a split."""
        seed = 3 * self._grammar_seed + OFFSETS[split]
        return small_tasks(self._sizes[split], seed, self._tasks)
