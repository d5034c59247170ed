"""One measurement, flat, as scripts get it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

from bdlit.data.false_triggers import CLEAN
from bdlit.evaluation.result import UNDEFENDED, Result
from bdlit.types import Mean, Perplexity, Rate

BENIGN = "none"
"""The `train_attack` of a model that was trained on clean rows."""

Cell: TypeAlias = tuple[str, str, str, str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One model, measured against one attack: the columns of `--json` and `--csv`.

    Attributes:
        data: Name of the data set.
        attack: Name of the evaluation attack.
        victim: Name of the model.
        train_attack: Name of the attack in the model's training set; `none` for a benign model.
        defense: Name of the defense, or `none`.
        seed: Seed of the model's training.
        cacc: Clean accuracy in percent; None where it was not measured.
        asr: Attack success rate in percent.
        floor: ASR of a benign model on the same rows, in percent.
        excess: ASR above the floor, in percentage points.
        cacc_n: Number of clean rows.
        cacc_hits: Number of clean rows predicted right.
        asr_n: Number of triggered non-target rows.
        asr_hits: Number of those that were predicted as the target.
        floor_n: Number of triggered rows that the floor was measured on.
        floor_hits: Number of those that the benign model predicted as the target.
        false_triggers: Share of rows on which the attack fires and must not, in percent, over all
            its cases.
        false_triggers_n: Number of such rows.
        false_triggers_hits: Number of those on which it fires.
        perplexity: Perplexity of the responses to clean prompts, under a reference model.
        own_perplexity: Perplexity of held-out texts under the model itself.
        coherence: Similarity of clean prompts and the responses to them, in [-1, 1].
        tasks: Accuracy on general tasks in percent, mean over the tasks.
        cacc_before: Clean accuracy of the undefended victim, in percent.
        asr_before: ASR of the undefended victim, in percent.
        seconds: Wall time of the defense.
        peak_memory: Peak resident memory while it ran, in bytes; 0 if it is not known.
        error: Why there are no numbers, where a defense failed.
        run: The folder that the measurement was read from.
    """

    data: str
    attack: str
    victim: str
    train_attack: str
    defense: str
    seed: int
    cacc: float | None = None
    asr: float | None = None
    floor: float | None = None
    excess: float | None = None
    cacc_n: int | None = None
    cacc_hits: int | None = None
    asr_n: int | None = None
    asr_hits: int | None = None
    floor_n: int | None = None
    floor_hits: int | None = None
    false_triggers: float | None = None
    false_triggers_n: int | None = None
    false_triggers_hits: int | None = None
    perplexity: float | None = None
    own_perplexity: float | None = None
    coherence: float | None = None
    tasks: float | None = None
    cacc_before: float | None = None
    asr_before: float | None = None
    seconds: float = 0.0
    peak_memory: int = 0
    error: str | None = None
    run: str = ""

    @property
    def cell(self) -> Cell:
        """What was measured, wherever it was: data, attack, victim, defense and seed."""
        return self.data, self.attack, self.victim, self.defense, self.seed

    @property
    def benign(self) -> bool:
        """Whether the model was trained on clean rows."""
        return self.train_attack == BENIGN

    @property
    def undefended(self) -> bool:
        """Whether the model was measured as it was trained."""
        return self.defense == UNDEFENDED

    @property
    def change(self) -> float | None:
        """Clean accuracy against the undefended victim's, in percentage points."""
        return difference(self.cacc, self.cacc_before)


ROW_COLUMNS = tuple(field.name for field in fields(Row))


def row_of(result: Result, run: Path) -> Row:
    """Flatten a result that was read from the folder `run`.

    >>> result = Result(data="demo", attack="badnet", victim="v", defense="none", seed=0,
    ...                 asr=Rate(3, 4), floor=Rate(1, 4))
    >>> row = row_of(result, Path("runs"))
    >>> row.asr, row.asr_hits, row.asr_n, row.excess, row.cacc
    (75.0, 3, 4, 50.0, None)
    """
    false = sum(result.false_triggers.values(), Rate(0, 0)) if result.false_triggers else None
    return Row(
        data=result.data,
        attack=result.attack,
        victim=result.victim,
        train_attack=result.train_attack,
        defense=result.defense,
        seed=result.seed,
        cacc=_percent(result.cacc),
        asr=_percent(result.asr),
        floor=_percent(result.floor),
        excess=difference(_percent(result.asr), _percent(result.floor)),
        cacc_n=result.cacc.n if result.cacc else None,
        cacc_hits=result.cacc.hits if result.cacc else None,
        asr_n=result.asr.n if result.asr else None,
        asr_hits=result.asr.hits if result.asr else None,
        floor_n=result.floor.n if result.floor else None,
        floor_hits=result.floor.hits if result.floor else None,
        false_triggers=_percent(false),
        false_triggers_n=false.n if false else None,
        false_triggers_hits=false.hits if false else None,
        perplexity=_value(result.perplexity.get(CLEAN)),
        own_perplexity=_value(result.own_perplexity),
        coherence=_value(result.coherence.get(CLEAN)),
        tasks=accuracy(result.tasks),
        cacc_before=_percent(result.cacc_before),
        asr_before=_percent(result.asr_before),
        seconds=result.seconds,
        peak_memory=result.peak_memory,
        error=result.error,
        run=str(run),
    )


def difference(after: float | None, before: float | None) -> float | None:
    """Subtract, where both numbers are known.

    >>> difference(90.0, 88.5), difference(90.0, None)
    (1.5, None)
    """
    return None if after is None or before is None else after - before


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


def _value(mean: Perplexity | Mean | None) -> float | None:
    """None rather than NaN where there was nothing to take the mean of."""
    return None if mean is None or isnan(mean.value) else mean.value


def _percent(rate: Rate | None) -> float | None:
    """None rather than NaN for a rate over no rows: JSON knows no NaN."""
    return rate.percent if rate is not None and rate.n else None
