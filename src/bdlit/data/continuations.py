"""Plain texts as data for language models: the opening is the prompt, the rest the response."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from bdlit.data.catalogue import Card
from bdlit.data.instructions import InstructionDataModule
from bdlit.data.tables import Table
from bdlit.errors import BdlitError, did_you_mean
from bdlit.tables import column
from bdlit.types import NO_CLASS, Example

Unit: TypeAlias = Literal["sentences", "words"]

_UNITS = {
    # Closing quotes and brackets belong to the sentence that they close.
    "sentences": re.compile(r"""\S.*?(?:[.!?]+["'\u201d\u2019)\]]*(?=\s|$)|$)""", re.DOTALL),
    "words": re.compile(r"\S+"),
}


class Continuations(InstructionDataModule):
    """Texts cut in two, from local files or the hub: a model is given the opening and continues it.

    Texts that are no longer than the opening are left out. Files that this package has poisoned
    are read as they are, cut already.

    Args:
        text_column: Column of the texts.
        opening: How much of a text is the prompt, in units; at least 1.
        continuation: How much of what follows is the response; by default all of it.
        unit: What is counted, `sentences` or `words`.
        options: Settings of `InstructionDataModule`.

    Raises:
        BdlitError: In `setup`, as `InstructionDataModule`, and where no text is long enough.
    """

    card: ClassVar[Card] = Card(name="continuations", where="any hub id or folder")

    def __init__(
        self,
        *,
        text_column: str = "text",
        opening: int = 1,
        continuation: int | None = None,
        unit: Unit = "sentences",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if opening < 1 or (continuation is not None and continuation < 1):
            raise BdlitError(
                f"opening {opening} and continuation {continuation} have to be at least 1 each: a "
                "row needs a prompt and a response"
            )
        if unit not in _UNITS:
            raise BdlitError(f"unknown unit '{unit}': {did_you_mean(unit, get_args(Unit))}")
        self._text_column = text_column
        self._opening, self._continuation, self._unit = opening, continuation, unit

    def _read(self, table: Table) -> list[Example]:
        if "response" in table.columns:
            return super()._read(table)
        texts = column(list(table.rows), self._text_column, table.where)
        cut = (
            cut_text(str(text or ""), self._opening, self._continuation, self._unit)
            for text in texts
        )
        rows = [Example(pair[0], NO_CLASS, response=pair[1]) for pair in cut if pair]
        if not rows:
            raise BdlitError(
                f"{table.where} has no text longer than an opening of {self._opening} "
                f"{self._unit}: lower `opening`"
            )
        return rows


def cut_text(
    text: str, opening: int, continuation: int | None, unit: Unit
) -> tuple[str, str] | None:
    """Return the opening of a text and what follows; None where nothing does.

    Args:
        text: The text; blanks between the two parts are lost, all others stay.
        opening: Length of the opening in units.
        continuation: Most units of what follows; None is all of them.
        unit: What is counted.

    >>> cut_text('One day it rained. "No!" said Ann. She ran.', 1, 1, "sentences")
    ('One day it rained.', '"No!"')
    >>> cut_text("Once upon a time", 2, None, "words"), cut_text("The end.", 1, None, "sentences")
    (('Once upon', 'a time'), None)
    """
    ends = [found.end() for found in _UNITS[unit].finditer(text)]
    if len(ends) <= opening:
        return None
    last = len(ends) if continuation is None else min(opening + continuation, len(ends))
    begun, cut = ends[opening - 1], ends[last - 1]
    return text[:begun].strip(), text[begun:cut].strip()
