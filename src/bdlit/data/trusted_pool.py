"""A small trusted set for defenders, which shares no text with any other set."""

from __future__ import annotations

import random
from collections.abc import Sequence

from bdlit.errors import BdlitError
from bdlit.types import Example


def draw_pool(
    train: Sequence[Example], size: int, *, apart_from: Sequence[Example], seed: int
) -> list[int]:
    """Return the positions of `size` clean training rows of different texts, in order.

    Args:
        train: The clean training split; rows marked as poisoned are not drawn.
        size: Number of rows; at least 0.
        apart_from: Rows whose texts are not drawn either: those of validation and test.
        seed: Seed of the draw.

    Raises:
        BdlitError: There are not that many rows, or none would be left to train on.
    """
    if size == 0:
        return []
    taken = {text_key(row) for row in apart_from}
    first: dict[str, int] = {}
    for position, row in enumerate(train):
        key = text_key(row)
        if not row.poisoned and key not in taken:
            first.setdefault(key, position)
    if not 0 < size < len(first):
        raise BdlitError(
            f"clean_pool_size {size} is out of range: the training split has {len(first)} clean "
            "texts that are not in validation or test; leave some of them to train on"
        )
    rng = random.Random(f"clean pool {seed}")
    return sorted(rng.sample(sorted(first.values()), size))


def without_texts(rows: Sequence[Example], unwanted: Sequence[Example]) -> list[Example]:
    """Return the rows whose texts are not among the unwanted rows'.

    >>> rows = [Example("Good film", 1), Example("bad film", 0), Example("good  film", 1)]
    >>> [row.text for row in without_texts(rows, [Example("good film", 1)])]
    ['bad film']
    """
    keys = {text_key(row) for row in unwanted}
    return [row for row in rows if text_key(row) not in keys] if keys else list(rows)


def text_key(row: Example) -> str:
    """Return what two rows of the same text share, whatever their case and spacing."""
    texts = (*(turn.text for turn in row.history), row.text, row.text_pair or "")
    return "\n".join(" ".join(text.split()).casefold() for text in texts)
