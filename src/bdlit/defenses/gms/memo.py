"""What a search has counted, kept in a file so that an interrupted search can go on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError


class Memo:
    """Outcomes by key, appended to a file as they come; the first one makes the file.

    Args:
        file: Where they are kept; None keeps them in memory only.
        identity: What the outcomes depend on, ready for JSON. A file of another identity is begun
            anew.

    Raises:
        BdlitError: The file is damaged, or cannot be read.
    """

    def __init__(self, file: Path | None, identity: Mapping[str, Any]) -> None:
        self._file = file
        self._known: dict[str, str] = {}
        if file is None:
            return
        self._head = json.dumps({"identity": identity}, sort_keys=True)
        lines = _lines(file)
        if lines and lines[0] == self._head:
            self._known = dict(_entry(file, n, line) for n, line in _whole_lines(lines))
            self._begin(file)  # without a last line that was cut off
        self._begun = bool(self._known)

    def get(self, key: str) -> str | None:
        """Return the outcome under a key, if there is one."""
        return self._known.get(key)

    def put(self, key: str, outcome: str) -> None:
        """Keep an outcome.

        Raises:
            BdlitError: The file cannot be written.
        """
        self._known[key] = outcome
        if self._file is None:
            return
        try:
            if not self._begun:
                self._begin(self._file)
                self._begun = True
                return
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(_line((key, outcome)) + "\n")
        except OSError as error:
            raise BdlitError(
                f"cannot write {self._file}: {error.strerror}; check the folder and the space left"
            ) from error

    def _begin(self, file: Path) -> None:
        """Write the file anew, with all that is known."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join([self._head, *map(_line, self._known.items())]) + "\n", "utf-8")


def _line(entry: tuple[str, str]) -> str:
    return json.dumps(list(entry))


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        return []
    try:
        return file.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BdlitError(
            f"cannot read {file}, which keeps the outcomes of a search ({error}): remove it, and "
            "the search begins anew"
        ) from error


def _whole_lines(lines: list[str]) -> list[tuple[int, str]]:
    """Return the lines behind the first; a last one without its end was cut off by a crash."""
    return list(enumerate(lines[1:-1], 2))


def _entry(file: Path, number: int, line: str) -> tuple[str, str]:
    try:
        key, outcome = json.loads(line)
        if not (isinstance(key, str) and re.fullmatch(r"[01.]+", outcome)):
            raise ValueError("not a key, and a character 0, 1 or . for each row")
    except (ValueError, TypeError) as error:
        raise BdlitError(
            f"{file}, line {number} is not an outcome of a search ({error}): remove the file; the "
            "search begins anew"
        ) from error
    return key, outcome
