"""Which process of a group this is, and how to work without the group for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")

_ALONE = ContextVar("alone", default=False)


def place() -> tuple[int, int]:
    """Return this process's rank and the number of processes that work together.

    >>> place()
    (0, 1)
    """
    if dist.is_available() and dist.is_initialized() and not _ALONE.get():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gathered(own: T) -> list[T]:
    """Return what every process has of something, in the order of their ranks; all call this.

    >>> gathered("mine")
    ['mine']
    """
    world = place()[1]
    if world == 1:
        return [own]
    found: list[T] = [own] * world
    dist.all_gather_object(found, own)
    return found


def shared(value: T) -> T:
    """Return what the first process has of something; all call this.

    >>> shared("mine")
    'mine'
    """
    return gathered(value)[0]


def wait_for_all() -> None:
    """Wait until every process of the group has come here."""
    if place()[1] > 1:
        dist.barrier()


@contextmanager
def alone() -> Iterator[None]:
    """Have this process work alone for a while, without its process group."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)
