"""The difference of each line to another defense of the same victim, paired by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from bdlit.errors import BdlitError, did_you_mean
from bdlit.evaluation.intervals import Interval, difference_interval
from bdlit.report.row import Row
from bdlit.types import Rate

if TYPE_CHECKING:
    from bdlit.report.lines import Line

_Model: TypeAlias = tuple[str, str, str, str]
_References: TypeAlias = Mapping[_Model, Mapping[int, Sequence[Row]]]


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference over seeds.

    Attributes:
        mean: First minus second, in points.
        interval: Its 95% interval.
    """

    mean: float
    interval: Interval

    @property
    def within_noise(self) -> bool:
        """Whether no difference at all is as good an explanation."""
        return self.interval.holds(0.0)


@dataclass(frozen=True, slots=True)
class Against:
    """A line held against another defense of the same data, victim and attack.

    Attributes:
        defense: The other defense.
        seeds: The seeds that both have, over which differences are taken.
        own: Seeds that only the line has; they are left out.
        other: Seeds that only the other defense has; they are left out.
        unclear: Seeds of which several runs have the other defense; they are left out.
        asr: Difference of the ASR; None without a seed that both have.
        cacc: Difference of the CACC; None without a seed that both have.
    """

    defense: str
    seeds: tuple[int, ...]
    own: tuple[int, ...]
    other: tuple[int, ...]
    unclear: tuple[int, ...]
    asr: Difference | None
    cacc: Difference | None


def hold_against(lines: Sequence[Line], rows: Iterable[Row], defense: str) -> list[Line]:
    """Add to every line its difference to one defense.

    Args:
        lines: Lines of the table.
        rows: Measurements, those of the other defense among them. A line takes those of its own
            run where there are some, and of another run where that leaves no choice.
        defense: The other defense; `none` is the undefended victim.

    Returns:
        The lines in their order. Those of the defense itself, and those whose victim it was not
        tried on, have nothing to be held against.

    Raises:
        BdlitError: No measurement has such a defense.
    """
    every = list(rows)
    names = {row.defense for row in every}
    if defense not in names:
        raise BdlitError(f"nothing to hold against '{defense}': {did_you_mean(defense, names)}")
    found: dict[_Model, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in every:
        if row.defense == defense and (row.asr is not None or row.cacc is not None):
            found[_model(row)][row.seed].append(row)
    return [
        line if line.defense == defense else replace(line, against=_against(line, found, defense))
        for line in lines
    ]


def _model(item: Row | Line) -> _Model:
    return item.data, item.victim, item.train_attack, item.attack


def _against(line: Line, found: _References, defense: str) -> Against | None:
    of_run = {
        seed: [row for row in rows if line.run in ("", row.run)]
        for seed, rows in found.get(_model(line), {}).items()
    }
    others = {seed: rows for seed, rows in of_run.items() if rows}
    if not others:
        return None
    own = {row.seed: row for row in line.scored}
    both = sorted(set(own) & set(others))
    matched = {seed: _partner(own[seed], others[seed]) for seed in both}
    pairs = [(own[seed], other) for seed, other in matched.items() if other is not None]
    return Against(
        defense=defense,
        seeds=tuple(seed for seed in both if matched[seed] is not None),
        own=tuple(sorted(set(own) - set(others))),
        other=tuple(sorted(set(others) - set(own))),
        unclear=tuple(seed for seed in both if matched[seed] is None),
        asr=_difference(pairs, "asr"),
        cacc=_difference(pairs, "cacc"),
    )


def _partner(row: Row, others: Sequence[Row]) -> Row | None:
    """Find what a seed is held against: in its own run, or the only one there is."""
    same = [other for other in others if other.run == row.run]
    chosen = same or others
    return chosen[0] if len(chosen) == 1 else None


def _difference(pairs: Sequence[tuple[Row, Row]], key: Literal["cacc", "asr"]) -> Difference | None:
    rates: list[tuple[Rate, Rate]] = [
        (one, other)
        for row, against in pairs
        if (one := row.rate(key)) and (other := against.rate(key))
    ]
    interval = difference_interval(rates)
    if interval is None:
        return None
    mean = sum(one.percent - other.percent for one, other in rates) / len(rates)
    return Difference(mean, interval)
