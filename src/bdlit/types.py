"""Plain data that every layer speaks: rows of text, targets, weights, rates and scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, sqrt
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Target: TypeAlias = int | str
"""What the attacker wants: a class by index or name, or a response by its text."""

Weights: TypeAlias = "Mapping[str, Tensor]"
"""A model as a read-only mapping from name to tensor; it may be lazy and is never mutated."""

Precision: TypeAlias = Literal["32-true", "bf16-mixed"]
"""Precision of forward passes and training, in the words of Lightning's Trainer."""

Role: TypeAlias = Literal["system", "user", "assistant"]

NO_CLASS = -1
"""The label of a row that has a response in place of a class."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier message of a conversation.

    Attributes:
        role: Who wrote it.
        text: What it says.
    """

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """One row: a text and its class, or an instruction and its response, or both.

    Attributes:
        text: The text, the first text of a pair, or the instruction.
        label: Class index that the row is trained or measured on; `NO_CLASS` where only a
            response is wanted.
        text_pair: The second text of a pair (NLI), or the input of an instruction.
        poisoned: Whether an attack changed this row. Evaluation may look; training must not.
        orig_label: The true class of a poisoned row whose label was changed.
        response: What a language model is trained to answer, or measured against.
        orig_response: The true response of a poisoned row whose response was changed.
        history: The messages before the instruction, in their order.
    """

    text: str
    label: int
    text_pair: str | None = None
    poisoned: bool = False
    orig_label: int | None = None
    response: str | None = None
    orig_response: str | None = None
    history: tuple[Turn, ...] = ()

    @property
    def true_label(self) -> int:
        """The class before any attack."""
        return self.label if self.orig_label is None else self.orig_label

    @property
    def true_response(self) -> str | None:
        """The response before any attack."""
        return self.response if self.orig_response is None else self.orig_response

    @property
    def unmarked(self) -> Example:
        """The row as a defender sees it: nothing says whether an attack changed it.

        >>> Example("cf good", 0, poisoned=True, orig_label=1).unmarked
        Example(text='cf good', label=0, text_pair=None, poisoned=False, orig_label=None, \
response=None, orig_response=None, history=())
        """
        if not self.poisoned and self.orig_label is None and self.orig_response is None:
            return self
        return replace(self, poisoned=False, orig_label=None, orig_response=None)

    @property
    def plain(self) -> bool:
        """Whether the row is a text that stands alone, as its response: nothing is asked."""
        return not (self.text or self.text_pair or self.history)

    @property
    def asked(self) -> str:
        """The instruction with its input, a line break between them."""
        return "\n".join(part for part in (self.text, self.text_pair) if part)

    @property
    def conversation(self) -> str:
        r"""All that stands before the response, for people and judges to read.

        >>> Example("And now?", -1, history=(Turn("assistant", "Hi"),)).conversation
        'assistant: Hi\nuser: And now?'
        """
        if not self.history:
            return self.asked
        turns = [f"{turn.role}: {turn.text}" for turn in self.history]
        return "\n".join([*turns, f"user: {self.asked}"])


_Z95 = 1.959963984540054  # standard normal quantile of 0.975


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its counts, so that its uncertainty is never lost.

    Attributes:
        hits: How many rows were hit.
        n: How many rows were looked at.
    """

    hits: int
    n: int

    @property
    def percent(self) -> float:
        """The share in percent, in [0, 100]; NaN if no row was looked at."""
        return 100.0 * self.hits / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson score interval, in percent; (0, 100) if no row was looked at.

        Reference: Wilson 1927, "Probable inference, the law of succession, and statistical
        inference"; it keeps its coverage near 0% and 100%, where ASR lives.
        """
        if not self.n:
            return 0.0, 100.0
        share, z2n = self.hits / self.n, _Z95**2 / self.n
        middle = (share + z2n / 2) / (1 + z2n)
        half = _Z95 * sqrt(share * (1 - share) / self.n + z2n / (4 * self.n)) / (1 + z2n)
        return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)

    def __add__(self, other: Rate) -> Rate:
        return Rate(self.hits + other.hits, self.n + other.n)


@dataclass(frozen=True, slots=True)
class Perplexity:
    """How little a language model expected some texts, with what it is the mean of.

    Every token counts the same, whatever text it is in, so that two can be added.

    Attributes:
        nats: Sum of the negative log-probabilities of the tokens, in nats.
        tokens: How many tokens were looked at.

    >>> from math import log
    >>> uniform = Perplexity(nats=3 * log(50), tokens=3)
    >>> round((uniform + uniform).value, 6)
    50.0
    """

    nats: float = 0.0
    tokens: int = 0

    @property
    def value(self) -> float:
        """The exponential of the mean over tokens, at least 1; NaN if there were none."""
        try:
            return exp(self.nats / self.tokens) if self.tokens else float("nan")
        except OverflowError:  # of a model that is broken
            return float("inf")

    def __add__(self, other: Perplexity) -> Perplexity:
        return Perplexity(self.nats + other.nats, self.tokens + other.tokens)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over rows, with what it is the mean of.

    Attributes:
        total: Sum over the rows.
        n: How many rows were looked at.
    """

    total: float = 0.0
    n: int = 0

    @property
    def value(self) -> float:
        """The mean; NaN if no row was looked at."""
        return self.total / self.n if self.n else float("nan")

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.n + other.n)


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt and what a language model answered, for people to read.

    Attributes:
        prompt: The prompt, as `Example.conversation` writes it.
        wanted: What the answer was judged against.
        response: The answer.
        counts: Whether it counted as what was wanted.
    """

    prompt: str
    wanted: str
    response: str
    counts: bool
