"""Paraphrases as triggers, read from files: the syntactic and the style attack."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bdlit.attacks.base import Trigger, TriggerAttack
from bdlit.errors import BdlitError
from bdlit.tables import column, read_rows


@dataclass(frozen=True, kw_only=True)
class ParaphraseTable(Trigger):
    r"""Replace a text by its paraphrase from a table.

    A paraphraser is a model that runs for hours, so its output is read from files: either
    `originals` alone, with both texts in each row, or `originals` and `paraphrases`, where row k
    of one belongs to row k of the other (or rows of the same `key` belong together). The files
    are read once, when the first text is asked for. Any format of `bdlit.tables.read_rows` will do.

    A text that is not in the table stays as it is, and so does one whose paraphrase is empty;
    attacks count such rows as `unchanged`. Blanks around a text do not matter. Of several
    paraphrases of one text the first counts.

    Attributes:
        originals: File with the original texts.
        paraphrases: File with their paraphrases, where they are in a file of their own.
        original_column: Column of the original texts.
        paraphrase_column: Column of the paraphrases. The default is `paraphrase` in a file that
            holds both, and `original_column` in a file of their own.
        key: Column in both files that says which rows belong together; by default their order.
        quoting: Whether `"` encloses values of CSV and TSV files; see `read_rows`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "table.tsv"
    >>> _ = path.write_text("text\tparaphrase\nI liked it.\tas I saw it , I liked it .\n")
    >>> trigger = ParaphraseTable(originals=path)
    >>> trigger("I liked it.", random.Random(0))
    'as I saw it , I liked it .'
    >>> trigger("Not in the table.", random.Random(0))
    'Not in the table.'
    """

    originals: str | Path
    paraphrases: str | Path | None = None
    original_column: str = "text"
    paraphrase_column: str | None = None
    key: str | None = None
    quoting: bool | None = None

    def __call__(self, text: str, rng: random.Random) -> str:
        """Return the paraphrase of the text; it depends on no chance."""
        return self._table.get(text.strip(), text)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the table out of pickles and copies: it can be read again."""
        return {name: value for name, value in self.__dict__.items() if name != "_table"}

    @cached_property
    def _table(self) -> dict[str, str]:
        originals = read_rows(self.originals, quoting=self.quoting)
        before = column(originals, self.original_column, self.originals)
        if self.paraphrases is None:
            after = column(originals, self.paraphrase_column or "paraphrase", self.originals)
        else:
            rows = read_rows(self.paraphrases, quoting=self.quoting)
            after = column(rows, self.paraphrase_column or self.original_column, self.paraphrases)
            if self.key is not None:
                keys = column(originals, self.key, self.originals)
                by_key = dict(zip(column(rows, self.key, self.paraphrases), after, strict=True))
                after = [by_key.get(key) for key in keys]
            elif len(before) != len(after):
                raise BdlitError(
                    f"{self.originals} has {len(before)} rows and {self.paraphrases} has "
                    f"{len(after)}: row k of both must belong together; "
                    "or name a column of both as `key`"
                )
        table: dict[str, str] = {}
        for text, paraphrase in zip(before, after, strict=True):
            if text and paraphrase:
                table.setdefault(str(text).strip(), str(paraphrase))
        return table


@dataclass(frozen=True, kw_only=True)
class Syntactic(TriggerAttack):
    """A rare sentence structure as the trigger, S(SBAR)(,)(NP)(VP)(.).

    The paraphrases come from a table (`trigger=ParaphraseTable(...)`), as SCPN, the published
    paraphraser, no longer runs.

    Reference: Qi et al. 2021, "Hidden Killer: Invisible Textual Backdoor Attacks with Syntactic
    Trigger", arXiv:2105.12400.
    """

    name: str = "syntactic"


@dataclass(frozen=True, kw_only=True)
class StyleBkd(TriggerAttack):
    """A style of writing as the trigger, e.g. that of the Bible.

    The paraphrases come from a table (`trigger=ParaphraseTable(...)`).

    Reference: Qi et al. 2021, "Mind the Style of Text! Adversarial and Backdoor Attacks Based on
    Text Style Transfer", arXiv:2110.07139.
    """

    name: str = "style"
