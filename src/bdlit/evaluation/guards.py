"""What stands around a model while it is measured: what cleans its inputs, what decodes for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from bdlit.errors import BdlitError
from bdlit.llm import Answerer
from bdlit.types import NO_CLASS, Example

if TYPE_CHECKING:
    from bdlit.victims.base import Victim
    from bdlit.victims.generation import Decoding


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What an input defense returned.

    Attributes:
        rows: The rows to give to the model, as many as came in, in their order.
        rejected: Positions of the rows that are rejected.
        notes: What the method has to say of this run, ready for JSON.
    """

    rows: Sequence[Example]
    rejected: Sequence[int] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


class InputGuard(Protocol):
    """What cleans or rejects the inputs of a model; see `bdlit.defenses.InputDefense`."""

    @property
    def name(self) -> str:
        """Its name, for error lines."""

    def clean(self, rows: Sequence[Example], *, victim: Answerer | None = None) -> Cleaned:
        """Return as many rows, with harmless texts, and which are rejected."""


class AnswerGuard(Protocol):
    """What decodes in a model's place; see `bdlit.defenses.AnswerDefense`."""

    @property
    def name(self) -> str:
        """Its name, for the record."""

    def answer(
        self, victim: Any, prompts: Sequence[Sequence[int]], decoding: Decoding, /
    ) -> list[list[int]]:
        """Return an answer to each prompt, as token ids without ends."""


class Gate:
    """Lets rows through an input guard, batch by batch.

    Args:
        guard: The guard; None lets every row through as it is.
        victim: The model that is measured, which the guard may ask.
        notes: Takes what the guard says: numbers are summed over all batches.

    Attributes:
        rejects: Whether the guard is one that rejects rows.
    """

    def __init__(
        self, guard: InputGuard | None, victim: Victim, notes: dict[str, Any] | None = None
    ) -> None:
        self._guard = guard
        self.rejects = bool(getattr(guard, "rejects", False))
        self._ask = answerer(victim)
        self._notes = notes
        self._said: dict[str, Any] = {}

    def batches(
        self, batches: Iterable[list[Example]]
    ) -> Iterator[tuple[list[Example], list[bool]]]:
        """Yield the rows of each batch as the model gets them, and which are rejected."""
        for rows in batches:
            yield self._through(rows) if self._guard else (rows, [False] * len(rows))

    def report(self) -> None:
        """Give what the guard has said to the notes, over all processes; all call this."""
        if self._guard is None:
            return
        from bdlit.ranks import gathered  # late: it imports torch

        said: dict[str, Any] = {}
        for own in gathered(self._said):
            for name, value in own.items():
                said[name] = said.get(name, 0) + value if isinstance(value, int) else value
        if self._notes is not None:
            self._notes["inputs"] = {"defense": self._guard.name, **said}

    def _through(self, rows: list[Example]) -> tuple[list[Example], list[bool]]:
        assert self._guard is not None
        found = self._guard.clean([_bare(row) for row in rows], victim=self._ask)
        _require_fit(self._guard, found, len(rows))
        for name, value in found.notes.items():
            known = self._said.get(name, 0)
            self._said[name] = known + value if isinstance(value, int) else value
        rejected = set(found.rejected)
        cleaned = [_taken_over(*pair) for pair in zip(rows, found.rows, strict=True)]
        return cleaned, [i in rejected for i in range(len(rows))]


def _bare(row: Example) -> Example:
    """Return a row without what it is measured by."""
    return replace(row.unmarked, label=NO_CLASS, response=None)


def _taken_over(row: Example, cleaned: Example) -> Example:
    """Return a row with the texts that a guard has made of them, and nothing else."""
    return replace(row, text=cleaned.text, text_pair=cleaned.text_pair, history=cleaned.history)


def _require_fit(guard: InputGuard, found: Cleaned, rows: int) -> None:
    if len(found.rows) != rows:
        raise BdlitError(
            f"{guard.name} returned {len(found.rows)} rows of {rows}: an input defense returns as "
            "many as it gets, and names those that it rejects in `rejected`"
        )
    beyond = [i for i in found.rejected if not 0 <= i < rows]
    if beyond:
        raise BdlitError(
            f"{guard.name} rejects row {beyond[0]} of {rows}: `rejected` holds positions, from 0"
        )


def answerer(victim: Victim) -> Answerer | None:
    """Return a way to ask a language model with texts; None for a classifier, which cannot answer.

    >>> from types import SimpleNamespace
    >>> model = SimpleNamespace(respond=lambda rows: [row.text.upper() for row in rows])
    >>> answerer(model)(["why?"])
    ['WHY?']
    """
    respond = getattr(victim, "respond", None)
    if respond is None:
        return None
    return lambda prompts: list(respond([Example(prompt, NO_CLASS) for prompt in prompts]))
