"""Batches of rows: loaders that leave the making of tensors to the victim."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from bdlit.data.buckets import BucketSampler
from bdlit.types import Example

EXPECTED_WARNINGS = (
    # Batches are lists of rows that are in memory already; workers would only copy them about.
    ".*does not have many workers.*",
    # It is the victim that makes tensors of a batch, whatever data module it came from.
    ".*overridden `(on_before_batch_transfer|transfer_batch_to_device)` in `LightningModule`.*",
    # No validation split is a way to train, not an oversight.
    ".*Total length of `list` across ranks is zero.*",
    ".*defined a `validation_step` but have no `val_dataloader`.*",
    # Lightning's own affair with torch.
    ".*treespec, LeafSpec.*",
)
"""Warnings of Lightning that do not apply to these modules."""

for _message in EXPECTED_WARNINGS:
    warnings.filterwarnings("ignore", _message)


class RowDataset(Dataset[Example]):
    """Rows as a dataset: an index gives a row, a list of indices a batch."""

    def __init__(self, rows: Sequence[Example]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | list[int]) -> Any:
        return self.rows[index] if isinstance(index, int) else [self.rows[i] for i in index]


def training_loader(rows: list[Example], batch_size: int, seed: int) -> DataLoader[Example]:
    """Return the training batches: `batch_size` rows over all processes, in buckets."""
    sampler = BucketSampler(rows, batch_size, shuffle=True, seed=seed)
    return loader(rows, sampler=sampler, batch_size=None)


def evaluation_loaders(
    sets: Mapping[str, list[Example]], batch_size: int
) -> dict[str, DataLoader[Example]]:
    """Return the batches of each set, in buckets, every row once."""
    return {
        name: loader(rows, sampler=BucketSampler(rows, batch_size, shuffle=False), batch_size=None)
        for name, rows in sets.items()
    }


def loader(rows: list[Example], **options: Any) -> DataLoader[Example]:
    """Return the batches of rows; the options are those of torch's loader."""
    # A generator of its own: iterating over test rows must not shift the random numbers of
    # dropout, or what is evaluated would change what is trained.
    return DataLoader(RowDataset(rows), collate_fn=_as_is, generator=torch.Generator(), **options)


def _as_is(batch: Any) -> Any:
    return batch
