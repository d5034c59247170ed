"""Outputs that appear whole or not at all: written aside, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bdlit.errors import BdlitError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes its place when the block ends well.

    Raises:
        BdlitError: The file cannot be written (the folder is missing, no permission, disk full), or
            `path` is a link, a folder or a device, which the file would take the place of.
    """
    path = Path(path)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        kind = "a link" if path.is_symlink() else "no plain file"
        raise BdlitError(f"{path} is {kind}, and would be replaced: name a new file")
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
def resumable_directory(path: str | Path, identity: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a directory beside `path` that survives an interruption; at the end it becomes `path`.

    What an interrupted (or killed) run left there is found again by the next run of the same
    identity, and thrown away by one of another. An error throws it away too.

    Args:
        path: The directory to make.
        identity: What is written, ready for JSON; runs of one identity write the same.

    Raises:
        BdlitError: `path` exists already, cannot be written, or is being written by another run.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    with _told(path):
        if path.exists():
            raise BdlitError(f"{path} exists already: name another folder, or remove it first")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            _forget_others(part, dict(identity))
            try:
                yield part
                (part / _IDENTITY).unlink()
                os.rename(part, path)
            except KeyboardInterrupt:
                raise
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise


_IDENTITY = ".identity.json"


def _forget_others(part: Path, identity: dict[str, Any]) -> None:
    """Empty the directory, unless a run of the same identity has left it."""
    file = part / _IDENTITY
    wanted = json.dumps(identity, sort_keys=True)
    if file.is_file() and file.read_text() == wanted:
        return
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    file.write_text(wanted)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock while a directory is written; the lock of a killed process is free again."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise BdlitError(
            f"{path} is being written by another process: wait for it, or name another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BdlitError(
            f"cannot write {path}: {error.strerror or error}; nothing was left behind"
        ) from error
