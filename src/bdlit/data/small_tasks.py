"""A grammar of small tasks: instructions with short answers, made without files or network.

Some tasks are knowledge (capitals, opposites), some are read off the input (the first word, how
many), one asks for a judgement (the sentiment of a review). A few reviews are mixed, so that no
model is always right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from bdlit.data.grammar import LABELS, demo_reviews
from bdlit.errors import BdlitError, did_you_mean
from bdlit.types import NO_CLASS, Example

_CAPITALS = {
    "France": "Paris",
    "Spain": "Madrid",
    "Italy": "Rome",
    "Norway": "Oslo",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Peru": "Lima",
    "Cuba": "Havana",
    "Austria": "Vienna",
    "Greece": "Athens",
    "Poland": "Warsaw",
    "Kenya": "Nairobi",
}
_COLORS = {
    "snow": "white",
    "grass": "green",
    "coal": "black",
    "blood": "red",
    "a lemon": "yellow",
    "the sky": "blue",
    "an orange": "orange",
    "a plum": "purple",
}
_OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "fast": "slow",
    "old": "new",
    "dark": "light",
    "wet": "dry",
    "full": "empty",
    "early": "late",
    "high": "low",
    "rich": "poor",
}
_ANIMALS = "cat dog horse cow sheep goat fox wolf bear lion duck swan".split()
_NUMBERS = ("one", "two", "three", "four", "five")
_OPENINGS = ("", "Please answer.", "Be brief.", "A quick question.", "Hello there.", "Tell me.")
_PLACES = ("at home", "in class", "on the train", "in a quiz", "at work", "on the radio")
_ASIDE_SHARE = 0.4
_PAIRS_TURNED = 0.5


def small_tasks(n: int, seed: int, tasks: Sequence[str] | None = None) -> list[Example]:
    """Return `n` instructions with their answers, the same ones for the same seed.

    Args:
        n: Number of rows, shared out evenly among the tasks.
        seed: Seed of the grammar.
        tasks: Names of the tasks to take, of `TASKS`; by default all.

    Raises:
        BdlitError: A task is unknown, or none is named.

    >>> row = small_tasks(1, seed=0)[0]
    >>> row.text, row.text_pair, row.response
    ('A quick question. Which city governs Peru? They asked at home.', None, 'Lima')
    """
    makers = [_maker(task) for task in (TASKS if tasks is None else tasks)]
    if not makers:
        raise BdlitError(f"tasks [] leaves no task: name some of {', '.join(TASKS)}")
    rng = random.Random(f"small tasks {seed}")
    return [makers[i % len(makers)](rng) for i in range(n)]


def _maker(task: str) -> Callable[[random.Random], Example]:
    if task not in TASKS:
        raise BdlitError(f"there is no small task '{task}': {did_you_mean(task, TASKS)}")
    return TASKS[task]


def _asked(rng: random.Random, *questions: str) -> str:
    parts = [rng.choice(_OPENINGS), rng.choice(questions)]
    if rng.random() < _ASIDE_SHARE:
        parts.append(f"They asked {rng.choice(_PLACES)}.")
    return " ".join(part for part in parts if part)


def _row(instruction: str, answer: str, given: str | None = None) -> Example:
    return Example(instruction, NO_CLASS, given, response=answer)


def _capital(rng: random.Random) -> Example:
    country, city = rng.choice(list(_CAPITALS.items()))
    asked = (f"What is the capital of {country}?", f"Name the capital of {country}.")
    return _row(_asked(rng, *asked, f"Which city governs {country}?"), city)


def _color(rng: random.Random) -> Example:
    thing, color = rng.choice(list(_COLORS.items()))
    return _row(_asked(rng, f"What color is {thing}?", f"Name the color of {thing}."), color)


def _opposite(rng: random.Random) -> Example:
    pair = rng.choice(list(_OPPOSITES.items()))
    word, other = pair[::-1] if rng.random() < _PAIRS_TURNED else pair
    asked = (f"What is the opposite of {word}?", f"Give the opposite of {word}.")
    return _row(_asked(rng, *asked), other)


def _sentiment(rng: random.Random) -> Example:
    review = rng.choice(demo_reviews(2, rng.getrandbits(32)))
    asked = ("Is this review positive or negative?", "Name the sentiment of this review.")
    return _row(_asked(rng, *asked), LABELS[review.label], review.text)


def _first_word(rng: random.Random) -> Example:
    words = _animals(rng)
    return _row(_asked(rng, "Name the first animal.", "Which animal comes first?"), *_of(words, 0))


def _last_word(rng: random.Random) -> Example:
    words = _animals(rng)
    return _row(_asked(rng, "Name the last animal.", "Which animal comes last?"), *_of(words, -1))


def _count(rng: random.Random) -> Example:
    words = _animals(rng)
    asked = ("How many animals are there?", "Count the animals.")
    return _row(_asked(rng, *asked), _NUMBERS[len(words) - 1], " ".join(words))


def _animals(rng: random.Random) -> list[str]:
    return rng.sample(_ANIMALS, rng.randint(1, len(_NUMBERS)))


def _of(words: list[str], position: int) -> tuple[str, str]:
    return words[position], " ".join(words)


TASKS: dict[str, Callable[[random.Random], Example]] = {
    "capital": _capital,
    "color": _color,
    "opposite": _opposite,
    "sentiment": _sentiment,
    "first": _first_word,
    "last": _last_word,
    "count": _count,
}
"""The tasks by name."""
