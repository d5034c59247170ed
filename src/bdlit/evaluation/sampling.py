"""Which prompts of a test set are kept as samples: the same ones on any number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from heapq import nsmallest

from bdlit.ranks import gathered
from bdlit.tables import rows_hash
from bdlit.types import Example, Sample


def draw(answered: Iterable[tuple[Example, Sample]], size: int, seed: int) -> tuple[Sample, ...]:
    """Draw samples from the rows of all processes, without replacement; all have to call this.

    Each row has a number that follows from the seed and its content, and those of the smallest
    numbers are drawn: whatever the order and the batches, and whichever process has seen them.
    Equal rows are one.

    Args:
        answered: The rows that this process has seen, each with its sample.
        size: How many to draw.
        seed: Seed of the numbers.
    """
    numbered = {
        hashlib.sha256(f"{seed} {rows_hash([row])}".encode()).hexdigest(): sample
        for row, sample in answered
    }
    own = {number: numbered[number] for number in nsmallest(size, numbered)}
    every = {number: sample for share in gathered(own) for number, sample in share.items()}
    return tuple(every[number] for number in nsmallest(size, every))
