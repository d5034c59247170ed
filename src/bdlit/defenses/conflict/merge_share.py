"""How much of another model to take, chosen on clean rows that were held out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from bdlit.errors import BdlitError
from bdlit.rules import Equals
from bdlit.types import Example, Rate, Weights

if TYPE_CHECKING:
    from bdlit.victims.base import Victim

_HELD = 5  # every fifth row is held back
_BATCH = 32


def hold_back(rows: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Return the rows to train on, and a fifth of them, drawn at random, to choose by.

    Raises:
        BdlitError: There are fewer than five rows.

    >>> train, held = hold_back([Example(text, 0) for text in "abcdefghij"], seed=0)
    >>> len(train), len(held)
    (8, 2)
    """
    if len(rows) < _HELD:
        raise BdlitError(
            f"{len(rows)} clean rows are too few to hold some back: give at least {_HELD}, "
            "or one share in place of several"
        )
    drawn = random.Random(f"held back {seed}").sample(range(len(rows)), len(rows) // _HELD)
    held = set(drawn)
    return (
        [row for i, row in enumerate(rows) if i not in held],
        [row for i, row in enumerate(rows) if i in held],
    )


def accuracy(victim: Victim, weights: Weights, rows: Sequence[Example]) -> Rate:
    """Return how many rows a model answers as they want, each process on its own."""
    from bdlit.weights.network import in_eval_mode, swapped

    model = victim.network()
    hits = 0
    with swapped(model, weights), in_eval_mode(model), torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            hits += int(victim.judge(rows[start : start + _BATCH], Equals()).sum())
    return Rate(hits, len(rows))


def largest_harmless(
    shares: Sequence[float], measure: Callable[[float], Rate], slack: float
) -> tuple[float, dict[str, Rate]]:
    """Return the largest share whose accuracy is close to the best, and what each share measured.

    Of models that do the task as well, the one farthest from the suspect keeps least of it.

    Args:
        shares: Shares of the other model, in [0, 1], at least one.
        measure: Accuracy on clean rows of the merge with a share.
        slack: How far below the best is close, in percentage points.

    >>> found = {0.2: Rate(19, 20), 0.5: Rate(18, 20), 0.8: Rate(10, 20)}
    >>> largest_harmless([0.2, 0.5, 0.8], found.__getitem__, slack=5.0)[0]
    0.5
    """
    found = {share: measure(share) for share in sorted(shares)}
    best = max(rate.percent for rate in found.values())
    close = [share for share, rate in found.items() if rate.percent >= best - slack]
    return max(close), {f"{share:g}": rate for share, rate in found.items()}
