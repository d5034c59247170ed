"""Intervals: against scipy, against published examples, and by how often they hold the truth."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from math import hypot, inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from bdlit.evaluation.intervals import (
    Interval,
    difference_interval,
    newcombe,
    rate_interval,
    t_interval,
    t_quantile,
    unpaired_interval,
)
from bdlit.report import Row, aggregate, compare_table
from bdlit.report.baselines import fill_baselines
from bdlit.report.columns import columns_for
from bdlit.types import Rate

RATES = st.integers(1, 500).flatmap(lambda n: st.builds(Rate, st.integers(0, n), st.just(n)))


def percents(rates: list[Rate]) -> list[float]:
    return [100 * rate.hits / rate.n for rate in rates]


def test_quantiles_are_students():
    for freedom in (*range(1, 30), 100, 10_000):
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


@given(st.lists(RATES, min_size=2, max_size=6))
def test_several_seeds_are_a_t_interval_of_their_mean(rates):
    values = percents(rates)
    assume(np.ptp(values) > 1e-6)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert t_interval(values) == pytest.approx((low, high), abs=1e-6)
    found = rate_interval(rates)
    assert (found.low, found.high) == pytest.approx((max(low, 0), min(high, 100)), abs=1e-6)
    assert found.over == "seeds"


@given(RATES)
def test_one_seed_is_wilsons(rate):
    theirs = stats.binomtest(rate.hits, rate.n).proportion_ci(method="wilson")
    found = rate_interval([rate])
    assert (found.low, found.high) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1e-9)
    assert found.over == "rows only"


def test_seeds_that_agree_are_as_sure_as_the_least_sure():
    assert rate_interval([Rate(400, 400), Rate(80, 80)]) == rate_interval([Rate(80, 80)])
    assert rate_interval([Rate(1, 3), Rate(100, 300)]) == rate_interval([Rate(1, 3)])
    # One row makes them differ: then it is how far they are apart that counts.
    assert rate_interval([Rate(79, 80), Rate(80, 80)]).over == "seeds"


def test_nothing_measured_is_no_interval():
    assert rate_interval([]) is rate_interval([Rate(0, 0)]) is None
    assert difference_interval([]) is difference_interval([(Rate(0, 0), Rate(1, 2))]) is None
    assert unpaired_interval([Rate(1, 2)], [Rate(0, 0)], 50.0) is None
    # Rows that were not measured do not count as a seed.
    assert rate_interval([Rate(1, 2), Rate(0, 0)]) == rate_interval([Rate(1, 2)])


# Newcombe 1998, table II: the eight examples, by method 10.
NEWCOMBE = [
    (Rate(56, 70), Rate(48, 80), 0.0524, 0.3339),
    (Rate(9, 10), Rate(3, 10), 0.1705, 0.8090),
    (Rate(6, 7), Rate(2, 7), 0.0582, 0.8062),
    (Rate(5, 56), Rate(0, 29), -0.0381, 0.1926),
    (Rate(0, 10), Rate(0, 20), -0.1611, 0.2775),
    (Rate(0, 10), Rate(0, 10), -0.2775, 0.2775),
    (Rate(10, 10), Rate(0, 20), 0.6791, 1.0),
    (Rate(10, 10), Rate(0, 10), 0.6075, 1.0),
]


@pytest.mark.parametrize(("first", "second", "low", "high"), NEWCOMBE)
def test_newcombes_examples(first, second, low, high):
    assert newcombe(first, second) == pytest.approx((100 * low, 100 * high), abs=0.006)
    assert newcombe(second, first) == pytest.approx((-100 * high, -100 * low), abs=0.006)
    only = difference_interval([(first, second)])
    assert (only.low, only.high, only.over) == (*newcombe(first, second), "rows only")
    apart = unpaired_interval([first], [second], first.percent - second.percent)
    assert (apart.low, apart.high) == pytest.approx((only.low, only.high))
    assert apart.over == "rows only"


def test_a_mean_of_rates_is_no_surer_than_the_least_sure():
    # Two benign models of one seed: their mean, 15%, is as uncertain as 20% of 80 rows is.
    first, second, third = Rate(40, 80), Rate(8, 80), Rate(16, 80)
    (low, high), (down, up) = first.interval, third.interval
    assert newcombe(first, second, third) == pytest.approx(
        (35 - hypot(50 - low, up - 20), 35 + hypot(high - 50, 20 - down))
    )


@given(st.lists(st.tuples(RATES, RATES), min_size=2, max_size=6))
def test_paired_seeds_are_a_t_interval_of_their_differences(pairs):
    first, second = (percents(list(side)) for side in zip(*pairs, strict=True))
    assume(np.ptp(np.subtract(first, second)) > 1e-6)
    theirs = stats.ttest_rel(first, second).confidence_interval(0.95)
    found = difference_interval(pairs)
    expected = max(theirs.low, -100), min(theirs.high, 100)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-6)


def test_what_a_seed_does_to_both_cancels_out():
    pairs = [(Rate(20 + s, 80), Rate(10 + s, 80)) for s in (0, 30, 51)]
    same = difference_interval(pairs)  # 12.5 points each: no width, so over rows
    assert same.over == "rows only"
    assert same.width == max(high - low for low, high in (newcombe(*pair) for pair in pairs))
    # Seeds paired the wrong way round differ by far more than they do.
    wrong = [(one, pairs[(i + 1) % 3][1]) for i, (one, _) in enumerate(pairs)]
    assert difference_interval(wrong).width > 4 * same.width


def test_unpaired_sides_are_put_together_by_hand():
    first, second = [Rate(40, 80), Rate(56, 80)], [Rate(8, 80), Rate(12, 80), Rate(4, 80)]
    one = stats.t.interval(0.95, 1, 60, 10)  # 50 and 70%
    other = stats.t.interval(0.95, 2, 10, 5 / 3**0.5)  # 10, 15 and 5%
    below = hypot(60 - max(one[0], 0), other[1] - 10)
    above = hypot(min(one[1], 100) - 60, 10 - max(other[0], 0))
    found = unpaired_interval(first, second, 50.0)
    assert (found.low, found.high) == pytest.approx((50 - below, 50 + above))
    assert found.over == "unpaired seeds"
    # Of a floor of one seed, its rows are added: the interval is never the victim's alone.
    alone = unpaired_interval(first, second[:1], 50.0)
    assert alone.low < 50 - (60 - rate_interval(first).low)


# How often the printed interval holds the truth. Each case draws the share of hits that a
# training ends with, [draws, seeds], and says what its mean is.

DRAWS = 1000
ROWS = 400
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def same(rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    return np.full(shape, share)


def spread(rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    return np.clip(rng.normal(share, 0.10, shape), 0, 1)


def two_ends(rng: np.random.Generator, shape: tuple[int, int], low: float) -> np.ndarray:
    return np.where(rng.random(shape) < low, 0.30, 0.96)


CASES: dict[str, tuple[Draw, float]] = {
    "all trainings at 5%": (partial(same, share=0.05), 5.0),
    "all trainings at 50%": (partial(same, share=0.5), 50.0),
    "all trainings at 96%": (partial(same, share=0.96), 96.0),
    "40 ± 10%": (partial(spread, share=0.4), 40.0),
    "70 ± 10%": (partial(spread, share=0.7), 70.0),
    "30% or 96%, half each": (partial(two_ends, low=0.5), 63.0),
    "30% or 96%, 3 in 10 at 30%": (partial(two_ends, low=0.3), 76.2),
    "30% or 96%, 1 in 10 at 30%": (partial(two_ends, low=0.1), 89.4),
}


def row(hits: int, seed: int = 0, **more: object) -> Row:
    """A measurement on `ROWS` triggered rows."""
    named = {"data": "d", "attack": "a", "victim": "v", "train_attack": "a", "defense": "none"}
    return Row(
        **{**named, **more},
        seed=seed,
        asr=100 * hits / ROWS,
        asr_hits=hits,
        asr_n=ROWS,
        cacc=90.0,
        cacc_hits=90,
        cacc_n=100,
    )


def printed(line, header: str) -> tuple[float, float]:
    """Read the ends of an interval as the table writes them, behind the column named."""
    columns = columns_for([line])
    at = next(i for i, column in enumerate(columns) if column.header == header)
    assert columns[at + 1].header == "95%"
    low, high = re.fullmatch(
        r"([+-]?[\d.]+)(?:-| to )([+-]?[\d.]+)[*~]?", columns[at + 1].text(line)
    ).groups()
    return float(low), float(high)


def coverage(truth: float, ends: Iterator[tuple[float, float]]) -> float:
    """Return how often the truth lies within, in percent, ends as printed to one decimal."""
    return 100 * float(np.mean([low - 0.05 <= truth <= high + 0.05 for low, high in ends]))


def drawn(case: str, seeds: int) -> tuple[float, np.ndarray]:
    draw, truth = CASES[case]
    rng = np.random.default_rng(seeds)
    return truth, rng.binomial(ROWS, draw(rng, (DRAWS, seeds)))


@lru_cache
def of_table(case: str, seeds: int) -> float:
    truth, hits = drawn(case, seeds)
    lines = (aggregate([row(h, s) for s, h in enumerate(one)])[0] for one in hits.tolist())
    return coverage(truth, (printed(line, "ASR") for line in lines))


def of_pooled(case: str, seeds: int) -> float:
    truth, hits = drawn(case, seeds)
    return coverage(truth, (Rate(sum(one), len(one) * ROWS).interval for one in hits.tolist()))


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("case", list(CASES)[:5])
def test_the_printed_interval_holds_the_truth(case, seeds):
    assert 90 <= of_table(case, seeds) <= 99


def test_trainings_of_two_ends_need_five_seeds():
    half, third, tenth = list(CASES)[5:]
    assert of_table(half, 5) >= 80
    assert of_table(third, 5) >= 80
    # Seeds that all end at one of the two know nothing of the other, whatever is made of them:
    # three seeds do so in 0.7**3 + 0.3**3 = 37% of studies, ten in 3%.
    assert of_table(third, 3) == pytest.approx(100 * (1 - 0.7**3 - 0.3**3), abs=3)
    assert of_table(third, 10) >= 90
    assert of_table(tenth, 5) < 50


def test_pooled_counts_do_not():
    """Why counts of seeds are not pooled: one binomial is far too sure where trainings differ."""
    spread_out, two = list(CASES)[3:5], list(CASES)[5:]
    for seeds in (3, 5):
        assert all(of_pooled(case, seeds) < 50 for case in spread_out)
        assert all(of_pooled(case, seeds) < 40 for case in two)


def test_the_docs_have_these_numbers():
    text = Path(__file__).parents[2].joinpath("docs", "intervals.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| ([^|]+?) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert [name for name, *_ in found] == list(CASES)
    for name, *told in found:
        measured = of_table(name, 3), of_table(name, 5), of_pooled(name, 5)
        assert list(map(int, told)) == pytest.approx(measured, abs=1.0), name


def test_seeds_of_the_same_rows_speak_of_these_rows():
    """Trainings that agree on nearly every row say little of others, as the docs tell."""
    rng = np.random.default_rng(1)
    of_rows, ends = [], []
    for _ in range(600):
        shares = rng.beta(0.2, 0.2, ROWS)  # of each row, over all trainings; 50% over all rows
        hits = rng.binomial(1, shares, (5, ROWS)).sum(axis=1)
        of_rows.append(100 * shares.mean())
        line = aggregate([row(h, s) for s, h in enumerate(hits.tolist())])[0]
        ends.append(printed(line, "ASR"))
    held = [coverage(truth, iter([own])) for truth, own in zip(of_rows, ends, strict=True)]
    assert 90 <= np.mean(held) <= 99
    assert coverage(50.0, iter(ends)) == pytest.approx(52, abs=4)


def test_differences_and_excesses_hold_the_truth():
    """Seeds do the same to both sides, by 10 points; a defense is 20 points lower, by 3."""
    rng = np.random.default_rng(0)
    shape = (600, 5)
    floors = np.clip(rng.normal(0.10, 0.03, shape), 0, 1)
    common = rng.normal(0.5, 0.10, shape)
    first, second = common + 0.2 + rng.normal(0, 0.03, shape), common
    hits = rng.binomial(ROWS, np.clip([first, second, floors], 0, 1))
    ends: dict[str, list[tuple[float, float]]] = {"ΔASR": [], "excess": [], "unpaired": []}
    for one, other, floor in hits.transpose(1, 0, 2).tolist():
        suspects = [row(h, s, defense="TIES") for s, h in enumerate(one)]
        suspects += [row(h, s, defense="WAG") for s, h in enumerate(other)]
        benign = {"victim": "benign", "train_attack": "none", "benign": True}
        own = fill_baselines([*suspects, *(row(h, s, **benign) for s, h in enumerate(floor))])
        others = fill_baselines(
            [*suspects, *(row(h, s + 9, **benign) for s, h in enumerate(floor))]
        )
        paired = compare_table(own, where=["defense=TIES"], against="WAG")[0]
        unpaired = compare_table(others, where=["defense=TIES"])[0]
        assert (paired.excess_interval.over, paired.against.asr.interval.over) == ("seeds",) * 2
        assert unpaired.excess_interval.over == "unpaired seeds"
        ends["ΔASR"].append(printed(paired, "ΔASR"))
        ends["excess"].append(printed(paired, "excess"))
        ends["unpaired"].append(printed(unpaired, "excess"))
    for name, truth in {"ΔASR": 20.0, "excess": 60.0, "unpaired": 60.0}.items():
        assert 90 <= coverage(truth, iter(ends[name])) <= 99, name
    # Pairing takes out what seeds do to both sides: the two lines' own intervals are far wider.
    width = np.mean([high - low for low, high in ends["ΔASR"]])
    assert width < np.mean([high - low for low, high in ends["excess"]]) / 2


def test_an_interval_holds_its_ends():
    interval = Interval(-1.0, 0.0, "seeds")
    assert interval.holds(0.0)
    assert interval.holds(-1.0)
    assert not interval.holds(0.1)
    assert not interval.holds(-inf)
