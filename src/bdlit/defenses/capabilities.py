"""The capability table, read from the classes themselves so that it cannot go stale."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from bdlit.defenses.base import Defense
from bdlit.names import offer


def defense_classes() -> list[type[Defense]]:
    """Return every defense that can be used, sorted by name.

    A user's own defense is among them once its module is imported.

    >>> import bdlit.defenses
    >>> bdlit.defenses.WAG in defense_classes()
    True
    """
    offer("defenses")
    usable = [c for c in _descendants(Defense) if c.listed and not inspect.isabstract(c)]
    return sorted(usable, key=lambda cls: cls.__name__)


def capability_table() -> list[dict[str, str]]:
    """Return one row per defense: its name, what it needs, what it does, and its paper.

    >>> import bdlit.defenses
    >>> {row["name"]: row["needs"] for row in capability_table()}["TIES"]
    'others, base'
    """
    return [
        {
            "name": cls.__name__,
            "needs": ", ".join(_needs(cls)),
            "summary": (inspect.getdoc(cls) or "").partition("\n")[0],
            "paper": _paper(inspect.getdoc(cls) or ""),
        }
        for cls in defense_classes()
    ]


_FOLDERS = ("workspace", "archive")  # every door has them


def _needs(cls: type[Defense]) -> list[str]:
    """Name what a defense needs, and in brackets what it uses where it is at hand."""
    extra = [f"({use})" for use in cls.uses if use not in cls.needs and use not in _FOLDERS]
    return [*cls.needs, *extra]


def _descendants(cls: type[Any]) -> Iterator[type[Defense]]:
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


def _paper(docstring: str) -> str:
    """Return the first arXiv id after `Reference:`, or the reference's first line."""
    reference = docstring.partition("Reference:")[2]
    found = re.search(r"arXiv:\d{4}\.\d{5}", reference)
    return found[0] if found else reference.strip().partition("\n")[0]
