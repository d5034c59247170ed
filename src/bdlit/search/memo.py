"""What a search has found out, kept in a file, so that an interrupted search goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError


class Memo:
    """Outcomes by key, appended to a file as they come.

    Args:
        file: Where they are kept; None keeps them in memory only.
        identity: What the outcomes depend on, ready for JSON. A file of another identity is begun
            anew.

    Raises:
        BdlitError: The file is damaged, or cannot be written.
    """

    def __init__(self, file: Path | None, identity: Mapping[str, Any]) -> None:
        self._file = file
        self._known: dict[str, str] = {}
        if file is None:
            return
        head = json.dumps({"identity": identity}, sort_keys=True)
        lines = file.read_text("utf-8").split("\n") if file.is_file() else []
        if lines and lines[0] == head:
            self._known = dict(_entry(file, n, line) for n, line in _whole_lines(lines))
            file.write_text("\n".join([head, *map(_line, self._known.items())]) + "\n", "utf-8")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(head + "\n", "utf-8")

    def get(self, key: str) -> str | None:
        """Return the outcome under a key, if there is one."""
        return self._known.get(key)

    def put(self, key: str, outcome: str) -> None:
        """Keep an outcome."""
        self._known[key] = outcome
        if self._file is not None:
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(_line((key, outcome)) + "\n")


def _line(entry: tuple[str, str]) -> str:
    return json.dumps(list(entry))


def _whole_lines(lines: list[str]) -> list[tuple[int, str]]:
    """Return the lines behind the first; a last one without its end was cut off by a crash."""
    return list(enumerate(lines[1:-1], 2))


def _entry(file: Path, number: int, line: str) -> tuple[str, str]:
    try:
        key, outcome = json.loads(line)
        if not (isinstance(key, str) and isinstance(outcome, str)):
            raise ValueError("not two strings")
    except ValueError as error:
        raise BdlitError(
            f"{file}, line {number} is no outcome of a search ({error}): remove the file, and the "
            "search begins anew"
        ) from error
    return key, outcome
