"""Rates, against hand-worked numbers and scipy's own Wilson interval."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdlit.types import Example, Rate

counts = st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_percent_by_hand() -> None:
    assert Rate(3, 8).percent == 37.5
    assert Rate(0, 5).percent == 0.0
    assert Rate(5, 5).percent == 100.0


def test_no_rows_mean_no_knowledge() -> None:
    assert math.isnan(Rate(0, 0).percent)
    assert Rate(0, 0).interval == (0.0, 100.0)


def test_interval_by_hand() -> None:
    # 1 of 2: the middle stays 1/2, the half width is z/(1+z²/2)·sqrt(1/8 + z²/16).
    z = 1.959963984540054
    half = z / (1 + z**2 / 2) * math.sqrt(1 / 8 + z**2 / 16)
    assert Rate(1, 2).interval == pytest.approx((50 - 100 * half, 50 + 100 * half))


@settings(deadline=None)
@given(counts)
def test_interval_is_scipys_wilson_interval(pair: tuple[int, int]) -> None:
    stats = pytest.importorskip("scipy.stats")
    hits, n = pair
    theirs = stats.binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert Rate(hits, n).interval == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1e-9)


@settings(deadline=None)
@given(counts)
def test_interval_holds_the_rate_and_mirrors(pair: tuple[int, int]) -> None:
    hits, n = pair
    low, high = Rate(hits, n).interval
    assert 0 <= low <= Rate(hits, n).percent + 1e-9
    assert Rate(hits, n).percent - 1e-9 <= high <= 100
    misses = Rate(n - hits, n).interval
    assert misses == pytest.approx((100 - high, 100 - low), abs=1e-9)


@settings(deadline=None)
@given(counts, counts)
def test_sums_pool_counts(a: tuple[int, int], b: tuple[int, int]) -> None:
    assert Rate(*a) + Rate(*b) == Rate(a[0] + b[0], a[1] + b[1])


def test_true_label_is_the_one_before_the_attack() -> None:
    assert Example("fine", 1).true_label == 1
    assert Example("cf fine", 0, poisoned=True, orig_label=1).true_label == 1
    assert Example("cf fine", 1, poisoned=True, orig_label=0).true_label == 0
