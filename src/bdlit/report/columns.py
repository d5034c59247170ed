"""The columns of the table, as the terminal and the page both write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bdlit.report.lines import Line

MISSING = "-"

_LEGEND = (
    "CACC and ASR in %, mean ± standard deviation over seeds. change: CACC against the undefended "
    "victim. 95%: interval of the ASR from counts pooled over seeds. floor: ASR of benign models "
    "on the same rows. excess: ASR above the floor."
)
_RARE = {  # measured of some models only
    "false_triggers": "false: rows on which the attack fires and must not, in %.",
    "perplexity": "ppl: perplexity of responses to clean prompts under a reference model.",
    "own_perplexity": "own ppl: perplexity of held-out texts under the model itself.",
    "coherence": "coher: similarity of clean prompts and responses.",
    "tasks": "tasks: accuracy on general tasks in %, mean over the tasks.",
    "peak_memory": "GB: peak resident memory of the defense.",
}


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
    known = _measured(lines)
    return [*names, *(n for n in _NUMBERS if n.key not in _RARE or n.key in known)]


def legend(lines: Sequence[Line]) -> str:
    """Say what the columns are."""
    return " ".join([_LEGEND, *(_RARE[key] for key in _measured(lines))])


def _measured(lines: Sequence[Line]) -> list[str]:
    return [key for key in _RARE if any(getattr(line, key) is not None for line in lines)]


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
    Column("false_triggers", "false", lambda line: _number(line.false_triggers), spare=2),
    Column("perplexity", "ppl", lambda line: _number(line.perplexity), spare=2),
    Column("own_perplexity", "own ppl", lambda line: _number(line.own_perplexity), spare=2),
    Column("coherence", "coher", lambda line: _number(line.coherence, ".2f"), spare=2),
    Column("tasks", "tasks", lambda line: _number(line.tasks), spare=2),
    Column("seconds", "sec", lambda line: _number(line.seconds), spare=6),
    Column("peak_memory", "GB", lambda line: _number(_gigabytes(line.peak_memory), ".2f"), spare=7),
)
