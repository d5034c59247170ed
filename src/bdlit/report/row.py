"""One measurement, flat, as scripts get it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from bdlit.evaluation.intervals import Interval, difference_interval, rate_interval
from bdlit.evaluation.measures import MEASURES, total
from bdlit.evaluation.result import UNDEFENDED, Result
from bdlit.types import Rate

BENIGN = "none"
"""The `train_attack` of a model that was trained on clean rows."""

RowKey: TypeAlias = tuple[str, str, str, str, int]

FloorFrom: TypeAlias = Literal["own seed", "other seeds"]
"""Whose ASR a floor is: a benign model's of the same seed, or only of others."""

# 95% intervals of one seed: they take into account nothing but its rows.
_ENDS = ("cacc_low", "cacc_high", "asr_low", "asr_high", "excess_low", "excess_high")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One model, measured against one attack: the columns of `--json` and `--csv`.

    The columns `cacc_low`, `cacc_high` and so on are the ends of 95% intervals over its rows only.

    Attributes:
        data: Name of the data set.
        attack: Name of the evaluation attack.
        victim: Name of the model.
        train_attack: Name of the attack in the model's training set; `none` for a benign model.
        defense: Name of the defense, or `none`.
        seed: Seed of the model's training.
        cacc: Clean accuracy in percent; None where it was not measured.
        asr: Attack success rate in percent.
        floor: ASR of a benign model on the same rows, in percent; the mean, of several.
        excess: ASR above the floor, in percentage points.
        cacc_n: Number of clean rows.
        cacc_hits: Number of clean rows predicted right.
        asr_n: Number of triggered non-target rows.
        asr_hits: Number of those that were predicted as the target.
        floor_n: Number of triggered rows that the floor was measured on; None where it is the
            mean of several models.
        floor_hits: Number of those that the benign model predicted as the target.
        floor_from: Whether the floor is of a benign model of the same seed; None without a floor.
        floors: What the floor is the mean of; no column.
        cacc_before: Clean accuracy of the undefended victim, in percent.
        asr_before: ASR of the undefended victim, in percent.
        seconds: Wall time of the defense.
        peak_memory: Peak resident memory while it ran, in bytes; 0 if it is not known.
        error: Why there are no numbers, where a defense failed.
        run: The folder that the measurement was read from.
        benign: Whether nobody attacked the model, at any stage.
        measures: Name of a measure of the table to its one number, and of its counts
            (`<key>_n`, `<key>_hits`); each is also an attribute, and a column.
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
    floor_from: FloorFrom | None = None
    floors: tuple[Rate, ...] = ()
    cacc_before: float | None = None
    asr_before: float | None = None
    seconds: float = 0.0
    peak_memory: int = 0
    error: str | None = None
    run: str = ""
    benign: bool = False
    measures: Mapping[str, float | None] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """Return a measure of the table, one of its counts, or an end of an interval."""
        if name in _ENDS:
            key, _, end = name.rpartition("_")
            return getattr(self.interval(key), end, None)
        if name not in measure_columns():
            raise AttributeError(f"'Row' object has no attribute {name!r}")
        return self.measures.get(name)

    def flat(self) -> dict[str, Any]:
        """Return all columns, as scripts get them."""
        return {name: getattr(self, name) for name in row_columns()}

    @property
    def cell(self) -> RowKey:
        """What was measured, wherever it was: data, attack, victim, defense and seed."""
        return self.data, self.attack, self.victim, self.defense, self.seed

    def rate(self, key: Literal["cacc", "asr"]) -> Rate | None:
        """Return CACC or ASR with its counts; None where it was measured on no rows."""
        hits, n = getattr(self, f"{key}_hits"), getattr(self, f"{key}_n")
        return Rate(hits, n) if hits is not None and n else None

    def interval(self, key: str) -> Interval | None:
        """Return the 95% interval of `cacc`, `asr` or `excess`: one seed, so over rows only."""
        if key != "excess":
            return rate_interval(filter(None, [self.rate("cacc" if key == "cacc" else "asr")]))
        asr = self.rate("asr")
        if asr is None or not self.floors or self.is_own_floor:
            return None
        return difference_interval([(asr, *self.floors)])

    @property
    def is_floor(self) -> bool:
        """Whether the model can be a floor: nobody attacked it, and nothing defends it."""
        return self.benign and self.undefended

    @property
    def is_own_floor(self) -> bool:
        """Whether the model is held against itself: its excess is 0 and leaves nothing open."""
        return self.is_floor and self.floors == (self.rate("asr"),)

    @property
    def undefended(self) -> bool:
        """Whether the model was measured as it was trained."""
        return self.defense == UNDEFENDED

    @property
    def change(self) -> float | None:
        """Clean accuracy against the undefended victim's, in percentage points."""
        return difference(self.cacc, self.cacc_before)


def measure_columns() -> list[str]:
    """Return the columns of the measures of the table, in its order."""
    found = []
    for measure in MEASURES:
        found.append(measure.key)
        if measure.counted:
            found += [f"{measure.key}_n", f"{measure.key}_hits"]
    return found


def row_columns() -> list[str]:
    """Return the names of all columns, in their order."""
    own = [f.name for f in fields(Row) if f.name not in ("measures", "floors")]
    at = own.index("cacc_before")
    return [*own[:at], *_ENDS, *measure_columns(), *own[at:]]


def row_of(result: Result, run: Path) -> Row:
    """Flatten a result that was read from the folder `run`.

    >>> result = Result(data="demo", attack="badnet", victim="v", defense="none", seed=0,
    ...                 asr=Rate(3, 4), floor=Rate(1, 4))
    >>> row = row_of(result, Path("runs"))
    >>> row.asr, row.asr_hits, row.asr_n, row.excess, row.cacc
    (75.0, 3, 4, 50.0, None)
    """
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
        floor_from="own seed" if result.floor and result.floor.n else None,
        floors=(result.floor,) if result.floor and result.floor.n else (),
        cacc_before=_percent(result.cacc_before),
        asr_before=_percent(result.asr_before),
        seconds=result.seconds,
        peak_memory=result.peak_memory,
        error=result.error,
        run=str(run),
        benign=result.train_attack == BENIGN if result.benign is None else result.benign,
        measures=_measures(result),
    )


def _measures(result: Result) -> dict[str, float | None]:
    """Return the one number of each measure of a result, and the counts of those that have some."""
    found: dict[str, float | None] = {}
    for measure in MEASURES:
        value = getattr(result, measure.key)
        number = measure.number(value) if value else None
        if number is not None:
            found[measure.key] = number
        if measure.counted and (rate := total(value)) is not None:
            found |= {f"{measure.key}_n": rate.n, f"{measure.key}_hits": rate.hits}
    return found


def difference(after: float | None, before: float | None) -> float | None:
    """Subtract, where both numbers are known.

    >>> difference(90.0, 88.5), difference(90.0, None)
    (1.5, None)
    """
    return None if after is None or before is None else after - before


def _percent(rate: Rate | None) -> float | None:
    """None rather than NaN for a rate over no rows: JSON knows no NaN."""
    return rate.percent if rate is not None and rate.n else None
