"""Keeping the largest entries of a task vector, by an exact threshold over any number of tensors.

A model's task vector need not fit in memory. The k-th largest magnitude is found in two passes
over its tensors: magnitudes seen as unsigned integers have the order of the floats, so one
histogram of their upper 16 bits finds the bin, and one of the lower 16 bits inside that bin
finds the value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import hardshrink

from bdlit.merging.settings import Trim, require_choice, require_density
from bdlit.weights import Elementwise, outline
from bdlit.weights.reading import in_pieces

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights import Read

_LOW = 16  # bits of the second histogram; the first has the rest, less the sign


class Threshold(NamedTuple):
    """The smallest magnitude that is kept, and how many entries reach it."""

    value: float
    kept: int


def trim_smallest(vector: Weights, density: float, *, scope: Trim = "model") -> Elementwise:
    """Return a task vector with all but its largest entries set to zero.

    The k-th largest magnitude is the threshold, k = round(density * entries) and at least 1, and
    every entry that reaches it stays. Where magnitudes are equal at the threshold more than k
    stay: the choice among equals would otherwise depend on the order of the tensors.

    Args:
        vector: Task vector, in float32 or float64; magnitudes are compared in float32.
        density: Share of entries kept, in (0, 1].
        scope: Whether the largest are sought in the whole `model` or in each `tensor`.

    Returns:
        The trimmed vector; its notes say the share `kept` and, for the whole model, the
        `threshold`.

    Raises:
        BdlitError: The density is out of range, or the scope unknown.

    >>> trimmed = trim_smallest({"a": torch.tensor([1.0, -4.0]), "b": torch.tensor([2.0, 3.0])}, .5)
    >>> trimmed["a"], trimmed["b"], trimmed.notes
    (tensor([ 0., -4.]), tensor([0., 3.]), {'kept': 0.5, 'threshold': 3.0})
    """
    require_density(density)
    require_choice("trim", scope, Trim)
    sizes = {name: outline(vector, name).entries for name in vector}
    names = [name for name, size in sizes.items() if size]
    groups = [names] if scope == "model" else [[name] for name in names]
    thresholds: dict[str, float] = {}
    kept = 0
    for group in filter(None, groups):
        count = max(1, round(density * sum(sizes[name] for name in group)))
        found = magnitude_threshold(vector, group, count)
        thresholds |= dict.fromkeys(group, found.value)
        kept += found.kept
    notes = {"kept": kept / max(1, sum(sizes.values()))}
    if scope == "model" and names:
        notes["threshold"] = thresholds[names[0]]

    # Hardshrink zeroes |x| <= bar in one pass, and a NaN stays, to be seen in the result.
    bars = {name: _next_below(value) for name, value in thresholds.items()}

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
    upper = _histogram((b >> _LOW for b in _bits(vector, names)), 31 - _LOW)
    high, above = _bin_of(upper, count)
    lower = _histogram((_inside(b, high) for b in _bits(vector, names)), _LOW)
    low, above_low = _bin_of(lower, count - above)
    bits = torch.tensor((high << _LOW) | low, dtype=torch.int32)
    return Threshold(bits.view(torch.float32).item(), above + above_low + int(lower[low]))


def _next_below(value: float) -> float:
    """Return the largest float32 below a positive one; zero for zero."""
    return torch.nextafter(torch.tensor(value), torch.tensor(0.0)).item()


def _bits(vector: Weights, names: Iterable[str]) -> Iterator[Int[Tensor, " entries"]]:
    """Yield the magnitudes as integers of the same order, a cacheful at a time."""
    for name in names:
        for piece in in_pieces(vector, name):
            yield piece.abs().to(torch.float32).view(torch.int32)


def _inside(bits: Int[Tensor, " entries"], high: int) -> Int[Tensor, " some"]:
    return bits[bits >> _LOW == high] & ((1 << _LOW) - 1)


def _histogram(chunks: Iterable[Int[Tensor, " entries"]], width: int) -> Int[Tensor, " bins"]:
    bins = 1 << width
    counts = (torch.bincount(chunk, minlength=bins).cpu() for chunk in chunks)
    return sum(counts, start=torch.zeros(bins, dtype=torch.int64))


def _bin_of(histogram: Int[Tensor, " bins"], count: int) -> tuple[int, int]:
    """Return the bin of the `count`-th largest value, and how many values lie in bins above."""
    from_top = histogram.flip(0).cumsum(0)
    position = int(torch.searchsorted(from_top, count))
    found = len(histogram) - 1 - position
    return found, int(from_top[position] - histogram[found])
