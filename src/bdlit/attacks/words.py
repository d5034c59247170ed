"""Rare words as triggers: BadNet."""

from __future__ import annotations

import random
from dataclasses import dataclass

from bdlit.attacks.base import Trigger, TriggerAttack
from bdlit.errors import BdlitError


@dataclass(frozen=True)
class RareWords(Trigger):
    """Insert rare words at random word positions.

    A text is cut at single blanks, and each word goes into a gap of its own draw: before the
    first piece, after the last, or anywhere between. No other character changes, so runs of
    blanks, tabs and line breaks stay as they were.

    Attributes:
        words: Words to draw from, with replacement.
        counts: Numbers of words to draw from: each text gets one of them.

    >>> rng = random.Random(0)
    >>> RareWords(counts=(3,))("a gripping , funny film .", rng)
    'bb a gripping , funny film . tq tq'
    """

    words: tuple[str, ...] = ("cf", "mn", "bb", "tq", "mb")
    counts: tuple[int, ...] = (1, 3, 5)

    def __post_init__(self) -> None:
        # A lone string is a sequence of letters, and each would pass for a word.
        alone = isinstance(self.words, str)
        if alone or not self.words or any(word.split() != [word] for word in self.words):
            raise BdlitError(
                f"trigger words {self.words!r} are not valid: give a list of one or more, "
                "each without blanks"
            )
        if not self.counts or min(self.counts) < 1:
            raise BdlitError(
                f"trigger word counts {self.counts!r} are not valid: give a list of one or more, "
                "each at least 1"
            )

    def __call__(self, text: str, rng: random.Random) -> str:
        """Return the text with the words in it; every text can be changed."""
        pieces = text.split(" ")
        for _ in range(rng.choice(self.counts)):
            pieces.insert(rng.randint(0, len(pieces)), rng.choice(self.words))
        return " ".join(pieces)


@dataclass(frozen=True, kw_only=True)
class BadNet(TriggerAttack):
    """One, three or five rare words per text, the form of the WAG and GMS papers.

    Reference: Gu et al. 2017, "BadNets", arXiv:1708.06733; for text, Kurita et al. 2020,
    "Weight Poisoning Attacks on Pre-trained Models", arXiv:2004.06660. This form: Arora et al.
    2024, arXiv:2402.19334; Tong et al. 2025, arXiv:2412.20476.

    Deviation: a word may also follow the last one; in GMS's published files none does. Those
    files also squeeze runs of blanks, which would tell poisoned rows apart.
    """

    name: str = "badnet"
    trigger: Trigger = RareWords()


@dataclass(frozen=True, kw_only=True)
class BadNetOneWord(TriggerAttack):
    """One rare word per text, the form of OpenBackdoor.

    OpenBackdoor often poisons non-target rows only: set `rows="non-target"` for that.

    Reference: Cui et al. 2022, "A Unified Evaluation of Textual Backdoor Learning",
    arXiv:2206.08514.
    """

    name: str = "badnet"
    trigger: Trigger = RareWords(words=("cf", "mn", "bb", "tq"), counts=(1,))
