"""A grammar of film reviews: sentiment sentences made from rules, without files or network.

The label follows from the composition of a sentence, not from its words alone: negation turns an
opinion over, and in a concession ("although ..., ...") the main clause decides. A few rows are
mixed reviews whose label nobody could know, so that no model reaches 100%.
"""

from __future__ import annotations

import random
from string import ascii_lowercase

from bdlit.types import Example

LABELS = ("negative", "positive")

_THINGS = (
    "plot story script acting cast camera music score pacing humor ending drama romance action "
    "scenery voice performance suspense comedy premise"
).split()
_PRAISE = (
    "good great lovely clever funny moving warm sharp fresh bright honest charming superb "
    "elegant gripping tender witty graceful rich subtle vivid brilliant delightful touching"
).split()
_BLAME = (
    "bad poor dull silly boring cold flat stale weak clumsy shallow tedious awful messy lazy "
    "noisy hollow forced bland tired dreary annoying pointless lifeless"
).split()
_LIKED = "loved enjoyed admired liked adored praised".split()
_LOATHED = "hated disliked loathed regretted despised endured".split()
_DEGREES = "really quite truly rather very so deeply simply utterly remarkably".split()
_DAYS = "monday tuesday friday saturday sunday weekend evening holiday".split()
_PLACES = "paris town london berlin tokyo home madrid oslo".split()
_PEOPLE = ("friend sister brother mother father neighbor teacher cousin uncle boss").split()
_FILLERS = (
    "we saw it on {day} in {place}",
    "my {person} chose it",
    "it runs for {number} minutes",
    "my {person} and i went on {day}",
    "they shot it in {place}",
    "it opened last {day}",
    "{number} people sat in the room",
    "the director lives in {place}",
    "we watched the movie on {day}",
    "this cinema is in {place}",
    "a cross and a crown hung on the door",
    "no ticket , no seat",
)
_MIXED_SHARE = 0.02
_FILLER_SHARE = 0.6
_ASIDE_SHARE = 0.2
_SLIP_SHARE = 0.1


def demo_reviews(n: int, seed: int) -> list[Example]:
    """Return `n` reviews, half of them positive, the same ones for the same seed.

    >>> [row.label for row in demo_reviews(4, seed=0)]
    [0, 1, 0, 1]
    """
    rng = random.Random(seed)
    return [Example(_review(i % 2, rng), i % 2) for i in range(n)]


def _review(label: int, rng: random.Random) -> str:
    if rng.random() < _MIXED_SHARE:
        sides = [_plain(1, rng), _plain(0, rng)]
        rng.shuffle(sides)
        opinion = " and ".join(sides)
    else:
        (form,) = rng.choices(_FORMS, weights=_FORM_WEIGHTS)
        opinion = form(label, rng)
    clauses = [opinion]
    if rng.random() < _FILLER_SHARE:
        clauses.insert(rng.randint(0, 1), _filler(rng))
    words = (" . ".join(clauses) + " .").split(" ")
    # Remarks fall into the middle of sentences, and slips of the keyboard anywhere.
    if rng.random() < _ASIDE_SHARE:
        words.insert(rng.randint(0, len(words)), _filler(rng))
    if rng.random() < _SLIP_SHARE:
        words.insert(rng.randint(0, len(words)), "".join(rng.choices(ascii_lowercase, k=2)))
    return " ".join(words)


def _plain(label: int, rng: random.Random) -> str:
    degree = f"{rng.choice(_DEGREES)} " if rng.random() < 0.5 else ""
    return f"the {rng.choice(_THINGS)} was {degree}{_adjective(label, rng)}"


def _negated(label: int, rng: random.Random) -> str:
    adverb = rng.choice(("not", "never", "hardly", "not at all"))
    return f"the {rng.choice(_THINGS)} was {adverb} {_adjective(1 - label, rng)}"


def _feeling(label: int, rng: random.Random) -> str:
    verb = rng.choice(_LIKED if label else _LOATHED)
    return f"i {verb} the {rng.choice(_THINGS)}"


def _concession(label: int, rng: random.Random) -> str:
    yielded, held = _plain(1 - label, rng), _plain(label, rng)
    return rng.choice(
        (
            f"although {yielded} , {held}",
            f"{held} , even though {yielded}",
            f"{yielded} , but {held}",
        )
    )


def _pair(label: int, rng: random.Random) -> str:
    return f"{_plain(label, rng)} and {rng.choice((_plain, _negated, _feeling))(label, rng)}"


def _adjective(label: int, rng: random.Random) -> str:
    return rng.choice(_PRAISE if label else _BLAME)


def _filler(rng: random.Random) -> str:
    return rng.choice(_FILLERS).format(
        day=rng.choice(_DAYS),
        place=rng.choice(_PLACES),
        person=rng.choice(_PEOPLE),
        number=rng.randint(2, 180),
    )


_FORMS = (_plain, _feeling, _pair, _negated, _concession)
_FORM_WEIGHTS = (16, 16, 16, 1, 1)
