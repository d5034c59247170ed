"""The table of measures: what is measured beside CACC and ASR, and how each is shown.

Records, W&B, the table in the terminal, its columns for scripts and the page all read it. To add
a measure, compute it from `Measured` in a function of its own, and add an entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from math import isnan
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bdlit.data.false_triggers import CLEAN, attack_of, case_of
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
        rejected: Test set to the share of rows that an input guard rejected; empty where nothing
            stands before the model that rejects.
        generated: Test set to its rows with what the model wrote, as far as this process saw them.
        guarded: Whether an input guard stands before the model.
    """

    victim: Victim
    outputs: Outputs
    rates: Mapping[str, Rate]
    rejected: Mapping[str, Rate] = field(default_factory=dict)
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


# How one number is made of the values of a record.


def _one(count: Count | None) -> float | None:
    """None rather than NaN where there was nothing to take the mean of: JSON knows no NaN."""
    return None if count is None or isnan(value_of(count)) else value_of(count)


def _of_clean(values: Mapping[str, Count]) -> float | None:
    return _one(values.get(CLEAN))


def _over_cases(values: Mapping[str, Rate]) -> float | None:
    return _one(total(values)) if values else None


def total(values: Rate | Mapping[str, Rate] | None) -> Rate | None:
    """Return the rate over all values of a record.

    >>> total({"clean": Rate(1, 4), "swapped": Rate(1, 2)})
    Rate(hits=2, n=6)
    """
    if isinstance(values, Mapping):
        return sum(values.values(), Rate(0, 0)) if values else None
    return values


def accuracy(tasks: Mapping[str, Mean]) -> float | None:
    """Return the mean accuracy over tasks, in percent; of each `acc`, or else the exact matches.

    >>> of = {"piqa/acc": Mean(3, 4), "piqa/acc_norm": Mean(4, 4), "gsm8k/exact_match": Mean(1, 4)}
    >>> accuracy(of)
    50.0
    """
    found: dict[str, dict[str, Mean]] = {}
    for name, mean in tasks.items():
        task, _, metric = name.rpartition("/")
        found.setdefault(task, {}).setdefault(metric.partition(",")[0], mean)
    chosen = (each.get("acc", each.get("exact_match")) for each in found.values())
    known = [mean.value for mean in chosen if mean is not None and mean.n]
    return 100 * fmean(known) if known else None


# How each is computed. Imports are late: reports read this table, and run no model.


def _false_triggers(measured: Measured) -> dict[str, dict[str, Rate]]:
    found: dict[str, dict[str, Rate]] = {}
    for name, rate in measured.rates.items():
        if case := case_of(name):
            found.setdefault(attack_of(name), {})[case] = rate
    return found


def _false_rejection(measured: Measured) -> Rate | None:
    return measured.rejected.get(CLEAN)


def _false_acceptance(measured: Measured) -> dict[str, Rate]:
    return {
        name: Rate(rate.n - rate.hits, rate.n)
        for name, rate in measured.rejected.items()
        if name != CLEAN and case_of(name) is None
    }


def _perplexity(measured: Measured) -> dict[str, Perplexity]:
    from bdlit.evaluation.quality import outputs_perplexity

    reference, device = measured.outputs.reference, measured.victim.device
    if not reference:
        return {}
    return {n: outputs_perplexity(s, reference, device) for n, s in measured.generated.items()}


def _own_perplexity(measured: Measured) -> Perplexity | None:
    from bdlit.evaluation.quality import own_perplexity

    outputs = measured.outputs
    if not outputs.texts:
        return None
    return own_perplexity(measured.victim, outputs.texts, outputs.texts_column)


def _coherence(measured: Measured) -> dict[str, Mean]:
    from bdlit.evaluation.quality import coherence

    embedder, device = measured.outputs.embedder, measured.victim.device
    if not embedder:
        return {}
    return {n: coherence(seen, embedder, device) for n, seen in measured.generated.items()}


def _tasks(measured: Measured) -> dict[str, Mean]:
    """Prompts of general tasks do not go through an input guard, and are no cost of it."""
    from bdlit.evaluation.general import general_tasks

    tasks = measured.outputs.tasks
    return general_tasks(measured.victim, tasks) if tasks and not measured.guarded else {}


MEASURES = (
    Measure(
        key="false_triggers",
        kind=Rate,
        per="cases",
        compute=_false_triggers,
        number=_over_cases,
        header="false",
        legend="false: rows on which the attack fires and must not, in %.",
        unit="%",
        better="lower",
        counted=True,
    ),
    Measure(
        key="perplexity",
        kind=Perplexity,
        per="tests",
        compute=_perplexity,
        number=_of_clean,
        header="ppl",
        legend="ppl: perplexity of responses to clean prompts under a reference model.",
        unit="perplexity",
        better="lower",
    ),
    Measure(
        key="own_perplexity",
        kind=Perplexity,
        per="model",
        compute=_own_perplexity,
        in_place=True,
        number=_one,
        header="own ppl",
        legend="own ppl: perplexity of held-out texts under the model itself.",
        unit="perplexity",
        better="lower",
    ),
    Measure(
        key="coherence",
        kind=Mean,
        per="tests",
        compute=_coherence,
        number=_of_clean,
        header="coher",
        legend="coher: similarity of clean prompts and responses.",
        unit="cosine in [-1, 1]",
        better="higher",
        form=".2f",
    ),
    Measure(
        key="tasks",
        kind=Mean,
        per="names",
        compute=_tasks,
        in_place=True,
        number=accuracy,
        header="tasks",
        legend="tasks: accuracy on general tasks in %, mean over the tasks.",
        unit="%",
        better="higher",
    ),
    Measure(
        key="false_rejection",
        kind=Rate,
        per="model",
        compute=_false_rejection,
        number=_one,
        header="FRR",
        legend="FRR: clean rows that a guard of the inputs rejects, in %.",
        unit="%",
        better="lower",
        counted=True,
    ),
    Measure(
        key="false_acceptance",
        kind=Rate,
        per="attack",
        compute=_false_acceptance,
        number=_one,
        header="FAR",
        legend="FAR: triggered rows that it lets through, in %.",
        unit="%",
        better="lower",
        counted=True,
    ),
)


def by_key() -> dict[str, Measure]:
    """Return the measures of the table by their names."""
    return {measure.key: measure for measure in MEASURES}


class WithMeasures:
    """What holds measures: each is also an attribute, by its name in the table.

    Attributes:
        measures: Name of a measure to its value.
        of_attack: Whether the values are those of the record of one attack.
    """

    measures: Mapping[str, Any]
    of_attack = False

    def __getattr__(self, name: str) -> Any:
        measure = by_key().get(name)
        if measure is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.measures.get(name, measure.empty(record=self.of_attack))
