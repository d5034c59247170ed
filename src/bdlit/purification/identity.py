"""What tells one purification from another: method, settings, and all that is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.defenses.base import Defense, settings_of
from bdlit.weights import SafetensorsWeights, fingerprint

if TYPE_CHECKING:
    from bdlit.purification.held import Held
    from bdlit.purification.suspect import Suspect, Writing
    from bdlit.types import Weights


def identity_of(
    suspect: Suspect,
    defense: Defense,
    held: Held,
    writing: Writing,
    measured: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return all that a purification depends on, ready for JSON.

    Args:
        suspect: The suspect.
        defense: The method.
        held: What is held.
        writing: How the result is written.
        measured: What its measurement depends on; None where nothing is measured.
    """
    settings, uses = settings_of(defense), defense.uses
    parents = [[suspect.address, suspect.identity()]]
    parents += [[other.name, files_of(other.weights)] for other in held.others]
    if held.base is not None and "base" in uses:
        parents.append([held.base.name, files_of(held.base.weights)])
    identity = {
        "method": type(defense).__name__,
        "settings": settings,
        "files": {name: sha256(Path(name).read_bytes()).hexdigest() for name in _named(settings)},
        "parents": parents,
        "keep": list(held.keep),
        "form": {"dense": writing.dense, "rank": writing.rank},
        **held.identity(uses),
        "measured": measured,
    }
    return dict(json.loads(json.dumps(identity, default=str)))


def files_of(weights: Weights) -> str | list[list[Any]]:
    """Return path, size and time of the files of a model, so that a changed one is noticed.

    A model that is not its files as they stand, such as an adapter, is read, and its hash returned.
    """
    if not isinstance(weights, SafetensorsWeights):
        return fingerprint(weights)
    stats = [(str(path.absolute()), path.stat()) for path in weights.paths]
    return [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats]


def _named(settings: Any) -> list[str]:
    """Return the files that settings name, such as a strategy or a table of rows."""
    if isinstance(settings, Mapping):
        settings = list(settings.values())
    if isinstance(settings, list):
        return sorted({name for each in settings for name in _named(each)})
    return [settings] if isinstance(settings, str) and _is_file(settings) else []


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # too long for a name
        return False
