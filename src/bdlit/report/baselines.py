"""What a number is held against: the benign floor, and the victim before its defense."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from bdlit.report.row import Row, difference
from bdlit.types import Rate

_Scope: TypeAlias = Callable[[Row], Hashable]

# Where the floor of a row is looked for, nearest first. Runs differ in their data and settings,
# so a benign model of the same run tells more than one of another run.
_SCOPES: tuple[_Scope, ...] = (
    lambda row: (row.data, row.attack, row.seed, row.run),
    lambda row: (row.data, row.attack, row.seed),
    lambda row: (row.data, row.attack, row.run, "any seed"),
    lambda row: (row.data, row.attack),
)


def fill_baselines(rows: Sequence[Row]) -> list[Row]:
    """Give rows the floor and the scores before defense that their records lack.

    The floor is the ASR of the undefended benign models among `rows`, on the same data and
    attack: those of the same seed if there are any, else of all seeds with their counts pooled.
    A benign model is its own floor.
    """
    floors = _floors(rows)
    before = {_model(row): row for row in rows if row.undefended}
    return [_with_before(_with_floor(row, floors), before) for row in rows]


def _floors(rows: Iterable[Row]) -> dict[Hashable, Rate]:
    floors: dict[Hashable, Rate] = defaultdict(lambda: Rate(0, 0))
    for row in rows:
        if row.benign and row.undefended and row.asr_hits is not None and row.asr_n:
            for scope in _SCOPES:
                floors[scope(row)] += Rate(row.asr_hits, row.asr_n)
    return floors


def _with_floor(row: Row, floors: dict[Hashable, Rate]) -> Row:
    if row.floor is not None:
        return row
    for key in (scope(row) for scope in _SCOPES):
        if key in floors:
            rate = floors[key]
            return replace(
                row,
                floor=rate.percent,
                excess=difference(row.asr, rate.percent),
                floor_n=rate.n,
                floor_hits=rate.hits,
            )
    return row


def _with_before(row: Row, before: dict[Hashable, Row]) -> Row:
    victim = before.get(_model(row))
    if victim is None or row.undefended or row.cacc_before is not None:
        return row
    return replace(row, cacc_before=victim.cacc, asr_before=victim.asr)


def _model(row: Row) -> Hashable:
    return row.data, row.attack, row.victim, row.seed, row.run
