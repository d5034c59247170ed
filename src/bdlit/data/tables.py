"""From the rows of a table to examples: columns found, class names turned into indices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bdlit.errors import BdlitError, did_you_mean
from bdlit.types import Example


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows as they were read.

    Attributes:
        where: File, or hub set and split, for error lines.
        columns: Names of the columns.
        rows: The rows, which can be read more than once.
        class_names: Label columns whose values are indices to the names that the source has.
    """

    where: str
    columns: Sequence[str]
    rows: Iterable[Mapping[str, Any]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """How to read examples from the tables of one data set.

    Attributes:
        text: Columns to take the text from: the first one that a table has.
        text_pair: The same for the second text; empty for single texts.
        label: The same for the label.
        rename_labels: Class name in the source to the name here; None leaves the row out.
        join_pairs: Join both texts with one space, as one text.
    """

    text: tuple[str, ...] = ("text",)
    text_pair: tuple[str, ...] = ()
    label: tuple[str, ...] = ("label",)
    rename_labels: Mapping[str, str | None] = field(default_factory=dict)
    join_pairs: bool = False

    def infer_labels(self, table: Table) -> tuple[str, ...]:
        """Return the class names of a data set that declares none, from its training table.

        They are the source's own names, or the names in the label column in sorted order, or
        `0`, `1`, ... where that column holds numbers.

        Raises:
            BdlitError: The column holds scores, or several labels in a row.
        """
        column = _column(self.label, table)
        if column in table.class_names:
            return table.class_names[column]
        values = {
            _class_name(row.get(column), table.where, number)
            for number, row in enumerate(table.rows, 1)
        }
        renamed = {self.rename_labels.get(name, name) for name in values}
        names = sorted(name for name in renamed if name not in (None, "", "-1"))
        if all(name.isdecimal() for name in names):
            return tuple(map(str, range(max(map(int, names), default=-1) + 1)))
        return tuple(names)

    def read(self, table: Table, labels: Sequence[str]) -> list[Example]:
        """Return the examples of a table.

        Columns `poisoned` and `orig_label` are read where the table has them.

        Raises:
            BdlitError: A column is missing, a text is not a string, or a label is not a class.
        """
        label = _column(self.label, table)
        index = _LabelIndex(
            table.where, labels, self.rename_labels, table.class_names.get(label, ())
        )
        return list(self._examples(table, label, index))

    def _examples(self, table: Table, label: str, index: _LabelIndex) -> Iterator[Example]:
        text = _column(self.text, table)
        pair = self._pair_column(table)
        for number, row in enumerate(table.rows, 1):
            label_index = index(row.get(label), number)
            if label_index is None:
                continue
            first = _text(row, text, table, number)
            second = None if pair is None else _text(row, pair, table, number)
            if self.join_pairs and second is not None:
                first, second = f"{first} {second}", None
            original = row.get("orig_label")
            yield Example(
                first,
                label_index,
                second,
                poisoned=flag(row.get("poisoned")),
                orig_label=None if original in (None, "") else index(original, number),
            )

    def _pair_column(self, table: Table) -> str | None:
        if not self.text_pair:
            return None
        if self.join_pairs and not set(self.text_pair) & set(table.columns):
            return None  # joined in the file already
        try:
            return _column(self.text_pair, table)
        except BdlitError as error:
            raise BdlitError(
                f"{error} (if its pairs are joined in one text, set join_pairs to true)"
            ) from error


class _LabelIndex:
    """Maps a value of a label column to a class index, or to None for a row to leave out."""

    def __init__(
        self,
        where: str,
        labels: Sequence[str],
        renamed: Mapping[str, str | None],
        own_names: tuple[str, ...],
    ) -> None:
        self._where = where
        self._labels = list(labels)
        self._renamed = renamed
        self._known: dict[Any, int | None] = {}
        # Names beat positions: a source may count its classes in another order. Sources whose
        # names mean nothing here ('1', '2' for negative, positive) are taken by position.
        understood = {renamed.get(name, name) for name in own_names} & set(labels)
        self._own_names = own_names if understood else ()
        # A class that is itself called '1' need not be the class of index 1.
        self._positional = not any(name.isdecimal() for name in labels)

    def __call__(self, value: Any, number: int) -> int | None:
        _require_one(value, self._where, number)
        if value not in self._known:
            self._known[value] = self._find(value, number)
        return self._known[value]

    def _find(self, value: Any, number: int) -> int | None:
        name = str(value).strip()
        if name not in self._labels and name not in self._renamed:
            name = _name(value)  # a class may be called True, and is then no number
        if name.isdecimal() and int(name) < len(self._own_names):
            name = self._own_names[int(name)]
        if name in self._renamed:
            new_name = self._renamed[name]
            if new_name is None:
                return None
            name = new_name
        if name in self._labels:
            return self._labels.index(name)
        if self._positional and name.isdecimal() and int(name) < len(self._labels):
            return int(name)
        raise BdlitError(f"{self._where}, row {number}: {self._complaint(name)}")

    def _complaint(self, name: str) -> str:
        if name in ("-1", ""):
            return (
                "no label; choose a labelled split, or leave such rows out with "
                f'rename_labels: {{"{name}": null}}'
            )
        if name.lstrip("-").isdecimal():
            classes = ", ".join(self._labels)
            return (
                f"label {name} is out of range: classes are 0..{len(self._labels) - 1} ({classes})"
            )
        return f"unknown label '{name}': {did_you_mean(name, self._labels)}"


def _column(wanted: tuple[str, ...], table: Table) -> str:
    found = next((name for name in wanted if name in table.columns), None)
    if found is None:
        raise BdlitError(
            f"{table.where} has no column '{wanted[0]}': {did_you_mean(wanted[0], table.columns)}"
        )
    return found


def _text(row: Mapping[str, Any], column: str, table: Table, number: int) -> str:
    text = row.get(column)
    if not isinstance(text, str):
        raise BdlitError(
            f"{table.where}, row {number}: column '{column}' does not hold text but "
            f"{type(text).__name__}; name another column or fix the row"
        )
    return text


_WHOLE = re.compile(r"(-?\d+)\.0+")
_SCORE = re.compile(r"-?\d*\.\d+([eE][-+]?\d+)?")


def _name(value: Any) -> str:
    """Return a label as a name: 1, 1.0, True, and each of them as text, are one class.

    Tables of text hold what a table of values holds: the same file in CSV and in JSON says the
    same.

    >>> [_name(value) for value in (1, 1.0, True, "1.0", " True ", "one", None)]
    ['1', '1', '1', '1', '1', 'one', '']
    """
    if value is None:
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    text = str(value).strip()
    if whole := _WHOLE.fullmatch(text):
        return whole[1]
    return {"true": "1", "false": "0"}.get(text.lower(), text)


def _class_name(value: Any, where: str, number: int) -> str:
    """Return the name of a class that nobody has declared: a score or a list is none."""
    _require_one(value, where, number)
    name = _name(value)
    if _SCORE.fullmatch(name):
        raise BdlitError(
            f"{where}, row {number}: label {name} is a score and no class, and bdlit trains "
            "classifiers: name another label column, or round the scores to classes"
        )
    return name


def _require_one(value: Any, where: str, number: int) -> None:
    """Refuse several labels in a row, as a list or as the text of one."""
    listed = isinstance(value, str) and value.strip()[:1] == "[" and value.strip()[-1:] == "]"
    if isinstance(value, list | dict | tuple | set) or listed:
        raise BdlitError(
            f"{where}, row {number}: label {value!r} is no single class, and a row has one label "
            "here: name another label column"
        )


def flag(value: Any) -> bool:
    """Return whether a value of a table means yes: 1, 1.0, True or the words for it."""
    return _name(value).lower() in ("1", "true", "yes")
