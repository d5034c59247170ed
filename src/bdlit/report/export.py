"""The rows as scripts get them: one measurement each, not summed up."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable

from bdlit.report.row import Row, row_columns


def to_json(rows: Iterable[Row]) -> str:
    """Write rows as a JSON array of objects, one object a line.

    >>> print(to_json([]))
    []
    """
    objects = [json.dumps(row.flat(), ensure_ascii=False, allow_nan=False) for row in rows]
    return "[" + ",\n ".join(objects) + "]"


def to_csv(rows: Iterable[Row]) -> str:
    """Write rows as CSV with a header; what was not measured is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, row_columns(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.flat() for row in rows)
    return text.getvalue().removesuffix("\n")
