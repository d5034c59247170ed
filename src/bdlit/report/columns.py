"""The columns of the table, as the terminal and the page both write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bdlit.evaluation.intervals import Interval
from bdlit.evaluation.measure import Measure
from bdlit.evaluation.measures import MEASURES
from bdlit.report.against import Difference
from bdlit.report.lines import Line

MISSING = "-"

MARKS = {"seeds": "", "rows only": "*", "unpaired seeds": "~"}
"""What stands behind an interval, by what it takes into account."""


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        key: The attribute of `Line` that it is sorted by.
        header: What stands above it.
        text: What stands in it, for one line.
        numeric: Whether it is set flush right.
        spare: 0 if it is always shown; else the higher, the sooner a narrow terminal loses it.
        wide: Whether only the page has room for it.
    """

    key: str
    header: str
    text: Callable[[Line], str]
    numeric: bool = True
    spare: int = 0
    wide: bool = False


def columns_for(lines: Sequence[Line], *, wide: bool = False) -> list[Column]:
    """List the columns that tell these lines apart, then the numbers.

    Args:
        lines: The lines of the table.
        wide: Whether there is room for all of them.
    """
    columns = [
        *(name for name in _NAMES if name.key != "run" or any(line.run for line in lines)),
        *_NUMBERS,
        *(_DIFFERENCES if any(line.against for line in lines) else []),
        *(_BY_SEED if any(line.seeds > 1 for line in lines) else []),
        *map(_column, measured(lines)),
        *_SECONDS,
        *(_MEMORY if knows_memory(lines) else []),
    ]
    return [column for column in columns if wide or not column.wide]


def measured(lines: Sequence[Line]) -> list[Measure]:
    """Return the measures of the table that some line has, but for those that only warn."""
    shown = (m for m in MEASURES if m.warning is None)
    return [m for m in shown if any(getattr(line, m.key) is not None for line in lines)]


def knows_memory(lines: Sequence[Line]) -> bool:
    """Whether some line knows how much memory was used."""
    return any(line.peak_memory is not None for line in lines)


def _column(measure: Measure) -> Column:
    def text(line: Line) -> str:
        return _number(getattr(line, measure.key), measure.form)

    return Column(measure.key, measure.header, text, spare=2)


def _number(value: float | None, form: str = ".1f") -> str:
    return MISSING if value is None else format(value, form)


def _gigabytes(size: float | None) -> float | None:
    return None if size is None else size / 1e9


def _spread(mean: float | None, sd: float | None) -> str:
    return _number(mean) if sd is None else f"{_number(mean)} ±{sd:.1f}"


def _of_rate(interval: Interval | None) -> str:
    if interval is None:
        return MISSING
    return f"{interval.low:.1f}-{interval.high:.1f}{MARKS[interval.over]}"


def _of_difference(interval: Interval | None) -> str:
    if interval is None:
        return MISSING
    return f"{interval.low:+.1f} to {interval.high:+.1f}{MARKS[interval.over]}"


def _hits(line: Line) -> str:
    return MISSING if line.hits is None else f"{line.hits}/{line.n}"


def _values(line: Line, key: str) -> str:
    return " ".join(map(_number, line.by_seed(key))) or MISSING


def _differences(line: Line) -> dict[str, Difference]:
    """Return the differences of a line to another defense, by their headers."""
    found = {"ASR": line.against.asr, "CACC": line.against.cacc} if line.against else {}
    return {name: difference for name, difference in found.items() if difference is not None}


def _difference(line: Line, name: str) -> str:
    found = _differences(line).get(name)
    return _number(found.mean if found else None, "+.1f")


def _difference_interval(line: Line, name: str) -> str:
    found = _differences(line).get(name)
    return _of_difference(found.interval if found else None)


def _noise(line: Line) -> str:
    """Say which differences are within noise."""
    found = _differences(line)
    within = [name for name, difference in found.items() if difference.within_noise]
    if not found:
        return MISSING
    return "both" if len(within) > 1 else "".join(within) or "no"


_NAMES = (
    Column("data", "data", lambda line: line.data, numeric=False),
    Column("run", "run", lambda line: line.run, numeric=False),
    Column("victim", "victim", lambda line: line.victim, numeric=False),
    Column("attack", "attack", lambda line: line.attack, numeric=False),
    Column("defense", "defense", lambda line: line.defense, numeric=False),
)
_NUMBERS = (
    Column("seeds", "seeds", lambda line: str(line.seeds), spare=3),
    Column("cacc", "CACC", lambda line: _spread(line.cacc, line.cacc_sd)),
    Column("cacc", "95%", lambda line: _of_rate(line.cacc_interval), spare=6),
    Column("change", "change", lambda line: _number(line.change, "+.1f"), spare=4),
    Column("asr", "ASR", lambda line: _spread(line.asr, line.asr_sd)),
    Column("asr", "95%", lambda line: _of_rate(line.asr_interval), spare=2),
    Column("floor", "floor", lambda line: _number(line.floor), spare=1),
    Column("excess", "excess", lambda line: _number(line.excess, "+.1f")),
    Column("excess", "95%", lambda line: _of_difference(line.excess_interval), spare=5),
    Column("n", "hits", _hits, spare=7),
)
_DIFFERENCES = (
    Column("asr_difference", "ΔASR", lambda line: _difference(line, "ASR")),
    Column("asr_difference", "95%", lambda line: _difference_interval(line, "ASR"), spare=1),
    Column("cacc_difference", "ΔCACC", lambda line: _difference(line, "CACC")),
    Column("cacc_difference", "95%", lambda line: _difference_interval(line, "CACC"), spare=2),
    Column("asr_difference", "noise", _noise),
)
_BY_SEED = (
    Column("cacc", "CACC by seed", lambda line: _values(line, "cacc"), spare=11, wide=True),
    Column("asr", "ASR by seed", lambda line: _values(line, "asr"), spare=10),
)
_SECONDS = (Column("seconds", "sec", lambda line: _number(line.seconds), spare=8),)
_MEMORY = (
    Column("peak_memory", "GB", lambda line: _number(_gigabytes(line.peak_memory), ".2f"), spare=9),
)
