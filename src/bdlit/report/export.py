"""What scripts get: the single measurements, or the lines of the table with their intervals."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bdlit.evaluation.intervals import Interval
from bdlit.evaluation.measures import by_key
from bdlit.formatting import finite
from bdlit.report.against import Difference
from bdlit.report.lines import Line
from bdlit.report.row import Row, row_columns

_BY_SEED = ("cacc", "asr", "floor", "excess")


def to_json(rows: Iterable[Row]) -> str:
    """Write rows as a JSON array of objects, one object a line; see `Row` for the keys.

    JSON has no infinity: the perplexity of a model that is broken is null.

    >>> print(to_json([]))
    []
    """
    return _json(row.flat() for row in rows)


def to_csv(rows: Iterable[Row]) -> str:
    """Write rows as CSV with a header; what was not measured is an empty cell."""
    return _csv(row_columns(), (row.flat() for row in rows))


def lines_to_json(lines: Iterable[Line]) -> str:
    """Write lines as a JSON array of objects, one object a line.

    Beside the means of the table there are `<number>_low`, `<number>_high` and `<number>_over` of
    each interval (`cacc`, `asr`, `excess`, `asr_difference`, `cacc_difference`), where `over` says
    what it takes into account; `asr_within_noise` and `cacc_within_noise`; and lists with an entry
    for each seed: `seed_numbers`, `cacc_by_seed`, `asr_by_seed`, `floor_by_seed`,
    `excess_by_seed`.
    """
    return _json(map(flat_line, lines))


def lines_to_csv(lines: Sequence[Line]) -> str:
    """Write lines as CSV with a header; lists are divided by blanks, what is missing is `-`."""
    objects = [{name: _cell(value) for name, value in flat_line(line).items()} for line in lines]
    return _csv(list(objects[0]) if objects else [], objects)


def flat_line(line: Line) -> dict[str, Any]:
    """Return all that the table shows of a line, and the values of its seeds, as plain data."""
    against = line.against
    return {
        **_names(line),
        "seeds": line.seeds,
        "seed_numbers": line.by_seed("seed"),
        **_rate(line, "cacc"),
        "change": line.change,
        **_rate(line, "asr"),
        "hits": line.hits,
        "n": line.n,
        "floor": line.floor,
        "excess": line.excess,
        **_ends("excess", line.excess_interval),
        **{f"{key}_by_seed": line.by_seed(key) for key in _BY_SEED},
        "against": against.defense if against else None,
        "common_seeds": list(against.seeds) if against else [],
        **_difference("asr", against.asr if against else None),
        **_difference("cacc", against.cacc if against else None),
        **{key: getattr(line, key) for key in by_key()},
        "seconds": line.seconds,
        "peak_memory": line.peak_memory,
        "errors": [f"seed {seed}: {error}" for seed, error in line.errors],
    }


def _names(line: Line) -> dict[str, Any]:
    names = ("data", "run", "victim", "train_attack", "benign", "attack", "defense")
    return {name: getattr(line, name) for name in names}


def _rate(line: Line, key: str) -> dict[str, Any]:
    mean, sd = getattr(line, key), getattr(line, f"{key}_sd")
    return {key: mean, f"{key}_sd": sd, **_ends(key, getattr(line, f"{key}_interval"))}


def _ends(key: str, interval: Interval | None) -> dict[str, Any]:
    return {f"{key}_{name}": getattr(interval, name, None) for name in ("low", "high", "over")}


def _difference(key: str, difference: Difference | None) -> dict[str, Any]:
    return {
        f"{key}_difference": difference.mean if difference else None,
        **_ends(f"{key}_difference", difference.interval if difference else None),
        f"{key}_within_noise": difference.within_noise if difference else None,
    }


def _cell(value: Any) -> Any:
    """Write a list in one cell of CSV."""
    if not isinstance(value, list):
        return value
    divider = " " if all(not isinstance(each, str) for each in value) else "; "
    return divider.join("-" if each is None else str(each) for each in value)


def _json(objects: Iterable[Mapping[str, Any]]) -> str:
    lines = (json.dumps(finite(dict(each)), ensure_ascii=False) for each in objects)
    return "[" + ",\n ".join(lines) + "]"


def _csv(columns: Sequence[str], objects: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(objects)
    return text.getvalue().removesuffix("\n")
