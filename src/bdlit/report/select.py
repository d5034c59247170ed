"""Which measurements are shown, and in what order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias, TypeVar

from bdlit.errors import BdlitError, did_you_mean
from bdlit.evaluation.result import UNDEFENDED
from bdlit.report.row import Row, row_columns

Attacks: TypeAlias = Literal["own", "all"]

DEFAULT_SORT = "data,victim,attack,defense"
"""Benign models before victims, and each undefended model before its defenses."""

_Item = TypeVar("_Item")


def select(rows: Sequence[Row], where: Iterable[str] = (), attacks: Attacks = "own") -> list[Row]:
    """Keep the rows that meet all conditions.

    Args:
        rows: Measurements.
        where: Conditions `column=value` or `column!=value`; values may hold the wildcards `*`,
            `?` and `[...]`, and their case does not matter.
        attacks: `own` keeps a victim's measurement against the attack it was trained with, and
            benign models against every attack; `all` keeps every measurement.

    Raises:
        BdlitError: A condition names no column, or no row meets the conditions.
    """
    kept = _own(rows) if attacks == "own" else list(rows)
    for condition in where:
        column, equal, value = _parse(condition)
        seen = {str(getattr(row, column)) for row in kept}
        kept = [row for row in kept if _matches(getattr(row, column), value) == equal]
        if not kept:
            raise BdlitError(f"no results with {condition}: {did_you_mean(value, seen)}")
    return kept


def sort_by(items: Iterable[_Item], sort: str, columns: Collection[str]) -> list[_Item]:
    """Order rows or lines by columns; what was not measured comes last.

    Args:
        items: Rows, or lines of the table.
        sort: Names of columns, the weightiest first, divided by commas; `-` before a name turns
            its order around.
        columns: Names to choose from.

    Raises:
        BdlitError: A name is no column.
    """
    ordered = list(items)
    for term in reversed(sort.split(",")):  # stable sorts, the weightiest last
        name = term.strip().removeprefix("-")
        if name not in columns:
            raise BdlitError(f"cannot sort by '{name}': {did_you_mean(name, columns)}")
        known = [item for item in ordered if getattr(item, name) is not None]
        unknown = [item for item in ordered if getattr(item, name) is None]
        known.sort(key=lambda item: _rank(item, name), reverse=term.strip().startswith("-"))
        ordered = known + unknown
    return ordered


def column_of(condition: str) -> str:
    """Return the column that a condition is about.

    Raises:
        BdlitError: It is no condition, or names no column.
    """
    return _parse(condition)[0]


def _own(rows: Sequence[Row]) -> list[Row]:
    """Keep each victim's own attack; all, where it was never measured against its own."""
    measured = defaultdict(set)
    for row in rows:
        measured[row.data, row.victim, row.train_attack].add(row.attack)
    return [
        row
        for row in rows
        if row.attack == row.train_attack
        or row.benign
        or row.train_attack not in measured[row.data, row.victim, row.train_attack]
    ]


def _parse(condition: str) -> tuple[str, bool, str]:
    column, equals, value = condition.partition("=")
    name = column.removesuffix("!").strip()
    if not equals:
        raise BdlitError(f"cannot filter by '{condition}': write column=value or column!=value")
    if name not in row_columns():
        raise BdlitError(f"cannot filter by '{name}': {did_you_mean(name, row_columns())}")
    return name, not column.endswith("!"), value.strip()


def _matches(cell: Any, value: str) -> bool:
    return fnmatchcase(str(cell).lower(), value.lower())


def _rank(item: Any, name: str) -> Any:
    value = getattr(item, name)
    match name:
        case "victim":
            return not item.benign, value
        case "defense":
            return value != UNDEFENDED, value
        case _:
            return value
