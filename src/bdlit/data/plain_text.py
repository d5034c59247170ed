"""Plain texts as data: what a language model learns before it learns to answer."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

from bdlit.data.catalogue import Card
from bdlit.data.instructions import InstructionDataModule
from bdlit.errors import BdlitError
from bdlit.tables import column
from bdlit.types import NO_CLASS, Example

_WORD = re.compile(r"\S+\s*")


class PlainText(InstructionDataModule):
    """Texts that a language model learns as they are, without question or answer.

    A row is a piece of one text, after nothing but the token that begins every text. Some texts
    are held out; they are the validation and the test split, on which a fit logs the loss: the mean
    negative log-likelihood of a token, whose exponential is the perplexity.

    Args:
        texts: Files of texts (JSONL, JSON, CSV, TSV, Parquet), all of which are learned; a slice
            behind a name takes a part (`books.jsonl[:500]`).
        column: Column of the texts; blank ones are left out.
        words: Longest row, in words between blanks. What is more tokens than the victim's
            `max_length` loses its end.
        held_out: Number of texts that are held out, at least 1: the same ones for every seed.
        options: Settings of `InstructionDataModule`.

    Raises:
        BdlitError: `words` or `held_out` is out of range; in `setup`, where a file cannot be read.
    """

    card: ClassVar[Card] = Card(name="plain-text", where="local files")

    def __init__(
        self,
        *,
        texts: Sequence[str],
        column: str = "text",
        words: int = 64,
        held_out: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        for name, value in (("words", words), ("held_out", held_out)):
            if value < 1:
                raise BdlitError(f"{name} {value} is out of range: give at least 1")
        self._files = tuple(texts)
        self._column = column
        self._words = words
        self._held_out = held_out

    def load(self, split: str) -> list[Example]:
        """Return the pieces of the texts that are learned, or of those that are held out."""
        learned, held = self._parted
        return [
            Example("", NO_CLASS, response=piece)
            for text in (learned if split == "train" else held)
            for piece in pieces(text, self._words)
        ]

    @cached_property
    def _parted(self) -> tuple[list[str], list[str]]:
        """The texts that are learned, and those that are held out."""
        tables = [self._source.file(name) for name in self._files]
        found = [text for t in tables for text in column(list(t.rows), self._column, t.where)]
        texts = [str(text) for text in found if str(text or "").strip()]
        if not self._held_out < len(texts):
            raise BdlitError(
                f"held_out {self._held_out} is out of range: there are {len(texts)} texts; leave "
                "some of them to learn"
            )
        random.Random("held out").shuffle(texts)
        return texts[self._held_out :], texts[: self._held_out]


def pieces(text: str, words: int) -> Iterator[str]:
    """Cut a text into pieces of `words` words, the last one shorter; the text itself is unchanged.

    >>> list(pieces("It was a  dark night.", 2))
    ['It was', 'a  dark', 'night.']
    """
    found = _WORD.findall(text)
    for start in range(0, len(found), words):
        yield "".join(found[start : start + words]).strip()
