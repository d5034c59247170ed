"""The columns of the table, as the terminal and the page both write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bdlit.evaluation.measure import Measure
from bdlit.evaluation.measures import MEASURES
from bdlit.report.lines import Line

MISSING = "-"

_LEGEND = (
    "CACC and ASR in %, mean ± standard deviation over seeds. change: CACC against the undefended "
    "victim. 95%: interval of the ASR from counts pooled over seeds. floor: ASR of benign models "
    "on the same rows. excess: ASR above the floor."
)
_MEMORY = "GB: peak resident memory of the defense."


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        key: The attribute of `Line` that it is sorted by.
        header: What stands above it.
        text: What stands in it, for one line.
        numeric: Whether it is set flush right.
        spare: 0 if it is always shown; else the higher, the sooner a narrow terminal loses it.
    """

    key: str
    header: str
    text: Callable[[Line], str]
    numeric: bool = True
    spare: int = 0


def columns_for(lines: Sequence[Line]) -> list[Column]:
    """List the columns that tell these lines apart, then the numbers."""
    names = [name for name in _NAMES if name.key != "run" or any(line.run for line in lines)]
    measures = [_column(measure) for measure in _measured(lines)]
    memory = _MEMORY_COLUMN if _knows_memory(lines) else []
    return [*names, *_NUMBERS, *measures, *_SECONDS, *memory]


def legend(lines: Sequence[Line]) -> str:
    """Say what the columns are."""
    memory = [_MEMORY] if _knows_memory(lines) else []
    return " ".join([_LEGEND, *(measure.legend for measure in _measured(lines)), *memory])


def _measured(lines: Sequence[Line]) -> list[Measure]:
    """Return the measures of the table that some line has."""
    return [m for m in MEASURES if any(getattr(line, m.key) is not None for line in lines)]


def _knows_memory(lines: Sequence[Line]) -> bool:
    return any(line.peak_memory is not None for line in lines)


def _column(measure: Measure) -> Column:
    def text(line: Line) -> str:
        return _number(getattr(line, measure.key), measure.form)

    return Column(measure.key, measure.header, text, spare=2)


def failures(lines: Sequence[Line]) -> list[str]:
    """Tell why measurements are missing, a line of text each.

    >>> from bdlit.report import Row, aggregate
    >>> failures(aggregate([Row(data="demo", attack="badnet", victim="v", train_attack="badnet",
    ...                         defense="TIES", seed=1, error="others have other shapes")]))
    ['TIES failed on v (demo, seed 1): others have other shapes']
    """
    found = {
        f"{line.defense} failed on {line.victim} ({line.data}, seed {seed}): {error}": None
        for line in lines
        for seed, error in line.errors
    }
    return list(found)


def _number(value: float | None, form: str = ".1f") -> str:
    return MISSING if value is None else format(value, form)


def _gigabytes(size: float | None) -> float | None:
    return None if size is None else size / 1e9


def _spread(mean: float | None, sd: float | None) -> str:
    return _number(mean) if sd is None else f"{_number(mean)} ±{sd:.1f}"


def _interval(line: Line) -> str:
    return "{:.0f}-{:.0f}".format(*line.interval) if line.interval else MISSING


def _hits(line: Line) -> str:
    return f"{line.counts.hits}/{line.counts.n}" if line.counts else MISSING


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
    Column("change", "change", lambda line: _number(line.change, "+.1f"), spare=2),
    Column("asr", "ASR", lambda line: _spread(line.asr, line.asr_sd)),
    Column("asr", "95%", _interval, spare=4),
    Column("floor", "floor", lambda line: _number(line.floor), spare=1),
    Column("excess", "excess", lambda line: _number(line.excess, "+.1f")),
    Column("n", "hits", _hits, spare=5),
)
_SECONDS = [
    Column("seconds", "sec", lambda line: _number(line.seconds), spare=6),
]
_MEMORY_COLUMN = [
    Column("peak_memory", "GB", lambda line: _number(_gigabytes(line.peak_memory), ".2f"), spare=7),
]
