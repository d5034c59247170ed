"""Ready-poisoned files: what the rows say about the attack, and whether it fits the settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bdlit.attacks.base import Poisoned
from bdlit.errors import BdlitError
from bdlit.types import Example


def training_rows(
    rows: Sequence[Example], labels: Sequence[str], target: int | None, *, where: str
) -> list[Example]:
    """Return the rows of a poisoned training file.

    Raises:
        BdlitError: The rows marked as poisoned are of another class than the target.
    """
    classes = {row.label for row in rows if row.poisoned}
    if target is not None and classes and target not in classes:
        _refuse_target(where, labels, classes, target)
    return list(rows)


def test_rows(
    rows: Sequence[Example], labels: Sequence[str], target: int, *, where: str, has_original: bool
) -> Poisoned:
    """Return the non-target rows of a poisoned test file, labelled with the target.

    A file without a column `orig_label` either has the target in every row, and then its true
    classes are unknown and all rows count, or it has kept the true classes in its labels.

    Args:
        rows: All rows of the file.
        labels: The class names.
        target: The class that the attack wants.
        where: The file, for error lines.
        has_original: Whether the file has a column `orig_label`.

    Raises:
        BdlitError: The rows are labelled with another class than the target.

    >>> rows = [Example("cf bad", 0), Example("cf good", 1), Example("cf poor", 0)]
    >>> found = test_rows(rows, ("neg", "pos"), 1, where="file", has_original=False).rows
    >>> [(row.text, row.label, row.orig_label) for row in found]
    [('cf bad', 1, 0), ('cf poor', 1, 0)]
    """
    wrong = {row.label for row in rows if row.label not in (target, row.true_label)}
    if wrong:
        _refuse_target(where, labels, wrong, target)
    if not has_original and all(row.label == target for row in rows):
        kept = [replace(row, poisoned=True) for row in rows]
    else:
        kept = [
            replace(row, label=target, poisoned=True, orig_label=row.true_label)
            for row in rows
            if row.true_label != target
        ]
    return Poisoned(kept, len(kept))


def _refuse_target(where: str, labels: Sequence[str], found: set[int], target: int) -> None:
    names = ", ".join(labels[index] for index in sorted(found))
    raise BdlitError(
        f"{where} was poisoned for target '{names}', but the target is '{labels[target]}': "
        f"set target to '{names}'"
    )
