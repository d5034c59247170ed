"""Outputs that appear whole or not at all: written aside, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bdlit.errors import BdlitError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes its place when the block ends well.

    Raises:
        BdlitError: The file cannot be written (no such folder, no right, disk full).
    """
    path = Path(path)
    # The ending stays: writers choose their format by it.
    part = path.with_name(f".{os.getpid()}.part.{path.name}")
    with _told(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: str | Path) -> Iterator[Path]:
    """Yield an empty directory beside `path`; it becomes `path` when the block ends well.

    Raises:
        BdlitError: `path` exists already, or cannot be written (no right, disk full).
    """
    path = Path(path)
    with _told(path):
        if path.exists():
            raise BdlitError(f"{path} exists already: name another folder, or remove it first")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.part.", dir=path.parent))
        try:
            yield part
            part.chmod(0o755)  # mkdtemp keeps others out
            os.rename(part, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BdlitError(
            f"cannot write {path}: {error.strerror or error}; nothing was left behind"
        ) from error
