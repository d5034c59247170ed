"""Conflict evidence by a dictionary: the input's keywords are defined behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from bdlit.defenses.conflict.adding import Evidence, Written, own_input
from bdlit.defenses.conflict.keywords import TextRank, keywords
from bdlit.errors import BdlitError, did_you_mean
from bdlit.llm import Answerer
from bdlit.types import Example, Weights

if TYPE_CHECKING:
    from bdlit.defenses.conflict.wordnet import WordNet


@dataclass(frozen=True, kw_only=True)
class DictionaryEvidence(Evidence):
    """Add WordNet's definitions of the input's keywords, without any language model.

    The keywords of the input are found by TextRank, and each is defined on a line of its own,
    `word: definition` of its first sense, below a heading behind the input. Nothing is asked of the
    victim, so that classifiers are guarded as language models are.

    Reference: "Lethe: Purifying Backdoored Large Language Models with Knowledge Dilution",
        arXiv:2508.21004, the successor of arXiv:2411.18280: the external defense of its published
        code, which has the 5 heaviest keywords.

    Deviation: see `bdlit.defenses.conflict.keywords` for how words are told apart. A row without
    keywords stays as it is; the published code adds the heading alone.

    Attributes:
        folder: Folder of WordNet's dictionary files; None searches NLTK's data.
        textrank: Which TextRank finds the keywords: `published`, `paper` or `ours`.
        missing: What stands for the definition of a word that the dictionary lacks; None leaves
            such words out.
        templates: Folder with a template `define.txt` of one's own, with the places `query` and
            `evidence`; None takes that of the package.
    """

    folder: str | Path | None = None
    textrank: TextRank = "published"
    missing: str | None = "No definition found."
    templates: str | Path | None = None

    forms = {"define": ("query", "evidence")}  # noqa: RUF012  (an annotation would make it a field)
    joined_by = "define"

    def __post_init__(self) -> None:
        if self.textrank not in get_args(TextRank):
            raise BdlitError(
                f"unknown textrank '{self.textrank}' of {self.name}: "
                f"{did_you_mean(str(self.textrank), get_args(TextRank))}"
            )
        self._require_templates()

    def check(self, suspect: Weights, **models: Any) -> None:
        """Refuse to begin where the dictionary is missing: before a fit, not after."""
        from bdlit.defenses.conflict.wordnet import require_wordnet

        require_wordnet(self.folder)

    def write(self, rows: Sequence[Example], victim: Answerer | None) -> Written:
        """Return the definitions of each row's keywords; `victim` is not asked.

        Raises:
            BdlitError: NLTK or the dictionary is missing.
        """
        from bdlit.defenses.conflict.wordnet import WordNet

        dictionary = WordNet(self.folder)
        found = [self._defined(own_input(row), dictionary) for row in rows]
        known = sum(definition is not None for each in found for _, definition in each)
        texts = [self._lines(each) for each in found]
        return Written(
            texts=texts,
            notes={
                "evidence_from_dictionary": sum(bool(text) for text in texts),
                "without_evidence": sum(not text for text in texts),
                "definitions": known,
                "words_without_definition": sum(map(len, found)) - known,
                "dictionary": dictionary.name,
            },
        )

    def _defined(self, text: str, dictionary: WordNet) -> list[tuple[str, str | None]]:
        words = keywords(text, form=self.textrank)
        return [(word, dictionary.definition(word)) for word in words]

    def _lines(self, defined: Sequence[tuple[str, str | None]]) -> str:
        pairs = [(word, definition or self.missing) for word, definition in defined]
        return "\n".join(f"{word}: {text}" for word, text in pairs if text is not None)
