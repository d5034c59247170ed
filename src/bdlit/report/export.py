"""The rows as scripts get them: one measurement each, not summed up."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict

from bdlit.report.row import ROW_COLUMNS, Row


def to_json(rows: Iterable[Row]) -> str:
    """Write rows as a JSON array of objects, one object a line.

    >>> print(to_json([]))
    []
    """
    objects = [json.dumps(asdict(row), ensure_ascii=False, allow_nan=False) for row in rows]
    return "[" + ",\n ".join(objects) + "]"


def to_csv(rows: Iterable[Row]) -> str:
    """Write rows as CSV with a header; what was not measured is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ROW_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue().removesuffix("\n")
