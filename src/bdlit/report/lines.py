"""Measurements of several seeds, summed up in one line of a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from bdlit.evaluation.result import UNDEFENDED
from bdlit.report.row import BENIGN, Row
from bdlit.types import Rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One (data, victim, attack, defense), over its seeds.

    Means and standard deviations are of the seeds' percentages: they tell how trainings differ.
    Counts are pooled over seeds, which see the same test rows: their interval tells how far a rate
    depends on the choice of rows.

    Attributes:
        data: Name of the data set.
        victim: Name of the model.
        train_attack: Name of the attack in the model's training set; `none` for a benign model.
        attack: Name of the evaluation attack.
        defense: Name of the defense, or `none`.
        run: The folder of the measurements, where runs that repeat a seed must be told apart.
        seeds: Number of seeds with scores.
        cacc: Mean clean accuracy, in percent.
        cacc_sd: Its sample standard deviation over seeds; None for one seed.
        change: Mean change of clean accuracy against the undefended victim, in points.
        asr: Mean attack success rate, in percent.
        asr_sd: Its sample standard deviation over seeds; None for one seed.
        floor: Mean ASR of benign models on the same rows, in percent.
        excess: Mean ASR above the floor, in points.
        counts: Counts behind the ASR, pooled over seeds.
        false_triggers: Mean share of rows on which the attack fires and must not, in percent.
        perplexity: Mean perplexity of the responses to clean prompts, under a reference model.
        own_perplexity: Mean perplexity of held-out texts under the model itself.
        coherence: Mean similarity of clean prompts and the responses to them.
        tasks: Mean accuracy on general tasks, in percent.
        seconds: Mean wall time of the defense.
        peak_memory: Mean peak of resident memory while it ran, in bytes.
        errors: Seeds without scores, and why the defense failed there.
    """

    data: str
    victim: str
    train_attack: str
    attack: str
    defense: str
    run: str
    seeds: int
    cacc: float | None
    cacc_sd: float | None
    change: float | None
    asr: float | None
    asr_sd: float | None
    floor: float | None
    excess: float | None
    counts: Rate | None
    false_triggers: float | None
    perplexity: float | None
    own_perplexity: float | None
    coherence: float | None
    tasks: float | None
    seconds: float | None
    peak_memory: float | None
    errors: tuple[tuple[int, str], ...]

    @property
    def benign(self) -> bool:
        """Whether the model was trained on clean rows."""
        return self.train_attack == BENIGN

    @property
    def undefended(self) -> bool:
        """Whether the model was measured as it was trained."""
        return self.defense == UNDEFENDED

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% Wilson interval of the pooled ASR, in percent."""
        return self.counts.interval if self.counts and self.counts.n else None

    @property
    def n(self) -> int | None:
        """Number of triggered rows, pooled over seeds."""
        return self.counts.n if self.counts else None


LINE_COLUMNS = (
    *("data", "victim", "train_attack", "attack", "defense", "run", "seeds"),
    *("cacc", "change", "asr", "floor", "excess", "n", "false_triggers"),
    *("perplexity", "own_perplexity", "coherence", "tasks", "seconds", "peak_memory"),
)
"""What lines may be sorted by."""


def aggregate(rows: Iterable[Row]) -> list[Line]:
    """Sum up the seeds of each (data, victim, attack, defense), in the order of first appearance.

    Two measurements of one cell with the same seed come from different runs, whose settings may
    differ: the lines of such a victim are kept apart by run.
    """
    return [_line(run, members) for run, members in _groups(list(rows))]


def _groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    seen: set[object] = set()
    repeated = set()
    for row in rows:
        if row.cell in seen:
            repeated.add((row.data, row.victim))
        seen.add(row.cell)
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        run = row.run if (row.data, row.victim) in repeated else ""
        groups[run, row.data, row.victim, row.train_attack, row.attack, row.defense].append(row)
    for (run, *_), members in groups.items():
        yield run, members


def _line(run: str, members: Sequence[Row]) -> Line:
    first = members[0]
    scored = [row for row in members if row.asr is not None or row.cacc is not None]
    cacc, cacc_sd = _mean_and_sd(row.cacc for row in scored)
    asr, asr_sd = _mean_and_sd(row.asr for row in scored)
    return Line(
        data=first.data,
        victim=first.victim,
        train_attack=first.train_attack,
        attack=first.attack,
        defense=first.defense,
        run=run,
        seeds=len(scored),
        cacc=cacc,
        cacc_sd=cacc_sd,
        change=None if first.undefended else _mean_and_sd(row.change for row in scored)[0],
        asr=asr,
        asr_sd=asr_sd,
        floor=_mean_and_sd(row.floor for row in members)[0],
        excess=_mean_and_sd(row.excess for row in scored)[0],
        counts=_pooled(scored),
        false_triggers=_mean_and_sd(row.false_triggers for row in scored)[0],
        perplexity=_mean_and_sd(row.perplexity for row in scored)[0],
        own_perplexity=_mean_and_sd(row.own_perplexity for row in scored)[0],
        coherence=_mean_and_sd(row.coherence for row in scored)[0],
        tasks=_mean_and_sd(row.tasks for row in scored)[0],
        seconds=None if first.undefended else _mean_and_sd(row.seconds for row in scored)[0],
        peak_memory=None
        if first.undefended
        else _mean_and_sd(row.peak_memory or None for row in scored)[0],
        errors=tuple((row.seed, row.error) for row in members if row.error is not None),
    )


def _mean_and_sd(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None, stdev(known) if len(known) > 1 else None


def _pooled(rows: Iterable[Row]) -> Rate | None:
    rates = [
        Rate(row.asr_hits, row.asr_n)
        for row in rows
        if row.asr_hits is not None and row.asr_n is not None
    ]
    return sum(rates, Rate(0, 0)) if rates else None
