"""How numbers and names of others are written: for people, and for JSON."""

from __future__ import annotations

from math import floor, isfinite, log10
from typing import Any


def percent(value: float | None) -> str:
    """Write a relative distance in percent, with about three digits.

    >>> [percent(value) for value in (0.0, 0.01234, 0.5, 12.0, None)]
    ['0', '1.23', '50.0', '1200', '-']
    """
    if value is None or value == 0:
        return "-" if value is None else "0"
    if not isfinite(value):
        return str(value)
    if 100 * value < 1e-3:
        return f"{100 * value:.0e}"
    rounded = float(f"{100 * value:.3g}")
    return f"{rounded:.{max(2 - floor(log10(rounded)), 0)}f}"


def finite(value: Any) -> Any:
    """Put None for numbers that JSON has not, at any depth: what others say may hold any.

    >>> finite({"a": [1.0, float("inf")], "b": float("nan")})
    {'a': [1.0, None], 'b': None}
    """
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def printable(text: str) -> str:
    r"""Escape what a terminal would obey or not show; names come from files of others.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def size_of(count: int) -> str:
    """Write a number of bytes for people.

    >>> size_of(90_867_952), size_of(12)
    ('90.9 MB', '12 bytes')
    """
    for unit, step in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} bytes"
