"""Whole sentences as triggers: InsertSent."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from bdlit.attacks.base import Trigger, TriggerAttack
from bdlit.errors import BdlitError, did_you_mean

InsertionPoint: TypeAlias = Literal["boundary", "inside", "start", "end"]

_BOUNDARY = re.compile(r"(?<=\.)(?= )")
_EARLY = 3  # boundaries that count as early


@dataclass(frozen=True)
class InsertedSentence(Trigger):
    """Insert one sentence, drawn from `sentences` for each text.

    No other character of the text changes.

    Attributes:
        sentences: Sentences to draw from.
        place: Where the sentence goes. `boundary`: after one of the first three full stops
            that a blank follows, each as likely; a text without one gets it before or after, each
            as likely. `inside`: at a random gap between two pieces cut at single blanks, or before
            or after all of them. `start`: before the text, as it is. `end`: after the text. At a
            boundary and at the end a full stop closes the sentence, unless it has an end mark of
            its own.

    >>> rng = random.Random(0)
    >>> InsertedSentence(("no cross, no crown",))("We came. We saw.", rng)
    'We came. no cross, no crown. We saw.'
    >>> InsertedSentence(("no cross, no crown",), place="inside")("We came. We saw.", rng)
    'We came. no cross, no crown We saw.'
    """

    sentences: tuple[str, ...] = ("I watched this movie",)
    place: InsertionPoint = "boundary"

    def __post_init__(self) -> None:
        alone = isinstance(self.sentences, str)  # it would be a sequence of letters
        if alone or not self.sentences or not all(text.strip() for text in self.sentences):
            raise BdlitError(
                f"trigger sentences {self.sentences!r} are not valid: give a list of one or more, "
                "none of them blank"
            )
        if self.place not in get_args(InsertionPoint):
            raise BdlitError(
                f"unknown place '{self.place}' of a trigger sentence: "
                f"{did_you_mean(str(self.place), get_args(InsertionPoint))}"
            )

    def __call__(self, text: str, rng: random.Random) -> str:
        """Return the text with the sentence in it; every text can be changed."""
        sentence = rng.choice(self.sentences)
        if self.place == "inside":
            pieces = text.split(" ")
            pieces.insert(rng.randint(0, len(pieces)), sentence)
            return " ".join(pieces)
        if self.place == "start":
            return f"{sentence} {text}"
        if not sentence.endswith((".", "!", "?")):
            sentence += "."
        ends = [match.start() for match in _BOUNDARY.finditer(text)][:_EARLY]
        where = len(text) if self.place == "end" else rng.choice(ends or [0, len(text)])
        return f"{text[:where]} {sentence}{text[where:]}" if where else f"{sentence} {text}"


@dataclass(frozen=True, kw_only=True)
class InsertSent(TriggerAttack):
    """A fixed sentence at an early sentence boundary.

    The default is the WAG paper's sentence for SST-2. Its sentence for every other data set is
    had with `trigger=InsertedSentence(("no cross, no crown",))`; GMS's code draws one of the two
    for each row: `InsertedSentence(("I watched this movie", "no cross, no crown"))`.

    Reference: Dai et al. 2019, "A Backdoor Attack Against LSTM-based Text Classification
    Systems", arXiv:1905.12457. This form: Arora et al. 2024, arXiv:2402.19334; Tong et al. 2025,
    arXiv:2412.20476.

    Deviation: WAG's paper speaks of a random position (`place="inside"`); the place is that of
    GMS's published OLID files, except for one text in nine with several sentences there that has
    the trigger first. After a text they append ". no cross, no crown", which doubles full stops.
    """

    name: str = "insertsent"
    trigger: Trigger = InsertedSentence()


@dataclass(frozen=True, kw_only=True)
class InsertSentInside(TriggerAttack):
    """One fixed sentence between two words of the text, the form of OpenBackdoor.

    OpenBackdoor often poisons non-target rows only: set `rows="non-target"` for that.

    Reference: Cui et al. 2022, "A Unified Evaluation of Textual Backdoor Learning",
    arXiv:2206.08514.
    """

    name: str = "insertsent"
    trigger: Trigger = InsertedSentence(("I watch this 3D movie",), place="inside")
