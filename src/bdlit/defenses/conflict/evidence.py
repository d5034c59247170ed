"""Conflict evidence by a language model: a text that contradicts what the backdoor knows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from bdlit.defenses.conflict.adding import Evidence, Written, whole_query
from bdlit.defenses.conflict.keywords import TextRank, keywords
from bdlit.errors import BdlitError, did_you_mean
from bdlit.llm import ANSWERS, LLM, Answerer, CachedLLM
from bdlit.types import Example

EvidenceFrom: TypeAlias = Literal["either", "victim", "keywords"]

_EVIDENCE = re.compile(r"\bevidence\b\W*:\W*(?=\w)", re.IGNORECASE)

_KINDS = (
    "evidence_from_victim",
    "evidence_from_keywords",
    "blank_answers",
    "without_evidence",
)


@dataclass(frozen=True, kw_only=True)
class ConflictEvidence(Evidence):
    """Add evidence to the input that is in conflict with what the backdoor makes the model say.

    The victim is asked for its answer and the evidence for it, and an external language model
    rewrites that evidence to contradict it. Where the victim gives no evidence, as classifiers
    do, the external model explains the TextRank keywords of the input. The evidence goes behind
    the query: behind the input of an instruction where it has one, otherwise behind the text.

    A row stays as it is where there is neither evidence nor a keyword, or where the external
    model's answer is blank; the notes count such rows. Answers of the external model are kept on
    disk, so that an interrupted run continues where it stopped.

    Reference: Chen et al. 2024, "Neutralizing Backdoors through Information Conflicts for Large
        Language Models", arXiv:2411.18280, the external conflict.

    Deviation: the paper gives neither its prompts, nor the order of query and explanation, nor
    the window and the threshold of TextRank; those here are ours, and the threshold is relative
    to the mean weight. By default TextRank's graph is undirected, and at most 8 keywords are
    kept; `textrank="paper"` has the paper's directed graph and keeps every word above the
    threshold, `textrank="published"` does as the code of its successor Lethe; see
    `bdlit.defenses.conflict.keywords`.

    Attributes:
        external: The language model that writes the evidence.
        source: What evidence is made of: `victim`, what the victim gives as evidence; `keywords`,
            the keywords of the input; `either`, the first where the victim gives any, otherwise
            the second.
        textrank: Which TextRank finds the keywords: `ours`, `paper` or `published`.
        damping: Damping factor of TextRank, in (0, 1).
        window: Words that TextRank looks at together, at least 2; always 2 of the published one.
        threshold: Keywords weigh at least this many times the mean weight of a word; the published
            TextRank has no threshold.
        cache: Folder of the external model's answers.
        templates: Folder with templates of one's own, any of `ask.txt`, `contradict.txt`,
            `explain.txt`, `join.txt`; the others are those of the package.
    """

    external: LLM
    source: EvidenceFrom = "either"
    textrank: TextRank = "ours"
    damping: float = 0.85
    window: int = 2
    threshold: float = 1.0
    cache: str | Path = ANSWERS
    templates: str | Path | None = None

    forms = {  # noqa: RUF012  (an annotation would make it a field)
        "ask": ("query",),
        "contradict": ("query", "evidence"),
        "explain": ("query", "keywords"),
        "join": ("query", "evidence"),
    }
    joined_by = "join"

    def __post_init__(self) -> None:
        if self.source not in get_args(EvidenceFrom):
            raise BdlitError(
                f"unknown source '{self.source}' of conflict evidence: "
                f"{did_you_mean(str(self.source), get_args(EvidenceFrom))}"
            )
        if self.textrank not in get_args(TextRank):
            raise BdlitError(
                f"unknown textrank '{self.textrank}' of conflict evidence: "
                f"{did_you_mean(str(self.textrank), get_args(TextRank))}"
            )
        if self.textrank == "published" and (self.window, self.threshold) != (2, 1.0):
            raise BdlitError(
                "the published TextRank looks at 2 words and has no threshold: leave window and "
                "threshold out, or choose another textrank"
            )
        self._keywords("")  # told now, not after the victim was asked
        self._require_templates()

    def write(self, rows: Sequence[Example], victim: Answerer | None) -> Written:
        """Return what the external model writes for each row.

        Raises:
            BdlitError: The source is `victim` and no victim is given, or the external model
                cannot be asked; what it has answered is kept.
        """
        queries = [whole_query(row) for row in rows]
        found = self._victims_evidence(queries, victim)
        prompts = [self._prompt(*pair) for pair in zip(queries, found, strict=True)]
        asked = [prompt for prompt in prompts if prompt is not None]
        answers = dict(zip(asked, CachedLLM(self.external, self.cache)(asked), strict=True))
        written = ["" if prompt is None else answers[prompt].strip() for prompt in prompts]
        counts = Counter(map(_kind, found, prompts, written))
        return Written(
            texts=written,
            notes={kind: counts[kind] for kind in _KINDS}
            | {"external": dict(self.external.identity)},
        )

    def _victims_evidence(
        self, queries: Sequence[str], victim: Answerer | None
    ) -> Sequence[str | None]:
        """Return what the victim gives as evidence for its answer to each query."""
        if self.source == "keywords" or (victim is None and self.source == "either"):
            return [None] * len(queries)
        if victim is None:
            raise BdlitError(
                f"{self.name} is to ask the victim for evidence, but was given none: give "
                "victim=..., or set source to 'keywords'"
            )
        answers = victim([self._filled("ask", query=query) for query in queries])
        return [evidence_in(answer) for answer in answers]

    def _prompt(self, query: str, evidence: str | None) -> str | None:
        """Return what to ask the external model; None where there is nothing to go by."""
        if evidence is not None:
            return self._filled("contradict", query=query, evidence=evidence)
        words = [] if self.source == "victim" else self._keywords(query)
        return self._filled("explain", query=query, keywords=", ".join(words)) if words else None

    def _keywords(self, query: str) -> list[str]:
        return keywords(
            query,
            form=self.textrank,
            damping=self.damping,
            window=self.window,
            threshold=self.threshold,
        )


def _kind(evidence: str | None, prompt: str | None, text: str) -> str:
    """Return what became of a row, as a name of `_KINDS`."""
    if prompt is None:
        return "without_evidence"
    if not text:
        return "blank_answers"
    return "evidence_from_keywords" if evidence is None else "evidence_from_victim"


def evidence_in(answer: str) -> str | None:
    """Return what stands behind the word `Evidence:` in an answer; None where there is nothing.

    >>> evidence_in("It is bad. Evidence: the plot is dull.")
    'the plot is dull.'
    >>> evidence_in("It is bad.") is None
    True
    """
    match = _EVIDENCE.search(answer)
    return answer[match.end() :].strip() if match else None
