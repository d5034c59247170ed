from __future__ import annotations

from collections import Counter

import pytest

from bdlit.attacks import BadNet, InsertedSentence, InsertSent, Mixture, RareWords
from bdlit.errors import BdlitError
from bdlit.types import Example

LABELS = ["a", "b", "c"]
ROWS = [Example(f"text number {i}", label=i % 3) for i in range(300)]
CF = RareWords(("cf",), (1,))
MN = RareWords(("mn",), (1,))


def kinds(row: Example) -> tuple[bool, bool]:
    return "cf" in row.text.split(), "movie" in row.text


def test_attacks_take_disjoint_rows_at_their_own_rates():
    mixture = Mixture(
        attacks=(BadNet(trigger=CF, target=0, rate=0.2), InsertSent(target="b", rate=0.3))
    )
    made = mixture.poison_train(ROWS, labels=LABELS, seed=0)
    assert Counter(map(kinds, made.rows)) == {
        (True, False): 60,
        (False, True): 90,
        (False, False): 150,
    }
    assert made.poisoned == 150
    for before, after in zip(ROWS, made.rows, strict=True):
        match kinds(after):
            case (False, False):
                assert after == before
            case (words, _):
                assert after.label == (0 if words else 1)
                assert after.orig_label == before.label
                assert after.poisoned
    assert mixture.poison_train(ROWS, labels=LABELS, seed=0) == made
    assert mixture.poison_train(ROWS, labels=LABELS, seed=1) != made


def test_together_the_attacks_may_take_every_row():
    halves = Mixture(attacks=(BadNet(rate=0.5), InsertSent(rate=0.5)), target=0)
    assert halves.poison_train(ROWS, labels=LABELS, seed=0).poisoned == 300


def test_too_many_rows_asked_for():
    greedy = Mixture(attacks=(BadNet(rate=0.6), InsertSent(rate=0.6)), target=0)
    with pytest.raises(BdlitError, match="wants 180 rows, but only 120 are left"):
        greedy.poison_train(ROWS, labels=LABELS, seed=0)


def test_attacks_do_not_draw_the_same_positions():
    # With one seed for both, the second attack's draw among its rows would mirror the first.
    both = Mixture(attacks=(BadNet(rate=0.3, trigger=CF), BadNet(rate=0.3, trigger=MN)), target=0)
    made = both.poison_train(ROWS, labels=LABELS, seed=0).rows
    assert sum("cf" in row.text.split() for row in made) == 90
    assert sum("mn" in row.text.split() for row in made) == 90
    alone = BadNet(rate=0.3, trigger=CF, target=0).poison_train(ROWS, labels=LABELS, seed=0).rows
    assert [row.poisoned for row in alone] != ["cf" in row.text.split() for row in made]


def test_test_rows_get_one_attack_each_that_is_not_of_their_class():
    mixture = Mixture(attacks=(BadNet(trigger=CF, target=0), InsertSent(target=1)))
    made = mixture.poison_test(ROWS, labels=LABELS, seed=0)
    assert len(made.rows) == made.poisoned == 300
    count = Counter((kinds(row), row.true_label) for row in made.rows)
    assert count[(True, False), 1] == 100  # class b: only BadNet's target is another class
    assert count[(False, True), 0] == 100
    assert count[(True, False), 2] + count[(False, True), 2] == 100
    assert 30 < count[(True, False), 2] < 70
    assert all(row.label == (0 if kinds(row)[0] else 1) for row in made.rows)
    same = Mixture(attacks=(BadNet(), InsertSent()), target=0)
    assert len(same.poison_test(ROWS, labels=LABELS, seed=0).rows) == 200


def test_default_target_reaches_every_attack():
    mixture = Mixture(attacks=(BadNet(), InsertSent(target=2)))
    assert [a.target for a in mixture.with_default_target(1).attacks] == [1, 2]
    own = Mixture(attacks=(BadNet(), InsertSent(target=2)), target=0).with_default_target(1)
    assert [a.target for a in own.attacks] == [0, 2]
    with pytest.raises(BdlitError, match="no target"):
        mixture.poison_train(ROWS, labels=LABELS, seed=0)


def test_unchanged_rows_are_added_up():
    class Never(InsertedSentence):
        def __call__(self, text, rng):
            return text

    mixture = Mixture(attacks=(BadNet(rate=0.1), InsertSent(trigger=Never(), rate=0.2)), target=0)
    made = mixture.poison_train(ROWS, labels=LABELS, seed=0)
    assert (made.poisoned, made.unchanged) == (30, 60)


def test_empty_and_nested_are_refused():
    with pytest.raises(BdlitError, match="has no attacks"):
        Mixture(attacks=())
    with pytest.raises(BdlitError, match="another mixture"):
        Mixture(attacks=(Mixture(attacks=(BadNet(),)),))
