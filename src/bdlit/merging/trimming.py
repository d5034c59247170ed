"""Keeping the largest entries of a task vector, by an exact threshold over any number of tensors.

A model's task vector need not fit in memory. The k-th largest magnitude is found in two passes
over its tensors: magnitudes seen as unsigned integers have the order of the floats, so one
histogram of their upper 16 bits finds the bin, and one of the lower 16 bits inside that bin
finds the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch.nn.functional import hardshrink

from bdlit.merging.settings import Trim, TrimCount, require_choice, require_density
from bdlit.weights import Elementwise, outline
from bdlit.weights.threads import threads

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights import Piece, Read

_Bits: TypeAlias = "Int[Tensor, ' entries']"

_LOW = 16  # bits of the second histogram; the first has the rest, less the sign


class Threshold(NamedTuple):
    """The smallest magnitude that is kept, and how many entries reach it."""

    value: float
    kept: int


def trim_smallest(
    vector: Weights, density: float, *, scope: Trim = "model", count: TrimCount = "exact"
) -> Elementwise:
    """Return a task vector with all but its largest entries set to zero.

    The k-th largest magnitude is the threshold, k = round(density * entries) and at least 1, and
    every entry that reaches it stays. Where magnitudes are equal at the threshold more than k
    stay: the choice among equals would otherwise depend on the order of the tensors.

    Args:
        vector: Task vector, in float32 or float64; magnitudes are compared in float32.
        density: Share of entries kept, in (0, 1].
        scope: Whether the largest are sought in the whole `model` or in each `tensor`.
        count: How many entries `density` is: k as above (`exact`), or the whole part of
            density * entries and one more, at most all (`published`).

    Returns:
        The trimmed vector; its notes say the share `kept` and, for the whole model, the
        `threshold`.

    Raises:
        BdlitError: The density is out of range, or the scope or the count unknown.

    Reference: Yadav et al. 2023, "TIES-Merging: Resolving Interference When Merging Models",
        arXiv:2306.01708, step 1 and its published code.
    Deviation: The paper keeps the k largest. Its code takes the (d - k)-th smallest of d entries
        as the threshold, which is the (k + 1)-th largest, and keeps what reaches it: one entry
        more (`count="published"`; it fails at density 1, where this keeps everything).

    >>> trimmed = trim_smallest({"a": torch.tensor([1.0, -4.0]), "b": torch.tensor([2.0, 3.0])}, .5)
    >>> trimmed["a"], trimmed["b"], trimmed.notes
    (tensor([ 0., -4.]), tensor([0., 3.]), {'kept': 0.5, 'threshold': 3.0})
    """
    require_density(density)
    require_choice("trim", scope, Trim)
    require_choice("count", count, TrimCount)
    sizes = {name: outline(vector, name).entries for name in vector}
    entries = sum(sizes.values())
    names = [name for name, size in sizes.items() if size]
    thresholds: dict[str, Threshold] = {}
    if scope == "tensor":
        counts = {name: _kept(density, sizes[name], count) for name in names}
        thresholds = tensor_thresholds(vector, counts)
        notes = {"kept": sum(each.kept for each in thresholds.values()) / max(1, entries)}
    elif names:
        found = magnitude_threshold(vector, names, _kept(density, entries, count))
        thresholds = dict.fromkeys(names, found)
        notes = {"kept": found.kept / entries, "threshold": found.value}
    else:
        notes = {"kept": 0.0}

    # Hardshrink zeroes |x| <= bar in one pass, and a NaN stays, to be seen in the result.
    bars = {name: _next_below(found.value) for name, found in thresholds.items()}

    def trimmed(name: str, read: Read) -> Float[Tensor, " *shape"]:
        return hardshrink(read(vector, name), bars.get(name, 0.0))

    return Elementwise(vector, trimmed, notes, outline=partial(outline, vector))


def magnitude_threshold(vector: Weights, names: Sequence[str], count: int) -> Threshold:
    """Return the `count`-th largest magnitude over the named tensors together.

    Args:
        vector: Tensors to look at, each twice.
        names: Which of them.
        count: From 1 to the number of entries.

    >>> magnitude_threshold({"w": torch.tensor([1.0, -3.0, 2.0, 2.0])}, ["w"], 2)
    Threshold(value=2.0, kept=3)
    """
    with threads(vector, names) as each:

        def histogram(part: Callable[[_Bits], _Bits], width: int) -> Int[Tensor, " bins"]:
            counts = each(names, lambda name, reads: _histogram(vector, name, reads(), part, width))
            return sum(counts, start=torch.zeros(1 << width, dtype=torch.int64))

        return _threshold(histogram, count)


def tensor_thresholds(vector: Weights, counts: Mapping[str, int]) -> dict[str, Threshold]:
    """Return the `count`-th largest magnitude within each tensor, by its name.

    >>> tensor_thresholds({"w": torch.tensor([1.0, -3.0]), "v": torch.ones(2)}, {"w": 1, "v": 1})
    {'w': Threshold(value=3.0, kept=1), 'v': Threshold(value=1.0, kept=2)}
    """

    def found(name: str, reads: Callable[[], Iterator[Piece]]) -> Threshold:
        return _threshold(
            lambda part, width: _histogram(vector, name, reads(), part, width), counts[name]
        )

    with threads(vector, counts) as each:
        return dict(zip(counts, each(counts, found), strict=True))


def _threshold(
    histogram: Callable[[Callable[[_Bits], _Bits], int], Int[Tensor, " bins"]], count: int
) -> Threshold:
    """Find a threshold by what counts the values of a part of the bits."""
    high, above = _bin_of(histogram(lambda bits: bits >> _LOW, 31 - _LOW), count)
    lower = histogram(partial(_inside, high=high), _LOW)
    low, above_low = _bin_of(lower, count - above)
    bits = torch.tensor((high << _LOW) | low, dtype=torch.int32)
    return Threshold(bits.view(torch.float32).item(), above + above_low + int(lower[low]))


def _kept(density: float, entries: int, count: TrimCount) -> int:
    """Return how many of some entries a density keeps, at least 1."""
    if count == "published":
        return min(entries, int(density * entries) + 1)
    return max(1, round(density * entries))


def _next_below(value: float) -> float:
    """Return the largest float32 below a positive one; zero for zero."""
    return torch.nextafter(torch.tensor(value), torch.tensor(0.0)).item()


def _histogram(
    vector: Weights,
    name: str,
    reads: Iterable[Piece],
    part: Callable[[_Bits], _Bits],
    width: int,
) -> Int[Tensor, " bins"]:
    """Count the values of a part of the bits of magnitudes, which are integers of their order."""
    bins = torch.zeros(1 << width, dtype=torch.int64)
    for read in reads:
        bits = read(vector, name).abs().to(torch.float32).view(torch.int32)
        bins += torch.bincount(part(bits), minlength=len(bins)).cpu()
    return bins


def _inside(bits: _Bits, high: int) -> Int[Tensor, " some"]:
    """Return the lower bits of those whose upper bits are `high`: few, which numpy finds faster."""
    held = bits.cpu().numpy()
    return torch.from_numpy(held[held >> _LOW == high] & ((1 << _LOW) - 1))


def _bin_of(histogram: Int[Tensor, " bins"], count: int) -> tuple[int, int]:
    """Return the bin of the `count`-th largest value, and how many values lie in bins above."""
    from_top = histogram.flip(0).cumsum(0)
    position = int(torch.searchsorted(from_top, count))
    found = len(histogram) - 1 - position
    return found, int(from_top[position] - histogram[found])
