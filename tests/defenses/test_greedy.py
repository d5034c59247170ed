"""The greedy search on hand-made scores: moves, ties, patience, and both published rules."""

from fractions import Fraction

import pytest

from bdlit.defenses.gms.greedy import greedy_search
from bdlit.defenses.gms.score import Score, Tally
from bdlit.errors import BdlitError
from bdlit.types import Rate

FULL = Tally(Rate(100, 100), Rate(100, 100))


def tallies(suspect_hits, default=100):
    """A counter that looks suspect hits up by state; the clean rows are all hit."""

    def count(states, score):
        return [Tally(Rate(suspect_hits.get(s, default), 100), Rate(100, 100)) for s in states]

    return count


def test_it_moves_to_the_best_even_if_worse_and_returns_the_best_ever_seen():
    axes = {"modules": ["K", "Q"], "layers": [0, 1]}
    hits = {
        (("K", "Q"), (0, 1)): 40,
        (("Q",), (0, 1)): 60,
        (("K",), (0, 1)): 50,  # the best of the first step, and worse than the start
        (("K",), (1,)): 10,  # the best of all
        (("K",), (0,)): 70,
    }
    found = greedy_search(axes, tallies(hits), Score(FULL))
    assert [step.chosen.dropped for step in found.steps][:2] == [("modules", "Q"), ("layers", 0)]
    assert found.best.state == (("K",), (1,))
    assert found.best.score == Fraction(6, 10) * Fraction(9, 10) + Fraction(4, 10)
    assert found.ended == "nothing is left to drop"


def test_ties_go_to_modules_by_name_then_to_the_lowest_layer():
    axes = {"modules": ["K", "Q"], "layers": [0, 1]}
    found = greedy_search(axes, tallies({}), Score(FULL))
    assert [step.chosen.dropped for step in found.steps] == [("modules", "K"), ("modules", "Q")]
    assert found.best == found.start


def test_patience_counts_steps_that_are_neither_a_new_best_nor_better_than_the_last():
    layers = list(range(9))
    # By how many layers are left: falls, falls, rises (not to a best), falls, falls.
    by_size = {9: 10, 8: 20, 7: 30, 6: 25, 5: 40, 4: 50, 3: 60}

    def count(states, score):
        return [Tally(Rate(by_size.get(len(s[0]), 99), 100), Rate(100, 100)) for s in states]

    found = greedy_search({"layers": layers}, count, Score(FULL), patience=2)
    assert len(found.steps) == 2
    found = greedy_search({"layers": layers}, count, Score(FULL), patience=3)
    assert len(found.steps) == 6  # two, the rise, and three
    assert found.ended == "3 steps without improvement"
    found = greedy_search({"layers": layers}, count, Score(FULL), patience=3, compat="decoder")
    # The first step is the first best that may win; then three, for a rise alone counts nothing.
    assert len(found.steps) == 4
    assert found.best.state == found.steps[0].chosen.state != found.start.state


def test_the_decoder_rule_keeps_one_of_each():
    axes = {"modules": ["K", "Q"], "layers": [0, 1]}
    found = greedy_search(axes, tallies({}), Score(FULL), patience=9, compat="decoder")
    assert [len(part) for part in found.steps[-1].chosen.state] == [1, 1]


def test_absolute_and_relative_drops():
    victim = Tally(Rate(50, 100), Rate(80, 100))
    after = Tally(Rate(25, 100), Rate(40, 100))
    assert Score(victim).of(after) == Fraction(6, 10) / 2 + Fraction(4, 10) / 2
    assert Score(victim, relative=False).of(after) == Fraction(6, 10) * Fraction(1, 4) + Fraction(
        4, 10
    ) * Fraction(6, 10)


def test_the_bound_is_that_of_the_luckiest_rest():
    score = Score(Tally(Rate(10, 10), Rate(10, 10)))
    partial = Tally(Rate(3, 5), Rate(1, 4))
    assert score.most(partial) == score.of(Tally(Rate(3, 10), Rate(7, 10)))
    assert not score.complete(partial)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Score(Tally(Rate(0, 3), Rate(1, 1))), "none of the 3 suspect rows"),
        (lambda: Score(Tally(Rate(0, 0), Rate(1, 1))), "proxy set is empty"),
        (lambda: Score(FULL, alpha=1.5), r"alpha 1.5 .*\[0, 1\]"),
        (lambda: greedy_search({"layers": []}, tallies({}), Score(FULL)), "no layers to search"),
        (lambda: greedy_search({"layers": [0]}, tallies({}), Score(FULL), patience=0), "patience"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(BdlitError, match=words):
        make()
