"""What a measured rate leaves open: 95% intervals over rows, over seeds, and of differences.

Counts of several seeds are never pooled. Seeds share their rows and their trainings differ, so one
binomial over all of them claims far more than was seen. Where there are several seeds, the interval
is of their mean, by how far they are apart; where there is one, only its rows can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import hypot, sqrt
from statistics import fmean, stdev
from typing import Literal, TypeAlias

from bdlit.types import Rate

Over: TypeAlias = Literal["seeds", "rows only", "unpaired seeds"]
"""What an interval takes into account: how trainings differ; nothing but the choice of rows; or
how trainings differ on both sides of a difference, where no seed has both sides."""

Paired: TypeAlias = tuple[Rate, *tuple[Rate, ...]]
"""A rate of one seed, and the rates of that seed whose mean is subtracted from it."""

_QUANTILE = 0.975  # of 95% intervals, which leave as much on both sides
_SAME = 1e-9  # points: differences of percentages that are equal differ by rounding


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95% interval of a rate, or of a difference of two.

    Attributes:
        low: Its lower end: of a rate in percent, in [0, 100]; of a difference in points, in
            [-100, 100].
        high: Its upper end.
        over: What it takes into account.
    """

    low: float
    high: float
    over: Over

    @property
    def width(self) -> float:
        """How much it leaves open, in points."""
        return self.high - self.low

    def holds(self, value: float) -> bool:
        """Whether a value lies in it, ends included.

        >>> Interval(-1.0, 2.0, "seeds").holds(0.0)
        True
        """
        return self.low <= value <= self.high


def rate_interval(seeds: Iterable[Rate]) -> Interval | None:
    """Return the 95% interval of the mean rate over seeds.

    Of several seeds it is a t interval over their percentages, cut to [0, 100]. Of one seed it is
    Wilson's on its counts. Where all seeds have the same percentage, a t interval has no width, so
    it is Wilson's as well: the widest of the seeds' own.

    Args:
        seeds: The rate of each seed; those over no rows are left out.

    Returns:
        The interval in percent, within [0, 100]; None if nothing was measured.

    >>> rate_interval([Rate(1, 2)]).over, rate_interval([Rate(1, 4), Rate(2, 4)]).over
    ('rows only', 'seeds')
    """
    rates = [rate for rate in seeds if rate.n]
    values = [rate.percent for rate in rates]
    if not _same(values):
        low, high = t_interval(values)
        return Interval(max(0.0, low), min(100.0, high), "seeds")
    return _widest(Interval(*rate.interval, "rows only") for rate in rates)


def difference_interval(pairs: Iterable[Paired]) -> Interval | None:
    """Return the 95% interval of the mean difference of rates that are paired by seed.

    Of several seeds it is a t interval over their differences, so what a seed does to both sides
    cancels out. Of one seed, and where all seeds have the same difference, it is `newcombe`'s.

    Args:
        pairs: The rates of each seed; a seed with a rate over no rows is left out.

    Returns:
        The interval of first minus second in points, within [-100, 100]; None without pairs.
    """
    known = [pair for pair in pairs if all(rate.n for rate in pair)]
    values = [first.percent - _mean(second) for first, *second in known]
    if not _same(values):
        low, high = t_interval(values)
        return _cut(low, high, "seeds")
    return _widest(Interval(*newcombe(*pair), "rows only") for pair in known)


def unpaired_interval(
    first: Sequence[Rate], second: Sequence[Rate], difference: float
) -> Interval | None:
    """Return the 95% interval of a difference of two means whose seeds cannot be paired.

    The intervals of both sides are put together as in `newcombe`, which this is where either side
    has one seed. A side of one seed adds what its rows leave open, and nothing of its training.

    Reference: Zou and Donner 2008, "Construction of confidence limits about effect measures: a
    general approach".

    Args:
        first: The rates of the seeds on one side.
        second: The rates of the seeds on the other.
        difference: The estimate, in points: the mean of the first minus that of the second.

    Returns:
        The interval in points, within [-100, 100]; None if a side was not measured.
    """
    one, other = rate_interval(first), rate_interval(second)
    if one is None or other is None:
        return None
    mean, subtracted = _mean(first), _mean(second)
    below = hypot(mean - one.low, other.high - subtracted)
    above = hypot(one.high - mean, subtracted - other.low)
    over: Over = "rows only" if one.over == other.over == "rows only" else "unpaired seeds"
    return _cut(difference - below, difference + above, over)


def newcombe(first: Rate, *second: Rate) -> tuple[float, float]:
    """Return Newcombe's hybrid score interval of a difference of two rates, 95%, in points.

    It takes the rates as independent. Two models that are measured on the same rows mostly err on
    the same ones, but records keep counts and no rows: then it is wider than it had to be.

    Reference: Newcombe 1998, "Interval estimation for the difference between independent
    proportions: comparison of eleven methods", method 10.

    Args:
        first: The rate that is subtracted from, over at least one row.
        second: The rate that is subtracted, over at least one row. Of several, such as those of
            two benign models on the same rows, it is the mean, as uncertain as the least certain.
    """
    low, high = first.interval
    down = max(rate.percent - rate.interval[0] for rate in second)
    up = max(rate.interval[1] - rate.percent for rate in second)
    difference = first.percent - _mean(second)
    below, above = hypot(first.percent - low, up), hypot(high - first.percent, down)
    return difference - below, difference + above


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return Student's 95% interval of the mean that values were drawn around.

    Args:
        values: At least two.

    >>> [round(end, 2) for end in t_interval([10.0, 20.0, 60.0])]
    [-35.72, 95.72]
    """
    half = t_quantile(len(values) - 1) * stdev(values) / sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


@lru_cache
def t_quantile(freedom: int) -> float:
    """Return the 0.975 quantile of Student's t, which a 95% interval reaches to on both sides.

    Args:
        freedom: Degrees of freedom, at least 1.

    >>> round(t_quantile(2), 4)
    4.3027
    """
    from scipy.special import stdtrit  # late: tables of single seeds need no numpy

    return float(stdtrit(freedom, _QUANTILE))


def _same(values: Sequence[float]) -> bool:
    """Whether values do not differ, or there are too few to tell."""
    return len(values) < 2 or max(values) - min(values) < _SAME


def _mean(rates: Iterable[Rate]) -> float:
    return fmean(rate.percent for rate in rates)


def _cut(low: float, high: float, over: Over) -> Interval:
    """Cut an interval of a difference to what a difference of percentages can be."""
    return Interval(max(-100.0, low), min(100.0, high), over)


def _widest(intervals: Iterable[Interval]) -> Interval | None:
    return max(intervals, key=lambda interval: interval.width, default=None)
