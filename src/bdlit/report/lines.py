"""Measurements of several seeds, summed up in one line of a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from bdlit.evaluation.measures import by_key
from bdlit.evaluation.result import UNDEFENDED
from bdlit.report.row import Row
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
        measures: Name of a measure of the table to the mean of its number; each is also an
            attribute.
        seconds: Mean wall time of the defense.
        peak_memory: Mean peak of resident memory while it ran, in bytes.
        errors: Seeds without scores, and why the defense failed there.
        benign: Whether nobody attacked the model, at any stage.
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
    measures: Mapping[str, float]
    seconds: float | None
    peak_memory: float | None
    errors: tuple[tuple[int, str], ...]
    benign: bool

    def __getattr__(self, name: str) -> Any:
        """Return a measure of the table; None where it was not measured."""
        if name not in by_key():
            raise AttributeError(f"'Line' object has no attribute {name!r}")
        return self.measures.get(name)

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


def line_columns() -> list[str]:
    """Return what lines may be sorted by."""
    return [
        *("data", "victim", "train_attack", "attack", "defense", "run", "seeds"),
        *("cacc", "change", "asr", "floor", "excess", "n", *by_key(), "seconds", "peak_memory"),
    ]


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
        measures=_means(scored),
        seconds=None if first.undefended else _mean_and_sd(row.seconds for row in scored)[0],
        peak_memory=None
        if first.undefended
        else _mean_and_sd(row.peak_memory or None for row in scored)[0],
        errors=tuple((row.seed, row.error) for row in members if row.error is not None),
        benign=first.benign,
    )


def _means(rows: Sequence[Row]) -> dict[str, float]:
    means = {key: _mean_and_sd(getattr(row, key) for row in rows)[0] for key in by_key()}
    return {key: mean for key, mean in means.items() if mean is not None}


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
