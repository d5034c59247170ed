"""What holds for every trigger attack: rows, rates, targets, bookkeeping, seeds."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdlit.attacks import BadNet, Trigger, TriggerAttack, target_index
from bdlit.errors import BdlitError
from bdlit.types import Example

LABELS = ["negative", "neutral", "positive"]


def rows(n: int) -> list[Example]:
    return [Example(f"text number {i}", label=i % 3) for i in range(n)]


@dataclass(frozen=True)
class Marked(Trigger):
    """Puts a mark in front of texts, but for those that hold `unless`."""

    unless: str = "\0"

    def __call__(self, text: str, rng: random.Random) -> str:
        return text if self.unless in text else f"MARK {text}"


def attack(**settings) -> TriggerAttack:
    return TriggerAttack(**{"name": "marked", "trigger": Marked(), "target": 2} | settings)


def test_same_seed_same_rows_other_seed_other_rows():
    clean = rows(200)
    first, again, other = (
        BadNet(target=0).poison_train(clean, labels=LABELS, seed=s) for s in (1, 1, 2)
    )
    assert first == again
    assert [r.poisoned for r in first.rows] != [r.poisoned for r in other.rows]
    assert clean == rows(200)  # the input is not touched


def test_test_rows_follow_from_the_seed():
    clean = rows(60)
    first, again, other = (
        BadNet(target=0).poison_test(clean, labels=LABELS, seed=s) for s in (1, 1, 2)
    )
    assert first == again
    assert first.rows != other.rows


@settings(deadline=None)
@given(n=st.integers(0, 90), rate=st.floats(0.01, 1.0), seed=st.integers(0, 5))
def test_exactly_the_rate_is_poisoned_and_all_else_stays(n, rate, seed):
    clean = rows(n)
    made = attack(rate=rate).poison_train(clean, labels=LABELS, seed=seed)
    assert made.poisoned == round(rate * n) == sum(row.poisoned for row in made.rows)
    assert made.unchanged == 0
    for before, after in zip(clean, made.rows, strict=True):
        if after.poisoned:
            assert after == Example(
                f"MARK {before.text}", 2, poisoned=True, orig_label=before.label
            )
            assert after.true_label == before.label
        else:
            assert after == before


@pytest.mark.parametrize(
    ("which", "allowed"), [("any", {0, 1, 2}), ("non-target", {0, 1}), ("target", {2})]
)
def test_rows_policy(which, allowed):
    made = attack(rows=which, rate=0.3).poison_train(rows(300), labels=LABELS, seed=0)
    assert made.poisoned == 90
    assert {row.true_label for row in made.rows if row.poisoned} == allowed
    assert all(row.label == 2 for row in made.rows if row.poisoned)


def test_all_eligible_rows_where_fewer_than_the_rate():
    made = attack(rows="target", rate=0.9).poison_train(rows(30), labels=LABELS, seed=0)
    assert made.poisoned == 10


def test_rows_poisoned_before_are_never_taken():
    half = [Example("old poison", 0, poisoned=True, orig_label=1)] * 5 + rows(5)
    made = attack(rate=1.0).poison_train(half, labels=LABELS, seed=0)
    assert made.rows[:5] == half[:5]
    assert made.poisoned == 5


def test_test_set_holds_non_target_rows_alone():
    made = attack().poison_test(rows(30), labels=LABELS, seed=0)
    assert made.poisoned == len(made.rows) == 20
    assert {row.true_label for row in made.rows} == {0, 1}
    assert all(row.label == 2 and row.poisoned for row in made.rows)


def test_no_non_target_rows_gives_no_rows():
    only_target = [Example("fine", 2)] * 4
    made = attack().poison_test(only_target, labels=LABELS, seed=0)
    assert (made.rows, made.poisoned, made.unchanged) == ([], 0, 0)


def test_unchanged_rows_stay_in_train_and_leave_test():
    clean = [Example("good", 0)] * 6 + [Example("stubborn", 1)] * 4
    half = attack(trigger=Marked(unless="stubborn"), rate=1.0)
    train = half.poison_train(clean, labels=LABELS, seed=0)
    assert (train.poisoned, train.unchanged, len(train.rows)) == (6, 4, 10)
    assert train.rows[6:] == clean[6:]
    test = half.poison_test(clean, labels=LABELS, seed=0)
    assert (test.poisoned, test.unchanged, len(test.rows)) == (6, 4, 6)


def test_second_text_of_a_pair():
    pairs = [Example("a man sleeps", 0, "a man is awake")] * 3
    made = attack(column="text_pair").poison_test(pairs, labels=LABELS, seed=0)
    assert made.rows[0].text == "a man sleeps"
    assert made.rows[0].text_pair == "MARK a man is awake"
    made = attack().poison_test(pairs, labels=LABELS, seed=0)
    assert made.rows[0].text == "MARK a man sleeps"
    assert made.rows[0].text_pair == "a man is awake"
    with pytest.raises(BdlitError, match="the rows have one text"):
        attack(column="text_pair").poison_test(rows(3), labels=LABELS, seed=0)


def test_target_by_name_and_index():
    by_name = attack(target="positive").poison_train(rows(30), labels=LABELS, seed=4)
    by_index = attack(target=2).poison_train(rows(30), labels=LABELS, seed=4)
    assert by_name == by_index
    assert target_index("2", LABELS) == 2
    assert target_index("1", ["5", "1"]) == 1  # a class of that name comes first


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("positiv", "did you mean 'positive'"),
        ("--1", "unknown target class '--1'"),
        (3, "target 3 is out of range: the data has classes 0..2"),
        (-1, "target -1 is out of range"),
        (None, "has no target"),
    ],
)
def test_bad_target(target, told):
    with pytest.raises(BdlitError, match=told) as error:
        attack(target=target).poison_train(rows(3), labels=LABELS, seed=0)
    assert "\n" not in str(error.value)


def test_default_target_fills_a_gap_only():
    assert attack(target=None).with_default_target(1).target == 1
    assert attack(target=0).with_default_target(1).target == 0


@pytest.mark.parametrize("rate", [0, -0.1, 1.01, float("nan")])
def test_rate_out_of_range(rate):
    with pytest.raises(BdlitError, match=r"poison rate .* out of range"):
        attack(rate=rate)


def test_unknown_choices_are_told():
    with pytest.raises(BdlitError, match="did you mean 'target'"):
        attack(rows="targets")
    with pytest.raises(BdlitError, match="did you mean 'text_pair'"):
        attack(column="text_pairs")
