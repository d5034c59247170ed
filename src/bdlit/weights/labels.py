"""Whether two lists of class names are one list, one order, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

Agreement: TypeAlias = Literal["same", "permuted", "different"]


def compare_labels(ours: Sequence[str], theirs: Sequence[str]) -> Agreement:
    """Compare class names in the order of the head's rows, ignoring case.

    >>> compare_labels(["bad", "good"], ["Good", "Bad"])
    'permuted'
    """
    first, other = ([name.lower() for name in names] for names in (ours, theirs))
    if first == other:
        return "same"
    return "permuted" if sorted(first) == sorted(other) else "different"
