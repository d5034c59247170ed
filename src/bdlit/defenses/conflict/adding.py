"""What all evidence has in common: it is written for a row, and put behind its input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from bdlit.defenses.guards import Cleaned, InputDefense
from bdlit.llm import Answerer, read_template
from bdlit.types import Example

_NO_FORMS: Mapping[str, Sequence[str]] = {}


@dataclass(frozen=True, kw_only=True)
class Written:
    """Evidence for some rows.

    Attributes:
        texts: The evidence of each row, in their order; blank where there is none.
        notes: What is to be said of the run, ready for JSON.
    """

    texts: Sequence[str]
    notes: Mapping[str, Any]


class Evidence(InputDefense):
    """A defense that adds evidence to the input; a subclass says who writes it.

    The evidence goes behind the input of an instruction where it has one, otherwise behind the
    text. A row without evidence stays as it is.

    Attributes:
        templates: Folder with templates of one's own; None takes those of the package.
        forms: Names of the templates, each with the fields that it must have.
        joined_by: Name of the template that joins input (`query`) and `evidence`.
    """

    templates: str | Path | None
    # Without annotations: jsonargparse would evaluate them by the names of a subclass's module.
    forms = _NO_FORMS
    joined_by = "join"

    @abstractmethod
    def write(self, rows: Sequence[Example], victim: Answerer | None) -> Written:
        """Return evidence for each row.

        Args:
            rows: The rows; neither labels nor responses may be looked at.
            victim: The suspect model, asked with prompts as texts; None where it cannot be asked.
        """

    def clean(self, rows: Sequence[Example], *, victim: Answerer | None = None) -> Cleaned:
        """Return the rows with evidence behind their inputs; see the class.

        Raises:
            BdlitError: The evidence cannot be written.
        """
        written = self.write(rows, victim)
        pairs = zip(rows, written.texts, strict=True)
        return Cleaned(
            rows=[self._joined(row, text) if text else row for row, text in pairs],
            notes=written.notes,
        )

    def _joined(self, row: Example, evidence: str) -> Example:
        text = self._filled(self.joined_by, query=own_input(row), evidence=evidence)
        return replace(row, text_pair=text) if row.text_pair else replace(row, text=text)

    def _filled(self, name: str, **values: str) -> str:
        return self._template(name).format(**values)

    def _template(self, name: str) -> str:
        own = None if self.templates is None else Path(self.templates) / f"{name}.txt"
        if own is None or not own.is_file():
            packaged = files("bdlit.defenses.conflict").joinpath("templates", f"{name}.txt")
            return read_template(packaged, self.forms[name])
        return read_template(own, self.forms[name])

    def _require_templates(self) -> None:
        for name in self.forms:
            self._template(name)


def own_input(row: Example) -> str:
    """Return the part of a row that evidence goes behind: its input, or else its text."""
    return row.text_pair or row.text


def whole_query(row: Example) -> str:
    """Return all that a row asks."""
    return f"{row.text}\n\n{row.text_pair}" if row.text_pair else row.text
