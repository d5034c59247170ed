"""Defenses that change what goes into a model and leave the model as it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bdlit.defenses.base import Defended, Defense
from bdlit.llm import Answerer
from bdlit.types import NO_CLASS, Example, Scores, Weights

if TYPE_CHECKING:
    from bdlit.evaluation.evaluate import NamedTests
    from bdlit.rules import Rule
    from bdlit.victims.base import Victim


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What an input defense returned.

    Attributes:
        rows: The rows to give to the model, in the order of those that came in.
        notes: What the method has to say of this run, ready for JSON.
    """

    rows: list[Example]
    notes: Mapping[str, Any] = field(default_factory=dict)


class InputDefense(Defense):
    """A defense of the inputs: settings in the constructor, rows in, rows out.

    It may change the texts of a row and nothing else: labels, responses and marks are what the
    rows are measured by, and it must not read them. The model stays as it is; wherever it is
    measured, it gets the cleaned rows.
    """

    @abstractmethod
    def clean(self, rows: Sequence[Example], *, victim: Answerer | None = None) -> Cleaned:
        """Return the rows with harmless texts.

        Args:
            rows: Rows that may hold a trigger.
            victim: The suspect model, asked with prompts as texts; None where it cannot be asked.
        """

    def apply(self, suspect: Weights, *, victim: Any) -> Defended:
        """Return the suspect as it is, together with this defense of what goes into it."""
        return Defended(
            weights=suspect,
            merged=[],
            copied=list(suspect),
            notes={"inputs": {"defense": self.name}},
            inputs=self,
        )


@dataclass(frozen=True, kw_only=True)
class Guarded(Defense):
    """Purify the model, and clean what goes into it as well.

    Reference: Chen et al. 2024, "Neutralizing Backdoors through Information Conflicts for Large
        Language Models", arXiv:2411.18280, where a conflict model and conflict evidence are used
        together.

    Attributes:
        model: The defense of the weights.
        inputs: The defense of the inputs; it asks the purified model.
    """

    model: Defense
    inputs: InputDefense

    listed = False  # what it needs, its two defenses say

    def __post_init__(self) -> None:
        wanted = [*self.model.needs, *(n for n in self.inputs.needs if n not in self.model.needs)]
        used = dict.fromkeys([*self.model.uses, *self.inputs.uses])
        object.__setattr__(self, "needs", tuple(wanted))
        object.__setattr__(self, "uses", tuple(used))

    @property
    def name(self) -> str:
        """Name in folders, logs and results: `Conflict-Linear+ConflictEvidence`."""
        return f"{self.model.name}+{self.inputs.name}"

    def apply(self, suspect: Weights, **given: Any) -> Defended:
        """Return the purified model, together with the defense of its inputs."""
        own = {name: value for name, value in given.items() if name in self.model.uses}
        found = self.model.apply(suspect, **own)
        notes = {**found.notes, "inputs": {"defense": self.inputs.name}}
        return replace(found, notes=notes, inputs=self.inputs)


class CleanedTests:
    """Test sets whose rows have gone through an input defense, batch by batch, as they are read.

    Args:
        data: The test sets.
        defense: The defense.
        victim: The model that is measured, which the defense may ask.

    Attributes:
        outputs: What is kept and computed of responses; that of the test sets, without general
            tasks, whose prompts the defense does not see.
        seed: Seed of samples; that of the test sets.
        notes: What the defense has said: numbers are summed over all batches.
    """

    def __init__(self, data: NamedTests, defense: InputDefense, victim: Victim) -> None:
        self._data = data
        self._defense = defense
        self._ask = answerer(victim)
        self.outputs = replace(data.outputs, tasks=None)
        self.seed = data.seed
        self.notes: dict[str, Any] = {}

    def test_dataloader(self) -> Mapping[str, Iterable[list[Example]]]:
        """Return the loaders by name."""
        return {name: self._rows(batches) for name, batches in self._data.test_dataloader().items()}

    def rule(self, name: str) -> Rule:
        """Return how the responses to a test set are judged."""
        return self._data.rule(name)

    def _rows(self, batches: Iterable[list[Example]]) -> Iterator[list[Example]]:
        for rows in batches:
            found = self._defense.clean(rows, victim=self._ask)
            for name, said in found.notes.items():
                counted = isinstance(said, int)
                self.notes[name] = self.notes.get(name, 0) + said if counted else said
            yield found.rows


def evaluate_cleaned(
    victim: Victim,
    data: NamedTests,
    inputs: InputDefense | None,
    weights: Weights | None = None,
) -> tuple[Scores, dict[str, Any]]:
    """Measure a model whose inputs are cleaned, if they are; see `bdlit.evaluation.evaluate`.

    Returns:
        The scores, and notes of what the defense of the inputs had to say.
    """
    from bdlit.evaluation.evaluate import evaluate

    if inputs is None:
        return evaluate(victim, data, weights), {}
    tests = CleanedTests(data, inputs, victim)
    scores = evaluate(victim, tests, weights)
    return scores, {"inputs": {"defense": inputs.name, **tests.notes}}


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
