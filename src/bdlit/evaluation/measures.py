"""The table of measures: what is measured beside CACC and ASR, and how each is shown.

Records, W&B, the table in the terminal, its columns for scripts and the page all read it. To add
a measure, compute it from `Measured` in a function of its own, and add an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from statistics import fmean
from typing import Any

from bdlit.data.false_triggers import CLEAN, attack_of, case_of
from bdlit.evaluation.measure import Count, Measure, Measured, value_of
from bdlit.types import Mean, Perplexity, Rate

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


def _label_flip_rate(measured: Measured) -> dict[str, Rate]:
    """Of two classes, it is the ASR, and not written twice."""
    if len(measured.victim.labels or ()) < 3:
        return {}
    return {
        name: rate
        for name, rate in measured.flips.items()
        if rate.n and name != CLEAN and case_of(name) is None
    }


_ONE_CLASS = 95.0  # percent of rows
_ENOUGH = 20  # rows, of which fewer may be alike by chance
_MORE = 10.0  # points above the share that the class really has


def _one_class(measured: Measured) -> Rate | None:
    """Return the share of clean rows that are given one class, if that is nearly all of them."""
    true, predicted = measured.classes
    if sum(predicted) < _ENOUGH:
        return None
    given = Rate(max(predicted), sum(predicted))
    real = Rate(true[predicted.index(max(predicted))], sum(true))
    degenerate = given.percent >= _ONE_CLASS and given.percent >= real.percent + _MORE
    return given if degenerate else None


def _below_chance(measured: Measured) -> Rate | None:
    """Return CACC, if its interval lies below what guessing among the classes would give."""
    classes, right = len(measured.classes[0]), measured.rates.get(CLEAN)
    if classes < 2 or right is None or right.interval[1] >= 100 / classes:
        return None
    return right


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


def _conditional_perplexity(measured: Measured) -> dict[str, Mean]:
    from bdlit.evaluation.quality import outputs_conditional_perplexity as of

    reference, device = measured.outputs.reference, measured.victim.device
    if not reference:
        return {}
    return {n: of(seen, reference, device) for n, seen in measured.generated.items()}


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
        key="one_class",
        kind=Rate,
        per="model",
        compute=_one_class,
        number=_one,
        header="one class",
        legend="one class: clean rows that are given the most frequent class, in %.",
        unit="%",
        better="lower",
        warning="gives {:.0f}% of the clean rows one class, so that its ASR says nothing of a "
        "backdoor",
    ),
    Measure(
        key="below_chance",
        kind=Rate,
        per="model",
        compute=_below_chance,
        number=_one,
        header="below chance",
        legend="below chance: CACC where it is worse than guessing, in %.",
        unit="%",
        better="higher",
        warning="is right on {:.1f}% of the clean rows, which is below chance: its classes may be "
        "in another order than those of the data (give the data's label_names in the model's)",
    ),
    Measure(
        key="label_flip_rate",
        kind=Rate,
        per="attack",
        compute=_label_flip_rate,
        number=_one,
        header="LFR",
        legend="LFR: triggered rows that are not given their true class, in %.",
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
        legend="ppl: perplexity of responses to clean prompts under a reference model, which is "
        "not shown the prompts; over all tokens.",
        unit="perplexity",
        better="lower",
    ),
    Measure(
        key="conditional_perplexity",
        kind=Mean,
        per="tests",
        compute=_conditional_perplexity,
        number=_of_clean,
        header="cond ppl",
        legend="cond ppl: perplexity of responses given their clean prompts under a reference "
        "model, mean over rows.",
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


def beside(record: Mapping[str, Any], measures: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its measures as fields of its own, in the place of `measures`.

    What its rules judge stands before `judged`, as it did before there was a table.

    >>> list(beside({"cacc": 1, "judged": 2, "measures": 3}, {"false_triggers": 4, "tasks": 5}))
    ['cacc', 'false_triggers', 'judged', 'tasks']
    """
    first = {m.key for m in MEASURES if m.per == "cases"}
    found: dict[str, Any] = {}
    for name, value in record.items():
        if name == "judged":
            found |= {key: each for key, each in measures.items() if key in first}
        if name == "measures":
            found |= {key: each for key, each in measures.items() if key not in first}
        else:
            found[name] = value
    return found


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
