"""Tables as lists of rows: JSON Lines, JSON, CSV, TSV and Parquet in, JSON Lines out."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from bdlit.atomic import whole_file
from bdlit.errors import BdlitError, did_you_mean
from bdlit.types import Example

TableRow: TypeAlias = dict[str, Any]

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""File types that `read_rows` knows; all but Parquet may be gzipped (`.jsonl.gz`)."""

_LONGEST = 2**31 - 1  # characters of one value, the most that every platform takes
_SLICE = re.compile(r"\[(-?\d*):(-?\d*)\]$")


def sliced(name: str) -> tuple[str, slice]:
    """Return the name of a file without the slice behind it, and the slice: of all rows, if none.

    Local files are cut as the splits of the hub are.

    >>> sliced("stories.jsonl.gz[:800]"), sliced("stories.jsonl.gz")
    (('stories.jsonl.gz', slice(None, 800, None)), ('stories.jsonl.gz', slice(None, None, None)))
    """
    found = _SLICE.search(name)
    if found is None:
        return name, slice(None)
    start, end = (int(number) if number else None for number in found.groups())
    return name[: found.start()], slice(start, end)


def read_sliced(name: str, *, quoting: bool | None = None) -> list[TableRow]:
    """Read a table, or the slice of it that stands behind its name; see `sliced`.

    Args:
        name: The file, with a slice or without.
        quoting: See `read_rows`.

    Raises:
        BdlitError: The file cannot be read, or there are no rows in the slice.
    """
    path, part = sliced(name)
    rows = read_rows(path, quoting=quoting)
    if not rows[part]:
        raise BdlitError(f"{name} is not a slice with rows: {path} has {len(rows)} of them")
    return rows[part]


def read_rows(path: str | Path, *, quoting: bool | None = None) -> list[TableRow]:
    r"""Read a whole table; the file type follows from the suffix.

    `.json` holds an array of objects, or JSON Lines under the wrong name, which is common.
    Values of CSV and TSV files stay strings; what reads a label or a flag takes `1.0` and `True`
    for what they are in JSON. Unquoted values lose the blanks around them, since
    several published files separate columns by blank, tab, blank.

    Args:
        path: File to read.
        quoting: Whether `"` encloses values of a CSV or TSV file. By default it does in CSV,
            where values may then hold line breaks, and is an ordinary character in TSV.

    Raises:
        BdlitError: The file is missing, empty, of an unknown type, or has a bad line.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "reviews.tsv"
    >>> _ = path.write_text('text\tlabel\nso "bad" \t0\n')
    >>> read_rows(path)
    [{'text': 'so "bad"', 'label': '0'}]
    """
    path = Path(path)
    try:
        rows = list(_parse(path, quoting))
    except OSError as error:
        reason = error.strerror or error
        raise BdlitError(f"cannot read {path}: {reason}; check the path") from error
    except (EOFError, zlib.error) as error:
        raise BdlitError(f"cannot read {path}: the gzip file is cut off or damaged") from error
    except UnicodeDecodeError as error:
        raise BdlitError(f"cannot read {path}: not UTF-8; convert the file first") from error
    if not rows:
        raise BdlitError(f"{path} has no rows: give a file with at least one")
    return rows


def column(rows: Sequence[Mapping[str, Any]], name: str, path: str | Path) -> list[Any]:
    """Return the values of one column of a table; None where a row has none.

    Args:
        rows: One row or more.
        name: The column.
        path: Where the rows come from, for the error.

    Raises:
        BdlitError: The first row has no such column.

    >>> column([{"text": "so bad"}, {}], "text", "reviews.json")
    ['so bad', None]
    """
    if name not in rows[0]:
        raise BdlitError(f"{path} has no column '{name}': {did_you_mean(name, rows[0])}")
    return [row.get(name) for row in rows]


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON Lines, gzipped if `path` ends in `.gz`; the file appears whole or not at all.

    The same rows give the same bytes: a gzip header holds neither a time nor a name.

    Raises:
        BdlitError: The file cannot be written.
    """
    with whole_file(path) as part:
        dump_jsonl(part, rows)


def rows_hash(rows: Iterable[Example]) -> str:
    """Return a hash of the texts, labels and responses of rows, in their order.

    >>> rows = [Example("so bad", 0)]
    >>> rows_hash(rows) == rows_hash([Example("so bad", 0, poisoned=True)])
    True
    """
    digest = hashlib.sha256()
    for row in rows:
        content: list[Any] = [row.text, row.text_pair, row.label]
        if row.response is not None or row.history:  # a row without has the hash it always had
            content += [row.response, [[turn.role, turn.text] for turn in row.history]]
        digest.update(json.dumps(content).encode())
    return digest.hexdigest()


def dump_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON Lines to `path` itself, gzipped by suffix, and flush them to the disk."""
    # Half a surrogate pair, as cut tweets hold, is not UTF-8; its replacement is JSON's own escape.
    lines = (
        (json.dumps(row, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
        for row in rows
    )
    with open(path, "wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as pack:
                pack.writelines(lines)
        else:
            file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def _parse(path: Path, quoting: bool | None) -> Iterator[TableRow]:
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    if kind not in SUFFIXES:
        raise BdlitError(
            f"cannot read {path}: unknown file type '{kind}'; choose from: {', '.join(SUFFIXES)}"
        )
    if kind == ".parquet":
        yield from _parquet(path)
        return
    with _opened(path) as file:
        match kind:
            case ".jsonl":
                yield from _json_lines(path, file)
            case ".json":
                yield from _json(path, file)
            case _:
                delimiter = "," if kind == ".csv" else "\t"
                quoted = kind == ".csv" if quoting is None else quoting
                yield from _separated(path, file, delimiter, quoted)


def _opened(path: Path) -> TextIO:
    # Line ends stay as they are: text may hold a lone carriage return, and CSV has its own rules.
    # `utf-8-sig` drops the mark that spreadsheets put in front.
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="\n")
    return open(path, encoding="utf-8-sig", newline="\n")


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[TableRow]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BdlitError(f"{path}, line {number} is not JSON: {error}") from error
        yield _object(row, path, f"line {number}")


def _json(path: Path, file: TextIO) -> Iterator[TableRow]:
    text = file.read()
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not text.lstrip().startswith("["):
            yield from _json_lines(path, text.split("\n"))
            return
        raise BdlitError(f"{path} is not JSON: {error}") from error
    if isinstance(rows, dict):
        _require_row(rows, path)
        rows = [rows]
    elif not isinstance(rows, list):
        raise BdlitError(
            f"{path} holds {type(rows).__name__}, and no rows: give an array of objects"
        )
    for number, row in enumerate(rows, 1):
        yield _object(row, path, f"item {number}")


def _require_row(only: TableRow, path: Path) -> None:
    """Refuse one object that is no row but a table of columns, or holds the rows under a name."""
    inner = next((k for k, v in only.items() if isinstance(v, list) and v), None)
    if inner is not None and all(isinstance(row, dict) for row in only[inner]) and len(only) == 1:
        raise BdlitError(f"{path} is one object, whose rows are under '{inner}': save that list")
    if only and all(isinstance(value, list | dict) for value in only.values()):
        raise BdlitError(
            f"{path} is one object of columns: save one object for each row (in pandas, "
            "to_json(..., orient='records'))"
        )


def _object(row: Any, path: Path, where: str) -> TableRow:
    if not isinstance(row, dict):
        raise BdlitError(
            f'{path}, {where} is not a JSON object: a row looks like {{"text": ..., "label": ...}}'
        )
    return row


def _separated(path: Path, file: TextIO, delimiter: str, quoted: bool) -> Iterator[TableRow]:
    header: list[str] | None = None
    for number, values in _lines_of_values(path, file, delimiter, quoted):
        if header is None:
            header = [name.strip() for name in values]
            _require_single(header, path)
        elif len(values) != len(header):
            raise BdlitError(
                f"{path}, line {number} has {len(values)} columns, but the header has "
                f"{len(header)}: fix the line, or see whether quoting should be "
                f"{'off' if quoted else 'on'}"
            )
        else:
            yield dict(zip(header, values, strict=True))


def _require_single(header: list[str], path: Path) -> None:
    """Refuse two columns of one name, of which the second would take the first one's place."""
    double = next((name for i, name in enumerate(header) if name and name in header[:i]), None)
    if double is not None:
        raise BdlitError(f"{path} has two columns called '{double}': rename or drop one of them")


def _lines_of_values(
    path: Path, file: TextIO, delimiter: str, quoted: bool
) -> Iterator[tuple[int, list[str]]]:
    """Yield the values of each row that is not blank, with the number of its last line."""
    if not quoted:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, [value.strip(" \r\n") for value in line.split(delimiter)]
        return
    # Strict: otherwise a quote that is never closed swallows the rest of the file as one value.
    csv.field_size_limit(_LONGEST)  # of the whole process; its default is 128 kB
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        for values in reader:
            if values:
                yield reader.line_num, values
    except csv.Error as error:
        raise BdlitError(f"{path}, line {reader.line_num} is not a valid table: {error}") from error


def _parquet(path: Path) -> Iterator[TableRow]:
    from pyarrow import ArrowException  # a heavy import that no other file type needs
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except ArrowException as error:
        line = str(error).splitlines()[0]
        raise BdlitError(f"cannot read {path}: no valid Parquet file ({line})") from error
