"""What a number is held against: the benign floor, and the victim before its defense."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TypeAlias

from bdlit.report.row import FloorFrom, Row, difference
from bdlit.types import Rate

_Scope: TypeAlias = Callable[[Row], Hashable]

# Where the floor of a row is looked for, nearest first. Runs differ in their data and settings,
# so a benign model of the same run tells more than one of another run.
_SCOPES: tuple[tuple[FloorFrom, _Scope], ...] = (
    ("own seed", lambda row: (row.data, row.attack, row.seed, row.run)),
    ("own seed", lambda row: (row.data, row.attack, row.seed)),
    ("other seeds", lambda row: (row.data, row.attack, row.run, "any seed")),
    ("other seeds", lambda row: (row.data, row.attack)),
)


def fill_baselines(rows: Sequence[Row]) -> list[Row]:
    """Give rows the floor and the scores before defense that their records lack.

    The floor is the ASR of the undefended benign models among `rows`, on the same data and
    attack: of the same seed if there are any, else of all other seeds; of several it is the mean
    of their percentages, and has no counts. A benign model is its own floor.
    """
    floors = _floors(rows)
    before = {_model(row): row for row in rows if row.undefended}
    return [_with_before(_with_floor(row, floors), before) for row in rows]


def _floors(rows: Iterable[Row]) -> dict[Hashable, list[Rate]]:
    floors: dict[Hashable, list[Rate]] = defaultdict(list)
    for row in rows:
        asr = row.rate("asr")
        if row.is_floor and asr is not None:
            for _, scope in _SCOPES:
                floors[scope(row)].append(asr)
    return floors


def _with_floor(row: Row, floors: dict[Hashable, list[Rate]]) -> Row:
    if row.floor is not None:
        return row
    for whose, rates in ((whose, floors.get(scope(row))) for whose, scope in _SCOPES):
        if rates:
            floor = fmean(rate.percent for rate in rates)
            return replace(
                row,
                floor=floor,
                excess=difference(row.asr, floor),
                floor_n=rates[0].n if len(rates) == 1 else None,
                floor_hits=rates[0].hits if len(rates) == 1 else None,
                floor_from=whose,
                floors=tuple(rates),
            )
    return row


def _with_before(row: Row, before: dict[Hashable, Row]) -> Row:
    victim = before.get(_model(row))
    if victim is None or row.undefended or row.cacc_before is not None:
        return row
    return replace(row, cacc_before=victim.cacc, asr_before=victim.asr)


def _model(row: Row) -> Hashable:
    return row.data, row.attack, row.victim, row.seed, row.run
