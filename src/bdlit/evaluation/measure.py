"""What an entry of the table of measures is, and how its values go in and out of records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bdlit.data.false_triggers import attack_of, case_of
from bdlit.evaluation.samples import about
from bdlit.types import Example, Mean, Perplexity, Rate, Sample

if TYPE_CHECKING:
    from bdlit.data.outputs import Outputs
    from bdlit.victims.base import Victim

Count: TypeAlias = Rate | Mean | Perplexity
"""A number with what it is made of."""

Per: TypeAlias = Literal["model", "names", "tests", "attack", "cases"]
"""How many values there are: one of a model; one of each name (a task); one of each test set; one
of each attack; one of each case of each attack."""

Answered: TypeAlias = Sequence[tuple[Example, Sample]]
"""Rows that this process has seen, each with its response."""


@dataclass(kw_only=True)
class Measured:
    """What is known of a model while it is measured, for the functions that compute measures.

    Attributes:
        victim: The model, with the weights that are measured.
        outputs: What is computed of responses, as the data's setting says.
        rates: Test set to the share of hits.
        flips: Test set to the share of its rows, of those whose true class is known, that are
            given another class; empty sets where nothing says what is predicted. A rejected row
            is given none.
        rejected: Test set to the share of rows that an input guard rejected; empty where nothing
            stands before the model that rejects.
        classes: Numbers of clean rows by their class: as they are labelled, and as the model
            predicts; empty where nothing is classified.
        generated: Test set to its rows with what the model wrote, as far as this process saw them;
            without rejected rows, on which it wrote nothing.
        guarded: Whether an input guard stands before the model.
    """

    victim: Victim
    outputs: Outputs
    rates: Mapping[str, Rate]
    flips: Mapping[str, Rate] = field(default_factory=dict)
    rejected: Mapping[str, Rate] = field(default_factory=dict)
    classes: tuple[Sequence[int], Sequence[int]] = ((), ())
    generated: Mapping[str, Answered] = field(default_factory=dict)
    guarded: bool = False


@dataclass(frozen=True, kw_only=True)
class Measure:
    """An entry of the table.

    Attributes:
        key: Its name in records, rows and W&B.
        kind: What its values are made of.
        per: How many values there are.
        compute: Computes the value, or the values by name; None or nothing where it is not
            measured.
        in_place: Whether it runs the model, and so is computed while its weights are in place.
        number: Makes the one number of a row from the values of a record.
        header: What stands above its column.
        legend: What it is, for the line below a table.
        unit: Its unit, or what it counts.
        better: Which way is better, if one is.
        form: How the number is written.
        counted: Whether rows also have the counts of a rate, `<key>_n` and `<key>_hits`.
        warning: What is said of a model that has it, with `{}` for the number; such a measure is
            there only of models that something is wrong with, and is no column of the table.
    """

    key: str
    kind: type[Rate] | type[Mean] | type[Perplexity]
    per: Per
    compute: Callable[[Measured], Any]
    number: Callable[[Any], float | None]
    header: str
    legend: str
    unit: str
    better: Literal["higher", "lower"] | None
    in_place: bool = False
    form: str = ".1f"
    counted: bool = False
    warning: str | None = None

    def empty(self, *, record: bool) -> Any:
        """Return what stands for it where it is not measured, in a record or in all scores."""
        return None if self.per == "model" or (record and self.per == "attack") else {}

    def narrowed(self, value: Any, attack: str) -> Any:
        """Return what the record of one attack holds of the value of a model."""
        match self.per:
            case "model" | "names":
                return value
            case "tests":
                return about(attack, value)
            case "attack":
                return value.get(attack)
            case "cases":
                return value.get(attack, {})

    def gathered(self, of_attacks: Mapping[str, Any]) -> Any:
        """Return the value of a model from what the records of its attacks hold."""
        found = list(of_attacks.values())
        match self.per:
            case "model" | "names":
                return found[0]
            case "tests":
                return {name: each for own in found for name, each in own.items()}
            case "attack" | "cases":
                return {attack: own for attack, own in of_attacks.items() if own}

    def named(self, value: Any, attack: str) -> dict[str, Count]:
        """Return the values of a record by their names in W&B."""
        match self.per:
            case "model":
                return {} if value is None else {self.key: value}
            case "attack":
                return {} if value is None else {f"{self.key}/{attack}": value}
            case "cases":
                return {f"{self.key}/{attack}/{case}": each for case, each in value.items()}
            case _:
                return {f"{self.key}/{name}": each for name, each in value.items()}

    def read(self, named: Mapping[str, Sequence[Any]]) -> Any:
        """Return the value of a model from counts by their names in W&B; see `named`."""
        made = {name: _made(self.kind, counts) for name, counts in named.items()}
        if self.per == "model":
            return made.get(self.key)
        own = {name.removeprefix(f"{self.key}/"): each for name, each in made.items()}
        if self.per != "cases":
            return own
        found: dict[str, dict[str, Count]] = {}
        for name, each in own.items():
            found.setdefault(attack_of(name), {})[str(case_of(name))] = each
        return found

    def plain(self, value: Any) -> Any:
        """Return a value, or values by name, as plain data."""
        if isinstance(value, Mapping):
            return {name: self.plain(each) for name, each in value.items()}
        return None if value is None else asdict(value)

    def from_plain(self, plain: Any, *, record: bool) -> Any:
        """Return what `plain` came from.

        Args:
            plain: Plain data; None where nothing was written.
            record: Whether it is of a record, not of the scores of a model.
        """
        depth = {"model": 0, "names": 1, "tests": 1, "attack": 1, "cases": 2}[self.per]
        if record and self.per in ("attack", "cases"):
            depth -= 1
        return self._from_plain(plain, depth)

    def _from_plain(self, plain: Any, depth: int) -> Any:
        if depth:
            return {name: self._from_plain(each, depth - 1) for name, each in (plain or {}).items()}
        return None if plain is None else self.kind(**plain)


def _made(kind: type[Count], counts: Sequence[Any]) -> Count:
    first, n = counts  # JSON has infinity as a text
    if kind is Rate:
        return Rate(int(first), int(n))
    return Mean(float(first), int(n)) if kind is Mean else Perplexity(float(first), int(n))


def value_of(count: Count) -> float:
    """Return the number that counts make: a rate in percent, a mean, a perplexity."""
    return count.percent if isinstance(count, Rate) else count.value


def counts_of(count: Count) -> list[float]:
    """Return what a number is made of."""
    return list(astuple(count))
