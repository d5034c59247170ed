"""Batches of rows of similar length: less padding, and the same ones on any number of GPUs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import DistributedSampler

from bdlit.errors import BdlitError
from bdlit.ranks import place
from bdlit.types import Example

MEGA = 64  # batches sorted together: enough for little padding, few enough to stay random


class BucketSampler(DistributedSampler[list[int]]):
    """Yields lists of row indices, one list a batch, for `DataLoader(..., batch_size=None)`.

    For training, each epoch is a seeded permutation, cut into runs of 64 batches; a run is
    sorted by length and cut into batches, and the batches are shuffled. Every process gets its
    share of *every* batch, so an optimizer step sees the same rows on one GPU as on many. A last
    batch of fewer rows than a quarter of a batch, or than there are processes, joins another.

    For evaluation, rows are sorted by length and whole batches are dealt out in turn: no row is
    padded on or repeated, so counts are exact, and since every batch is the same one on any
    number of processes, so are the floating-point results. (Only where there are fewer batches
    than processes are they made smaller, so that no process stands idle.)

    It is a `DistributedSampler` so that Lightning leaves it in place and calls `set_epoch`. The
    number of processes and the rank are read when they are needed, not at construction.

    Args:
        rows: The rows; the number of characters stands for the number of tokens, since the
            batches are made before any tokenizer is known. Responses count in training only: at
            evaluation the model writes its own.
        batch_size: Rows per batch, over all processes together when training; at least 1.
        shuffle: Whether to make training batches; otherwise evaluation batches.
        seed: Seed of the permutations.

    Raises:
        BdlitError: `batch_size` is below 1; when iterating, a training batch is smaller than
            the number of processes.

    >>> rows = [Example("a" * length, 0) for length in (5, 1, 4, 2, 3)]
    >>> list(BucketSampler(rows, 2, shuffle=False))
    [[1, 3], [4, 2], [0]]
    """

    def __init__(
        self, rows: Sequence[Example], batch_size: int, *, shuffle: bool, seed: int = 0
    ) -> None:
        # The parent's constructor would ask for the process group, which may not exist yet.
        if batch_size < 1:
            raise BdlitError(f"batch size {batch_size} is out of range: give at least 1")
        self.lengths = [_characters(row, responses=shuffle) for row in rows]
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        # Nothing is made before it is asked for: a fit that is resumed takes the iterator first,
        # and sets the epoch afterwards.
        rank, world = place()
        if not self.shuffle:
            yield from self._eval_batches(world)[rank::world]
            return
        batches = self._train_batches(world)
        if batches and min(map(len, batches)) < world:
            raise BdlitError(
                f"a batch of {min(map(len, batches))} rows cannot be shared by {world} processes: "
                "raise batch_size or use fewer processes"
            )
        yield from (batch[rank::world] for batch in batches)

    def __len__(self) -> int:
        rank, world = place()
        if self.shuffle:
            return len(self._sizes(world))
        return len(range(rank, -(-len(self.lengths) // self._eval_size(world)), world))

    def _train_batches(self, world: int) -> list[list[int]]:
        # A string seeds well: seed 0 in epoch 1 is not seed 1 in epoch 0.
        rng = random.Random(f"batches {self.seed} {self.epoch}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        run = MEGA * self.batch_size
        by_length = [
            row
            for start in range(0, len(order), run)
            for row in sorted(order[start : start + run], key=self.lengths.__getitem__)
        ]
        batches, start = [], 0
        for size in self._sizes(world):
            batches.append(by_length[start : start + size])
            start += size
        rng.shuffle(batches)
        return batches

    def _sizes(self, world: int) -> list[int]:
        full, rest = divmod(len(self.lengths), self.batch_size)
        sizes = [self.batch_size] * full
        if full and rest < max(self.batch_size // 4, world):
            sizes[-1] += rest
        elif rest:
            sizes.append(rest)
        return sizes

    def _eval_batches(self, world: int) -> list[list[int]]:
        by_length = sorted(range(len(self.lengths)), key=self.lengths.__getitem__)
        size = self._eval_size(world)
        return [by_length[start : start + size] for start in range(0, len(by_length), size)]

    def _eval_size(self, world: int) -> int:
        rows = len(self.lengths)
        if rows > self.batch_size * (world - 1):
            return self.batch_size
        return max(1, rows // world)


def _characters(row: Example, *, responses: bool) -> int:
    texts = [row.text, row.text_pair or "", *(turn.text for turn in row.history)]
    return sum(map(len, texts)) + (len(row.response or "") if responses else 0)
