"""What is said below a table: what its columns are, what its intervals leave out, what failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from bdlit.evaluation.intervals import Interval
from bdlit.evaluation.measures import MEASURES
from bdlit.report.columns import MARKS, knows_memory, measured
from bdlit.report.lines import Line

_LEGEND = (
    "CACC and ASR in %, mean ± standard deviation over seeds, each seed alike. 95%: of what stands "
    "before it, a t interval over the seeds, on these test rows. change: CACC against the "
    "undefended victim. floor: ASR of benign models on the same rows. excess: ASR above the floor "
    "of the same seed. hits: of all seeds together."
)
_DIFFERENCES = (
    "ΔASR, ΔCACC: difference to {}, seed by seed. noise: which of the two is within noise, its "
    "interval holding 0."
)
_MEMORY = "GB: peak resident memory of the defense."

_ROWS_ONLY = (
    "rows only: no t interval is possible from one seed, nor from seeds that all agree, so other "
    "trainings are not covered. Wilson's of the counts; of differences Newcombe's, which does not "
    "pair rows, since records keep counts only."
)
_UNPAIRED = (
    "seeds not paired: some seed has no benign model of its own, and the floor is the mean of the "
    "others'. What benign trainings leave open is added to what the victim's do; a floor of one "
    "seed adds its rows only."
)
_MOST = 3  # lines that a sentence names; the table has the others


def legend(lines: Sequence[Line]) -> str:
    """Say what the columns are."""
    against = dict.fromkeys(line.against.defense for line in lines if line.against)
    differences = [_DIFFERENCES.format(", ".join(against))] if against else []
    memory = [_MEMORY] if knows_memory(lines) else []
    return " ".join([_LEGEND, *differences, *(m.legend for m in measured(lines)), *memory])


def notes(lines: Sequence[Line]) -> list[str]:
    """Say what is special about the numbers of these lines, a line of text each."""
    over = {interval.over for line in lines for interval in _intervals(line)}
    marked = [
        f"{MARKS['rows only']} {_ROWS_ONLY}" if "rows only" in over else "",
        f"{MARKS['unpaired seeds']} {_UNPAIRED}" if "unpaired seeds" in over else "",
        _unequal_rows(lines),
    ]
    return [*filter(None, marked), *_left_out(lines), *_warnings(lines)]


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


def _intervals(line: Line) -> Iterator[Interval]:
    yield from filter(None, [line.cacc_interval, line.asr_interval, line.excess_interval])
    if line.against:
        yield from (d.interval for d in (line.against.asr, line.against.cacc) if d)


def _unequal_rows(lines: Iterable[Line]) -> str:
    """Warn of lines whose seeds were measured on different numbers of rows."""
    found = [text for line in lines for key in ("cacc", "asr") if (text := _unequal(line, key))]
    if not found:
        return ""
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return (
        "seeds were measured on different numbers of rows, yet each counts alike: "
        f"{'; '.join(found[:_MOST])}{more}"
    )


def _unequal(line: Line, key: Literal["cacc", "asr"]) -> str:
    numbers = sorted({rate.n for row in line.scored if (rate := row.rate(key))})
    if len(numbers) < 2:
        return ""
    return f"{key.upper()} of {_place(line)}, {line.defense} ({numbers[0]} to {numbers[-1]} rows)"


def _warnings(lines: Iterable[Line]) -> list[str]:
    """Tell of models that something is wrong with, whatever the attack."""
    found = {
        f"{line.victim}, {line.defense} ({line.data}): {measure.warning.format(value)}": None
        for measure in MEASURES
        if measure.warning
        for line in lines
        if (value := getattr(line, measure.key)) is not None
    }
    return [f"warning: {text}" for text in found]


def _left_out(lines: Iterable[Line]) -> list[str]:
    """Name the seeds that a difference leaves out, with the reason."""
    found: dict[tuple[str, tuple[int, ...], str], list[str]] = defaultdict(list)
    for line in lines:
        if (against := line.against) is None:
            continue
        place, other = _place(line), against.defense
        found[place, against.own, f"which {other} lacks"].append(line.defense)
        found[place, against.other, f"which {line.defense} lacks"].append(other)
        found[place, against.unclear, f"of which several runs have {other}"].append(line.defense)
    return [
        f"left out of differences: {'seeds' if len(seeds) > 1 else 'seed'} "
        f"{', '.join(map(str, seeds))} of {', '.join(having)} on {place}, {why}"
        for (place, seeds, why), having in found.items()
        if seeds
    ]


def _place(line: Line) -> str:
    attack = "" if line.attack == line.train_attack else f" against {line.attack}"
    return f"{line.victim}{attack} ({', '.join(filter(None, [line.data, line.run]))})"
