"""JSON Lines that several processes append to, and that survive a process which dies."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError

_BLOCK = 1 << 16  # bytes that are looked through at a time for a line break


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append lines to a file that several processes may append to, as the shards of a study do.

    A last line that an interrupted write has left torn is taken away first: nobody can read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{line}\n" for line in lines)
    with open(path, "a+b", buffering=0) as file, _alone(file):
        _drop_torn(file)
        file.write(text.encode(errors="backslashreplace"))
        os.fsync(file.fileno())


@contextmanager
def _alone(file: FileIO) -> Iterator[None]:
    """Keep other processes from writing to a file, where the system can."""
    if sys.platform == "win32":  # it has no such lock
        yield
        return
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _drop_torn(file: FileIO) -> None:
    """Cut a file behind its last line break."""
    end = file.seek(0, os.SEEK_END)
    kept = end
    while kept:
        start = max(0, kept - _BLOCK)
        file.seek(start)
        found = file.read(kept - start).rfind(b"\n")
        if found >= 0:
            kept = start + found + 1
            break
        kept = start
    if kept < end:
        file.truncate(kept)


def read_lines(path: Path, what: str) -> Iterator[tuple[int, Any]]:
    """Yield the number and the content of each whole line of such a file.

    Args:
        path: The file.
        what: What its lines are, for the error.

    Raises:
        BdlitError: The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise BdlitError(f"cannot read {what} from {path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            continue  # an empty line, or one that an interrupted write left torn
        yield number, record
