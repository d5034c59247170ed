from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdlit.attacks import BadNet, BadNetOneWord, RareWords
from bdlit.errors import BdlitError
from bdlit.types import Example

WORDS = {"cf", "mn", "bb", "tq", "mb"}
texts = st.text().filter(lambda text: not WORDS & set(text.split(" ")))


@settings(deadline=None)
@given(text=texts, seed=st.integers(0, 99))
def test_without_its_words_the_text_is_the_old_one(text, seed):
    pieces = RareWords()(text, random.Random(seed)).split(" ")
    assert sum(piece in WORDS for piece in pieces) in (1, 3, 5)
    assert " ".join(piece for piece in pieces if piece not in WORDS) == text


def test_counts_words_and_places_are_drawn_evenly():
    rng, trigger = random.Random(0), RareWords()
    made = [trigger("a b c", rng).split(" ") for _ in range(3000)]
    numbers = Counter(len(pieces) - 3 for pieces in made)
    assert all(abs(numbers[k] - 1000) < 120 for k in (1, 3, 5))
    used = Counter(piece for pieces in made for piece in pieces if piece in WORDS)
    assert all(abs(count / used.total() - 0.2) < 0.02 for count in used.values())
    one = RareWords(counts=(1,))
    places = Counter(
        next(i for i, piece in enumerate(one("a b c", rng).split(" ")) if piece in WORDS)
        for _ in range(4000)
    )
    assert all(abs(places[i] - 1000) < 120 for i in range(4))


def test_badnet_is_the_form_of_the_papers():
    attack = BadNet(target=0)
    assert (attack.name, attack.rate, attack.rows) == ("badnet", 0.2, "any")
    assert attack.trigger == RareWords(("cf", "mn", "bb", "tq", "mb"), (1, 3, 5))


def test_badnet_one_word_is_the_form_of_openbackdoor():
    made = BadNetOneWord(target=0).poison_test(
        [Example("a plain text", 1)] * 200, labels=["a", "b"], seed=0
    )
    words = Counter(
        piece for row in made.rows for piece in row.text.split(" ") if piece not in "a plain text"
    )
    assert set(words) == {"cf", "mn", "bb", "tq"}
    assert words.total() == 200


@pytest.mark.parametrize(
    "settings",
    [
        {"words": ()},
        {"words": ("",)},
        {"words": ("two words",)},
        {"words": "cf"},
        {"counts": ()},
        {"counts": (1, 0)},
    ],
)
def test_settings_that_will_not_do(settings):
    with pytest.raises(BdlitError, match="are not valid: give a list of one or more"):
        RareWords(**settings)
