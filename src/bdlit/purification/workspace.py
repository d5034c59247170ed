"""A folder for what a long computation has finished: found again after a kill, gone in the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_IDENTITY = ".identity.json"


@contextmanager
def workspace(folder: Path | None, identity: Mapping[str, Any]) -> Iterator[Path | None]:
    """Yield a folder that an interruption or an error leaves, and success removes.

    What an earlier run of another identity left there is thrown away.

    Args:
        folder: Where; None yields None, as in processes other than the first.
        identity: What is computed, ready for JSON.
    """
    if folder is None:
        yield None
        return
    file, wanted = folder / _IDENTITY, json.dumps(identity, sort_keys=True)
    if not (file.is_file() and file.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file.write_text(wanted)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
