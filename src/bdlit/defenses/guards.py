"""Defenses that stand around a model: of what goes into it, and of what it answers."""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from bdlit.defenses.base import Defended, Defense
from bdlit.evaluation.guards import Cleaned as Cleaned
from bdlit.llm import Answerer
from bdlit.types import Example, Weights

if TYPE_CHECKING:
    from bdlit.defenses.head import HeadFate
    from bdlit.victims.generation import Decoding


class Guard(Defense):
    """A defense that leaves the model as it is and stands around it.

    A subclass may define `prepare`, whose keyword-only parameters declare what it needs to get
    ready: thresholds from clean rows, a reference among the others. What it then knows it keeps by
    `with_state`; the settings stay what they were.
    """

    declaring: tuple[str, ...] = ("apply", "prepare")

    # `*args` is never used: with it, type checkers let subclasses name their own parameters.
    def prepare(self, *args: Any, **needs: Any) -> Self:
        """Return this defense ready for work; by default it is ready as it is."""
        return self

    def with_state(self, **state: Any) -> Self:
        """Return a copy that also knows something of the model it guards, as attributes."""
        ready = copy.copy(self)
        for name, value in state.items():
            object.__setattr__(ready, name, value)
        return ready

    def apply(self, suspect: Weights, *, victim: Any, **needs: Any) -> Defended:
        """Return the suspect as it is, together with this defense, made ready for it."""
        ready = self.prepare(**self.asked_of({"victim": victim, **needs}))
        return Defended(weights=suspect, copied=list(suspect), **self._place(ready))

    def asked_of(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return what `prepare` asks for, of what is given."""
        parameters = inspect.signature(self.prepare).parameters.values()
        asked = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        return {name: value for name, value in given.items() if name in asked}

    @abstractmethod
    def _place(self, ready: Any) -> dict[str, Any]:
        """Return where it stands in what is deployed, and a note of it."""


class InputDefense(Guard):
    """A defense of the inputs: settings in the constructor, rows in, rows out.

    It may change the texts of a row or reject the row. It sees neither labels nor responses nor
    marks: they are what the rows are measured by. The model stays as it is; wherever it is
    measured, it gets the cleaned rows, and a rejected row is neither a hit nor a right answer.

    Attributes:
        rejects: Whether it rejects rows: false rejection and acceptance are then recorded.
    """

    rejects: bool = False

    @abstractmethod
    def clean(self, rows: Sequence[Example], *, victim: Answerer | None = None) -> Cleaned:
        """Return as many rows, in their order, with harmless texts; and which are rejected.

        Args:
            rows: Rows that may hold a trigger.
            victim: The suspect model, asked with prompts as texts; None where it cannot be asked.
        """

    def _place(self, ready: Any) -> dict[str, Any]:
        return {"inputs": ready, "notes": {"inputs": {"defense": self.name}}}


class AnswerDefense(Guard):
    """A defense of the answers of a language model: it decodes in the model's place."""

    @abstractmethod
    def answer(
        self, victim: Any, prompts: Sequence[Sequence[int]], decoding: Decoding
    ) -> list[list[int]]:
        """Return an answer to each prompt, as token ids without the end.

        Args:
            victim: The model that is guarded; `victim.generate(prompts)` is what it would answer,
                and `victim.tokenizer` reads and writes tokens.
            prompts: Token ids of the prompts, by the victim's template.
            decoding: How answers are made.
        """

    def _place(self, ready: Any) -> dict[str, Any]:
        return {"answers": ready, "notes": {"answers": {"defense": self.name}}}


@dataclass(frozen=True, kw_only=True)
class Guarded(Defense):
    """Purify the model, and guard what goes into it or what it answers as well.

    Reference: Chen et al. 2024, "Neutralizing Backdoors through Information Conflicts for Large
        Language Models", arXiv:2411.18280, where a conflict model and conflict evidence are used
        together.

    Attributes:
        model: The defense of the weights.
        inputs: The defense of the inputs; it is made ready on the purified model, and asks it.
        answers: The defense of the answers.
    """

    model: Defense
    inputs: InputDefense | None = None
    answers: AnswerDefense | None = None

    listed = False  # what it needs, its defenses say

    def __post_init__(self) -> None:
        every = [self.model, *self._guards]
        wanted = dict.fromkeys(need for each in every for need in each.needs_now)
        used = dict.fromkeys(use for each in every for use in each.uses)
        object.__setattr__(self, "needs", tuple(wanted))
        object.__setattr__(self, "uses", tuple(used))

    @property
    def _guards(self) -> list[InputDefense | AnswerDefense]:
        return [guard for guard in (self.inputs, self.answers) if guard is not None]

    @property
    def name(self) -> str:
        """Name in folders, logs and results: `Conflict-Linear+ConflictEvidence`."""
        return "+".join([self.model.name, *(guard.name for guard in self._guards)])

    @property
    def keeps_head(self) -> bool:
        """As the defense of the weights."""
        return self.model.keeps_head

    @property
    def head_becomes(self) -> HeadFate | None:
        """As the defense of the weights."""
        return self.model.head_becomes

    @property
    def keeps_names(self) -> bool:
        """As the defense of the weights."""
        return self.model.keeps_names

    def check(self, suspect: Weights, **models: Any) -> None:
        """Refuse models that the defense of the weights cannot use."""
        self.model.check(suspect, **models)

    def apply(self, suspect: Weights, **given: Any) -> Defended:
        """Return the purified model, together with what guards it."""
        own = {name: value for name, value in given.items() if name in self.model.uses}
        found = self.model.apply(suspect, **own)
        for guard in self._guards:
            asked = guard.asked_of(given)
            with _running(asked.get("victim"), found.weights):
                place = guard._place(guard.prepare(**asked))
            found = replace(found, **{**place, "notes": {**found.notes, **place["notes"]}})
        return found


def _running(victim: Any, weights: Weights) -> Any:
    """Have the victim run on the purified weights, where a guard is made ready on it."""
    if victim is None:
        return nullcontext()
    from bdlit.weights.network import swapped

    return swapped(victim.network(), weights)
