"""Tasks that have nothing to do with an attack: which of them a model is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError
from bdlit.tables import read_rows

_WINOGRANDE = "winogrande"  # the one task whose choices fill a gap in the text


@dataclass(frozen=True, kw_only=True)
class GeneralTasks:
    """Tasks of lm-evaluation-harness, by which a defense shows what it costs elsewhere.

    Attributes:
        names: Names of tasks or groups of tasks, as `lm-eval ls tasks` lists them; of local
            copies, the names of their files.
        folder: Folder of local copies, for machines without the hub: `<name>.jsonl` for each
            task, with `text`, `choices` and `label`, the place of the right choice from 0. They
            are asked as the harness asks WinoGrande, where that is the name, and else as it asks
            ARC and PIQA. By default the harness gets its own data from the hub.
        limit: How many rows of each task are looked at, its first ones; by default all.
        batch_size: Rows that are answered together.
    """

    names: tuple[str, ...]
    folder: str | None = None
    limit: int | None = None
    batch_size: int = 16

    def __post_init__(self) -> None:
        if not self.names:
            raise BdlitError(
                "outputs.tasks.names is empty: name a task, or leave outputs.tasks out"
            )
        for name, value in (("limit", self.limit), ("batch_size", self.batch_size)):
            if value is not None and value < 1:
                raise BdlitError(f"outputs.tasks.{name} {value} is out of range: give at least 1")

    def require(self) -> None:
        """Refuse what could not be measured, before hours of training and not after.

        Raises:
            BdlitError: The harness is not installed, or has no such task, or a local copy is
                missing or malformed.
        """
        if find_spec("lm_eval") is None:
            raise BdlitError(
                "outputs.tasks needs lm-evaluation-harness: pip install 'bdlit[lm-eval]'"
            )
        for name in self.names:
            if self.folder is None:
                _require_known(name)
            else:
                _require_questions(name, self.local(name))

    def local(self, name: str) -> Path:
        """Return the file of the local copy of a task."""
        return Path(self.folder or "", f"{name}.jsonl")


@cache  # it reads some thousands of files
def known_tasks() -> Any:
    """Return the harness's register of its tasks."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _require_known(name: str) -> None:
    known = known_tasks().all_tasks
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise BdlitError(
            f"outputs.tasks: lm-evaluation-harness has no task '{name}': {hint}"
            "`lm-eval ls tasks` lists them all"
        )


def _require_questions(name: str, file: Path) -> None:
    if not file.is_file():
        raise BdlitError(
            f"outputs.tasks: {file} is not a file; put a local copy of the task there, or leave "
            "outputs.tasks.folder out to get it from the hub"
        )
    gap = "_" if name == _WINOGRANDE else ""
    for number, row in enumerate(read_rows(file), 1):
        if not _is_question(row, gap):
            wanted = f"`text` with a gap `{gap}`" if gap else "`text`"
            raise BdlitError(
                f"outputs.tasks: {file}, row {number} is not a question: give it {wanted}, a list "
                "`choices`, and the place of the right one among them as `label`, from 0"
            )


def _is_question(row: Mapping[str, Any], gap: str) -> bool:
    text, choices, label = (row.get(name) for name in ("text", "choices", "label"))
    asked = isinstance(text, str) and gap in text
    return asked and isinstance(choices, list) and label in range(len(choices))
