"""The public names of the package, read from the faces of its rooms; no list is kept by hand."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

ROOMS = (
    *("attacks", "defenses", "victims", "data", "callbacks", "llm", "rules", "objectives"),
    *("recipe", "named_recipes", "evaluation", "purification", "training", "inspection", "weights"),
)
"""Where public names are looked for, in this order."""

CONFIGURED = ("attacks", "defenses", "victims", "data", "callbacks", "llm", "rules")
"""Rooms of classes that a config may name; a short name is known once its class is imported."""


def room(name: str) -> ModuleType:
    """Return a room of the package, without what it loads on first use."""
    return import_module(f"bdlit.{name}")


def names_of(module: ModuleType) -> list[str]:
    """Return the public names of a room: its face, or the classes that a single module defines."""
    face: list[str] | None = getattr(module, "__all__", None)
    if face is not None:
        return face
    found = vars(module).items()
    return [n for n, c in found if n[0] != "_" and getattr(c, "__module__", "") == module.__name__]


def room_of(name: str) -> ModuleType | None:
    """Return the first room that has a public name; None if there is none.

    >>> room_of("BadNet").__name__, room_of("Nothing")
    ('bdlit.attacks', None)
    """
    return next((found for found in map(room, ROOMS) if name in names_of(found)), None)


def public_names() -> list[str]:
    """Return every public name, sorted.

    >>> {"BadNet", "GMS", "evaluate"} <= set(public_names())
    True
    """
    return sorted({name for each in ROOMS for name in names_of(room(each))})


def offer(*rooms: str) -> None:
    """Import all classes of some rooms, so that options and configs may name them.

    >>> offer("attacks")
    """
    for each in rooms or CONFIGURED:
        found = room(each)
        for name in names_of(found):
            getattr(found, name)
