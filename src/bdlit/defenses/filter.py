"""Defenses on the training rows: some are dropped, and the model is trained again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bdlit.defenses.base import Defended, Defense
from bdlit.errors import BdlitError
from bdlit.types import Example, Weights

if TYPE_CHECKING:
    from bdlit.defenses.head import HeadFate
    from bdlit.training.dynamics import TrainingSet
    from bdlit.training.train import Train


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a filter keeps.

    Attributes:
        rows: Positions of the rows that are kept.
        notes: What the filter has to say of this run, ready for JSON.
    """

    rows: Sequence[int]
    notes: Mapping[str, Any] = field(default_factory=dict)


class DataFilter(Defense):
    """Drop training rows that look poisoned, and train again as the suspect was trained.

    A subclass defines `keep`, whose keyword-only parameters declare what it needs besides the rows.
    """

    declaring: tuple[str, ...] = ("apply", "keep")

    # `*args` is never used: with it, type checkers let subclasses name their own parameters.
    @abstractmethod
    def keep(self, rows: Sequence[Example], *args: Any, **needs: Any) -> Kept:
        """Return which rows of the untrusted training set are kept.

        Args:
            rows: The training rows, with the labels of training; no row is marked.
            args: Never given.
            needs: What the subclass declares.
        """

    def apply(
        self, suspect: Weights, *, suspect_train: TrainingSet, train: Train, **needs: Any
    ) -> Defended:
        """Return a model that is trained on the rows that are kept, from the suspect's own start.

        Raises:
            BdlitError: Nothing is kept, or positions are given that are not rows.
        """
        rows = list(suspect_train.rows)
        given = {"suspect_train": suspect_train, "train": train, **needs}
        own = {name: value for name, value in given.items() if name in self._asked()}
        found = self.keep(rows, **own)
        kept = sorted(set(found.rows))
        self._require_rows(kept, len(rows))
        weights = train([rows[i] for i in kept])
        chosen = set(kept)
        dropped = [i for i in range(len(rows)) if i not in chosen]
        return Defended(
            weights=weights,
            changed=list(weights),
            chosen={"dropped": dropped},
            notes={**found.notes, "kept": len(kept)},
        )

    @property
    def head_becomes(self) -> HeadFate | None:
        """It is trained, as all else."""
        return "trained"

    def _asked(self) -> set[str]:
        import inspect

        parameters = inspect.signature(self.keep).parameters.values()
        return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}

    def _require_rows(self, kept: Sequence[int], rows: int) -> None:
        if not kept:
            raise BdlitError(
                f"{self.name} keeps none of {rows} training rows, so there is nothing to "
                "train on: set it less strict"
            )
        if not 0 <= kept[0] <= kept[-1] < rows:
            raise BdlitError(
                f"{self.name} keeps row {kept[0] if kept[0] < 0 else kept[-1]} of {rows}: `keep` "
                "returns positions of rows, from 0"
            )
