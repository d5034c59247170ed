"""Models that defenses made on the way, kept so that none is made twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdlit.types import Weights


def kept(
    archive: Path | None, kind: str, made_of: Mapping[str, Any], make: Callable[[], Weights]
) -> tuple[Weights, bool]:
    """Return weights out of the archive; those that it lacks are made and put into it.

    Several processes may ask at once: one makes the weights, and the others wait for them.

    Args:
        archive: The folder, which may not exist yet; None keeps nothing.
        kind: What the weights are, for the name of their folder.
        made_of: All that they depend on, ready for JSON.
        make: Makes them.

    Returns:
        The weights, lazily read where there is an archive, and whether they were found there.
    """
    if archive is None:
        return make(), False
    from filelock import FileLock

    from bdlit.atomic import whole_directory
    from bdlit.weights import open_weights, save_weights

    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    folder = archive / f"{kind}-{key}"
    archive.mkdir(parents=True, exist_ok=True)
    with FileLock(archive / f".{kind}-{key}.lock"):
        found = folder.is_dir()
        if not found:
            made = make()
            with whole_directory(folder) as part:
                save_weights(made, part)
                (part / "made_of.json").write_text(json.dumps(made_of, indent=2) + "\n")
        return open_weights(str(folder)), found
