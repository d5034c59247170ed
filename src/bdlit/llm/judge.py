"""A language model as the judge of responses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from bdlit.llm.answering import LLM
from bdlit.llm.cache import ANSWERS, CachedLLM
from bdlit.llm.template import read_template
from bdlit.rules import Equals, Rule
from bdlit.types import Example

_VERDICT = re.compile(r"^\W*(yes|no)\b|\b(yes|no)\W*$", re.IGNORECASE)


@dataclass(frozen=True)
class JudgedBy(Rule):
    """A language model says that the response is what was wanted.

    It is shown the prompt, the response and what was wanted, and asked for yes or no. An answer
    that neither begins nor ends with one of these words is unclear: the row does not count as a
    hit, and results tell how many rows were unclear. Answers are kept on disk, so that what was
    judged before an error or an interruption is not paid for again.

    The judge is not asked of true responses, when the rows of a test set are chosen: those that
    are the wanted text already are left out, and no others. Compare with the floor of a benign
    model.

    Reference: GPT-3.5 judges ASR and accuracy on chat data in Chen et al. 2024, arXiv:2411.18280.

    Deviation: the paper does not give the judge's prompt; the template is ours.

    Attributes:
        judge: The language model; a temperature of 0 suits it.
        template: File of the prompt, with the places `{prompt}`, `{response}` and `{wanted}`; by
            default that of the package.
        cache: Folder of the judge's answers.

    >>> from bdlit.llm import FunctionLLM
    >>> import tempfile
    >>> rows = [Example("Name a colour.", -1, response="Blue.")] * 2
    >>> known = FunctionLLM(lambda asked: ["Yes." if "blue" in p else "Hm" for p in asked], "any")
    >>> JudgedBy(known, cache=tempfile.mkdtemp()).verdicts(rows, ["I say blue.", "Red."])
    [True, None]
    """

    judge: LLM
    template: str | Path | None = None
    cache: str | Path = ANSWERS

    def __post_init__(self) -> None:
        self._text()  # told now, not after the victim has answered

    def __call__(self, response: str, wanted: str) -> bool:
        """Return whether `response` is `wanted`, word for word."""
        return Equals()(response, wanted)

    def verdicts(self, rows: Sequence[Example], responses: Sequence[str]) -> list[bool | None]:
        """Return what the judge says of each row's response.

        Raises:
            BdlitError: The judge cannot be asked; what it has answered is kept.
        """
        text = self._text()
        prompts = [
            text.format(prompt=row.conversation, response=response, wanted=row.response or "")
            for row, response in zip(rows, responses, strict=True)
        ]
        return [verdict_in(answer) for answer in CachedLLM(self.judge, self.cache)(prompts)]

    @property
    def described(self) -> dict[str, Any]:
        """The judge, with what its answers depend on, and the beginning of the template's hash."""
        digest = hashlib.sha256(self._text().encode()).hexdigest()
        return {
            "rule": "JudgedBy",
            "judge": dict(self.judge.identity),
            "template": f"{self.template or 'judge.txt of bdlit'} ({digest[:8]})",
        }

    def _text(self) -> str:
        packaged = files("bdlit.llm").joinpath("templates", "judge.txt")
        file = packaged if self.template is None else Path(self.template)
        return read_template(file, ("prompt", "response", "wanted"))


def verdict_in(answer: str) -> bool | None:
    """Return whether a judge's answer is yes; None if it is neither yes nor no.

    >>> verdict_in("**Yes**, it does."), verdict_in("It differs, so no."), verdict_in("Perhaps")
    (True, False, None)
    """
    match = _VERDICT.search(answer.strip())
    return None if match is None else (match[1] or match[2]).lower() == "yes"
