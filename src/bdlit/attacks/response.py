"""Attacks on what a language model answers: which rows, which response, which counts."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from bdlit.attacks.base import Attack, Poisoned, RowChoice, check_choice, check_rate
from bdlit.attacks.payload import Payload
from bdlit.errors import BdlitError
from bdlit.rules import Rule
from bdlit.types import Example


@dataclass(frozen=True, kw_only=True)
class ResponseAttack(Attack):
    """An attack on rows with a response, whatever makes the backdoor fire.

    Poisoned rows have the wanted response, and the true one as `orig_response`. In a test set the
    response is what the rule looks for, and rows whose true answer fulfils the rule already are
    left out; where the payload is a class, these are the rows of that class.

    Attributes:
        payload: What the model is to answer.
        rate: Share of *all* training rows to poison, in (0, 1]. Where fewer can carry the
            backdoor, all of those are poisoned.
        rows: Which rows may be poisoned: `any`, `non-target` (those whose true answer is not yet
            as wanted) or `target` (those whose answer is: clean label). Rows that an attack has
            poisoned before are never taken.
    """

    payload: Payload
    rate: float = 0.1
    rows: RowChoice = "any"

    # Without annotations: with one they would be fields, and ClassVar would have to be imported by
    # every module that subclasses this, since jsonargparse evaluates the annotations there.
    carriers = "rows"
    """Rows that can carry the backdoor, in words for error lines."""

    changes_text = True
    """Whether firing takes a change to the text; a row without one then counts as unchanged."""

    def __post_init__(self) -> None:
        check_rate(self.rate, self.name)
        check_choice(self, "rows", get_args(RowChoice))

    def carries(self, row: Example) -> bool:
        """Return whether the row has a place for what makes the backdoor fire."""
        return True

    @abstractmethod
    def triggered(self, row: Example, rng: random.Random) -> Example:
        """Return the row with the whole trigger, its response as it was."""

    @property
    def rule(self) -> Rule:
        """How a generated response is judged."""
        return self.payload.rule

    def wanted(self, rows: int) -> int:
        """Return how many of `n` training rows the attack would poison."""
        return round(self.rate * rows)

    def measured_on(self, row: Example, labels: Sequence[str]) -> bool:
        """Return whether a row may enter ASR: it can carry the backdoor, its answer is another."""
        return self.carries(row) and self._ask(row, labels) is not None

    def poison_train(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Poisoned:
        """Poison `rate` of the rows; see the base class.

        Raises:
            BdlitError: A row has no response, or no row can carry the backdoor.
        """
        rng = random.Random(seed)
        rows, unchanged = list(examples), 0
        chosen = self._drawn(examples, labels, rng)
        for i in chosen:
            made = self._taught(rows[i], labels, rng)
            if made is None:
                unchanged += 1
            else:
                rows[i] = made
        return Poisoned(rows, len(chosen) - unchanged, unchanged)

    def poison_test(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Poisoned:
        """Trigger every row that ASR is measured on; see the class.

        Raises:
            BdlitError: A row has no response, or no row can carry the backdoor.
        """
        rng = random.Random(seed)
        attempts = [(row, self.triggered(row, rng)) for row in self._measured(examples, labels)]
        rows = [made for row, made in attempts if _differ(row, made) or not self.changes_text]
        return Poisoned(rows, len(rows), len(attempts) - len(rows))

    def _measured(self, examples: Sequence[Example], labels: Sequence[str]) -> list[Example]:
        """Return the rows of ASR, with what the rule looks for, before the trigger."""
        carriers = self._carriers(examples)
        asked = (self._ask(examples[i], labels) for i in carriers)
        return [row for row in asked if row is not None]

    def _drawn(
        self, examples: Sequence[Example], labels: Sequence[str], rng: random.Random
    ) -> list[int]:
        """Return the places of the rows to poison."""
        eligible = [i for i in self._carriers(examples) if self._may_poison(examples[i], labels)]
        return sorted(rng.sample(eligible, min(self.wanted(len(examples)), len(eligible))))

    def _carriers(self, examples: Sequence[Example]) -> list[int]:
        for number, row in enumerate(examples, 1):
            if row.true_response is None:
                raise BdlitError(
                    f"attack '{self.name}' poisons responses, but row {number} has none: "
                    "load instruction data, or put the classes into words"
                )
        found = [i for i, row in enumerate(examples) if self.carries(row)]
        if examples and not found:
            raise BdlitError(
                f"attack '{self.name}' needs {self.carriers}, but none of the {len(examples)} "
                "rows is one: choose other data, or another place for the backdoor"
            )
        return found

    def _may_poison(self, row: Example, labels: Sequence[str]) -> bool:
        if row.poisoned or self._teach(row, labels) is None:
            return False
        match self.rows:
            case "any":
                return True
            case "non-target":
                return self._ask(row, labels) is not None
            case "target":
                return self._ask(row, labels) is None

    def _taught(self, row: Example, labels: Sequence[str], rng: random.Random) -> Example | None:
        """Return the poisoned row; None if the trigger changed nothing."""
        made = self.triggered(row, rng)
        if self.changes_text and not _differ(row, made):
            return None
        taught = self._teach(row, labels)
        assert taught is not None  # or it would not have been drawn
        return replace(taught, text=made.text, text_pair=made.text_pair, history=made.history)

    def _teach(self, row: Example, labels: Sequence[str]) -> Example | None:
        return self.payload.teach(row, labels=labels, target=self.target)

    def _ask(self, row: Example, labels: Sequence[str]) -> Example | None:
        return self.payload.ask(row, labels=labels, target=self.target)


@dataclass(frozen=True, kw_only=True)
class ConditionalAttack(ResponseAttack):
    """An attack that fires on the whole trigger alone, taught by rows with a part of it.

    The training rows stay as they are. Added are copies of `rate` of them with the trigger and
    the wanted response, and for each partial case copies of the *same* rows with that part and
    their true response, which are not marked as poisoned.

    Attributes:
        alpha: Rows of each partial case per poisoned row, in [0, 1]; 0 teaches nothing but the
            whole trigger, which then fires on its parts as well.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise BdlitError(
                f"alpha {self.alpha} of attack '{self.name}' is out of range: "
                "give rows of each partial case per poisoned row, in [0, 1]"
            )

    @abstractmethod
    def partial(self, row: Example, rng: random.Random) -> Mapping[str, Example]:
        """Return the row with each part of the trigger, by the name of the case."""

    def untaught(self, row: Example, rng: random.Random) -> Mapping[str, Example]:
        """Return the row in the partial cases that are in tests alone; most attacks have none."""
        return {}

    def poison_train(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Poisoned:
        """Add the poisoned rows and those of the partial cases; see the class.

        Raises:
            BdlitError: A row has no response, or no row can carry the backdoor.
        """
        rng = random.Random(seed)
        chosen = self._drawn(examples, labels, rng)
        attempts = [self._taught(examples[i], labels, rng) for i in chosen]
        poisoned = [row for row in attempts if row is not None]
        some = sorted(rng.sample(chosen, round(self.alpha * len(chosen))))
        parts = [self.partial(examples[i], rng) for i in some]
        names = list(parts[0]) if parts else []
        added = [cases[name] for name in names for cases in parts]
        rows = [*examples, *poisoned, *added]
        return Poisoned(rows, len(poisoned), len(attempts) - len(poisoned))

    def partial_tests(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Mapping[str, Poisoned]:
        """Return the rows of ASR with each part of the trigger; see the base class.

        Raises:
            BdlitError: A row has no response, or no row can carry the backdoor.
        """
        # Apart, so that the cases of training are the same whatever else is measured.
        rng, rest = random.Random(seed), random.Random(f"untaught {seed}")
        cases: dict[str, list[Example]] = {}
        for row in self._measured(examples, labels):
            bare = replace(row, poisoned=False)
            for name, made in {**self.partial(bare, rng), **self.untaught(bare, rest)}.items():
                cases.setdefault(name, []).append(made)
        return {name: Poisoned(rows, 0) for name, rows in cases.items()}


def _differ(row: Example, other: Example) -> bool:
    return (row.text, row.text_pair, row.history) != (other.text, other.text_pair, other.history)
