"""Measurements of several seeds, summed up in one line of a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from bdlit.evaluation.intervals import (
    Interval,
    difference_interval,
    rate_interval,
    unpaired_interval,
)
from bdlit.evaluation.measures import by_key
from bdlit.evaluation.result import UNDEFENDED
from bdlit.report.against import Against
from bdlit.report.row import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One (data, victim, attack, defense), over its seeds.

    Means, standard deviations and intervals are of the seeds' percentages, each seed alike: they
    tell how trainings differ. Where there is one seed, its intervals are over its rows only.

    Attributes:
        data: Name of the data set.
        victim: Name of the model.
        train_attack: Name of the attack in the model's training set; `none` for a benign model.
        attack: Name of the evaluation attack.
        defense: Name of the defense, or `none`.
        run: The folder of the measurements, where runs that repeat a seed must be told apart.
        scored: Its measurements that have scores, one for each seed, by seed.
        cacc: Mean clean accuracy, in percent.
        cacc_sd: Its sample standard deviation over seeds; None for one seed.
        cacc_interval: Its 95% interval.
        change: Mean change of clean accuracy against the undefended victim, in points.
        asr: Mean attack success rate, in percent.
        asr_sd: Its sample standard deviation over seeds; None for one seed.
        asr_interval: Its 95% interval.
        floor: Mean ASR of benign models on the same rows, in percent.
        excess: Mean ASR above the floor, in points.
        excess_interval: Its 95% interval; None of a model that is its own floor.
        measures: Name of a measure of the table to the mean of its number; each is also an
            attribute.
        seconds: Mean wall time of the defense.
        peak_memory: Mean peak of resident memory while it ran, in bytes.
        errors: Seeds without scores, and why the defense failed there.
        benign: Whether nobody attacked the model, at any stage.
        against: The difference to another defense of the same victim, where one was asked for.
    """

    data: str
    victim: str
    train_attack: str
    attack: str
    defense: str
    run: str
    scored: tuple[Row, ...]
    cacc: float | None
    cacc_sd: float | None
    cacc_interval: Interval | None
    change: float | None
    asr: float | None
    asr_sd: float | None
    asr_interval: Interval | None
    floor: float | None
    excess: float | None
    excess_interval: Interval | None
    measures: Mapping[str, float]
    seconds: float | None
    peak_memory: float | None
    errors: tuple[tuple[int, str], ...]
    benign: bool
    against: Against | None = None

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
    def seeds(self) -> int:
        """Number of seeds with scores."""
        return len(self.scored)

    @property
    def hits(self) -> int | None:
        """Hits of all seeds together, to look at: no interval is made of it."""
        rates = [rate for row in self.scored if (rate := row.rate("asr"))]
        return sum(rate.hits for rate in rates) if rates else None

    @property
    def n(self) -> int | None:
        """Triggered rows of all seeds together; seeds mostly see the same ones."""
        rates = [rate for row in self.scored if (rate := row.rate("asr"))]
        return sum(rate.n for rate in rates) if rates else None

    @property
    def asr_difference(self) -> float | None:
        """Mean difference of the ASR to the other defense, in points."""
        return self.against.asr.mean if self.against and self.against.asr else None

    @property
    def cacc_difference(self) -> float | None:
        """Mean difference of the CACC to the other defense, in points."""
        return self.against.cacc.mean if self.against and self.against.cacc else None

    def by_seed(self, key: str) -> list[float | None]:
        """Return a number of every seed with scores, by seed."""
        return [getattr(row, key) for row in self.scored]


def line_columns() -> list[str]:
    """Return what lines may be sorted by."""
    return [
        *("data", "victim", "train_attack", "attack", "defense", "run", "seeds"),
        *("cacc", "change", "asr", "floor", "excess", "n", *by_key(), "seconds", "peak_memory"),
        *("asr_difference", "cacc_difference"),
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
        yield run, sorted(members, key=lambda row: row.seed)


def _line(run: str, members: Sequence[Row]) -> Line:
    first = members[0]
    scored = tuple(row for row in members if row.asr is not None or row.cacc is not None)
    cacc, cacc_sd = _mean_and_sd(row.cacc for row in scored)
    asr, asr_sd = _mean_and_sd(row.asr for row in scored)
    return Line(
        data=first.data,
        victim=first.victim,
        train_attack=first.train_attack,
        attack=first.attack,
        defense=first.defense,
        run=run,
        scored=scored,
        cacc=cacc,
        cacc_sd=cacc_sd,
        cacc_interval=_rate_interval(scored, "cacc"),
        change=None if first.undefended else _mean(row.change for row in scored),
        asr=asr,
        asr_sd=asr_sd,
        asr_interval=_rate_interval(scored, "asr"),
        floor=_mean(row.floor for row in members),
        excess=_mean(row.excess for row in scored),
        excess_interval=_excess_interval(scored),
        measures=_means(scored),
        seconds=None if first.undefended else _mean(row.seconds for row in scored),
        peak_memory=None if first.undefended else _mean(row.peak_memory or None for row in scored),
        errors=tuple((row.seed, row.error) for row in members if row.error is not None),
        benign=first.benign,
    )


def _means(rows: Sequence[Row]) -> dict[str, float]:
    means = {key: _mean(getattr(row, key) for row in rows) for key in by_key()}
    return {key: mean for key, mean in means.items() if mean is not None}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _mean_and_sd(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    return _mean(known), stdev(known) if len(known) > 1 else None


def _rate_interval(rows: Iterable[Row], key: Literal["cacc", "asr"]) -> Interval | None:
    return rate_interval(rate for row in rows if (rate := row.rate(key)))


def _excess_interval(rows: Iterable[Row]) -> Interval | None:
    """Return the interval of the excess: seed by seed, if every seed has a floor of its own.

    Where some floor is of other seeds, it is one number for several seeds, and what it leaves open
    does not show in how their excesses differ: it is added from the benign models' own spread.
    """
    known = [(asr, row) for row in rows if row.floors and (asr := row.rate("asr"))]
    if all(row.is_own_floor for _, row in known):
        return None
    borrowed = [row.floors for _, row in known if row.floor_from == "other seeds"]
    if not borrowed:
        return difference_interval((asr, *row.floors) for asr, row in known)
    excess = fmean(row.excess for _, row in known if row.excess is not None)
    return unpaired_interval([asr for asr, _ in known], max(borrowed, key=len), excess)
