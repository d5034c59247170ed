"""Limits on the rows of a split, where using all of them would take too long."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from bdlit.data.files import STEMS
from bdlit.errors import BdlitError, did_you_mean
from bdlit.types import Example


def require_limits(limits: Mapping[str, int]) -> None:
    """Refuse limits of unknown splits, and those that leave nothing.

    Args:
        limits: Split to the number of its rows that are used.

    Raises:
        BdlitError: A name is not a split, or a number is below 1.
    """
    for split, most in limits.items():
        if split not in STEMS:
            raise BdlitError(f"limits names no split '{split}': {did_you_mean(split, STEMS)}")
        if most < 1:
            raise BdlitError(f"limits.{split} {most} is out of range: give at least 1")


def limited(rows: Sequence[Example], split: str, limits: Mapping[str, int]) -> list[Example]:
    """Return as many rows of a split as its limit allows, drawn by chance, in their order.

    The same rows are drawn every time, so that runs with other seeds are measured on the same.

    >>> limited([Example(text, 0) for text in "abc"], "test", {"train": 1}) == limited(
    ...     [Example(text, 0) for text in "abc"], "test", {"test": 3}
    ... )
    True
    """
    most = limits.get(split, len(rows))
    if most >= len(rows):
        return list(rows)
    drawn = random.Random(f"limited {split}").sample(range(len(rows)), most)
    return [rows[i] for i in sorted(drawn)]
