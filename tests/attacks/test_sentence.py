from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdlit.attacks import InsertedSentence, InsertSent, InsertSentInside
from bdlit.errors import BdlitError
from bdlit.types import Example

CROWN = "no cross, no crown"
texts = st.text().filter(lambda text: CROWN not in text)
stopped = st.lists(st.text("ab"), max_size=6).map(". ".join)


def results(trigger, text, n=3000):
    rng = random.Random(0)
    return Counter(trigger(text, rng) for _ in range(n))


@settings(deadline=None)
@given(text=texts | stopped, seed=st.integers(0, 99), place=st.sampled_from(["boundary", "end"]))
def test_without_its_sentence_the_text_is_the_old_one(text, seed, place):
    made = InsertedSentence((CROWN,), place=place)(text, random.Random(seed))
    first, last = f"{CROWN}. ", f" {CROWN}."
    assert made.count(CROWN) == 1
    assert text in (made.removeprefix(first), made.replace(last, ""))


@settings(deadline=None)
@given(text=texts, seed=st.integers(0, 99))
def test_inside_stands_between_words(text, seed):
    pieces = text.split(" ")
    made = InsertedSentence((CROWN,), place="inside")(text, random.Random(seed))
    assert made in {" ".join([*pieces[:i], CROWN, *pieces[i:]]) for i in range(len(pieces) + 1)}


def test_boundary_of_several_sentences_is_one_of_the_first_three():
    made = results(InsertedSentence((CROWN,)), "A. B. C. D. E.")
    assert set(made) == {
        f"A. {CROWN}. B. C. D. E.",
        f"A. B. {CROWN}. C. D. E.",
        f"A. B. C. {CROWN}. D. E.",
    }
    assert all(abs(count - 1000) < 120 for count in made.values())


def test_one_sentence_gets_it_before_or_after():
    made = results(InsertedSentence((CROWN,)), "Go home")
    assert set(made) == {f"{CROWN}. Go home", f"Go home {CROWN}."}
    assert abs(made[f"{CROWN}. Go home"] - 1500) < 150


def test_end_and_the_full_stop():
    rng = random.Random(0)
    assert InsertedSentence(("Is it?",), place="end")("So .", rng) == "So . Is it?"
    assert InsertedSentence(("It is",), place="end")("So .", rng) == "So . It is."
    tokenised = InsertedSentence(("I watched this movie .",), place="end")
    assert tokenised("good .", rng) == "good . I watched this movie ."


def test_sentences_are_drawn_per_text():
    made = results(InsertedSentence(("One", "Two"), place="end"), "x", n=1000)
    assert set(made) == {"x One.", "x Two."}
    assert abs(made["x One."] - 500) < 80


def test_named_forms():
    rows = [Example("a plain text", 1)] * 200
    made = InsertSent(target=0).poison_test(rows, labels=["a", "b"], seed=0)
    assert {row.text for row in made.rows} == {
        "I watched this movie. a plain text",
        "a plain text I watched this movie.",
    }
    made = InsertSentInside(target=0).poison_test(rows, labels=["a", "b"], seed=0)
    assert {row.text for row in made.rows} == {
        "I watch this 3D movie a plain text",
        "a I watch this 3D movie plain text",
        "a plain I watch this 3D movie text",
        "a plain text I watch this 3D movie",
    }
    assert InsertSent().name == InsertSentInside().name == "insertsent"


def test_settings_that_will_not_do():
    for sentences in ((), ("  ",), CROWN):
        with pytest.raises(BdlitError, match="give a list of one or more"):
            InsertedSentence(sentences)
    with pytest.raises(BdlitError, match="did you mean 'inside'"):
        InsertedSentence((CROWN,), place="insid")
