"""Going through the tensors of a model in threads, with a bound on what they hold together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Condition
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch

from bdlit.weights.outlines import outline
from bdlit.weights.reading import Piece, pieces

if TYPE_CHECKING:
    from bdlit.types import Weights

_T = TypeVar("_T")

_LEAST_AT_WORK = 32_000_000  # entries that may always be at work together: small tensors overlap
_KEPT = 31 << 20  # bytes; glibc learns from what is freed up to 32 MiB


class Each(Protocol):
    """A way to do the same to each of several tensors."""

    def __call__(
        self, names: Iterable[str], work: Callable[[str, Callable[[], Iterator[Piece]]], _T]
    ) -> Iterator[_T]:
        """Yield what `work` returns of each name and the pieces it is read by, in order.

        The pieces may be gone through more than once.
        """
        ...


@contextmanager
def threads(weights: Weights, names: Iterable[str], count: int | None = None) -> Iterator[Each]:
    """Go through tensors, several at a time, each piece by piece.

    Where that needs whole tensors (`Piece`), those at work have no more entries together than the
    largest of them: the memory in use does not grow with the model.

    Args:
        weights: The model that the tensors are of.
        names: All that will be asked for.
        count: Number of threads; by default as many as torch would use for one tensor.

    >>> weights = {"a": torch.ones(2), "b": torch.ones(3)}
    >>> with threads(weights, weights) as each:
    ...     list(each(weights, lambda name, reads: [read(weights, name) for read in reads()]))
    [[tensor([1., 1.])], [tensor([1., 1., 1.])]]
    """
    count = count or torch.get_num_threads()
    outlines = {name: outline(weights, name) for name in names}
    budget = _Budget(max([*(own.entries for own in outlines.values()), _LEAST_AT_WORK]))
    _keep_freed_memory()
    with _one_thread_each(count), ThreadPoolExecutor(max_workers=count) as pool:

        def each(
            names: Iterable[str], work: Callable[[str, Callable[[], Iterator[Piece]]], _T]
        ) -> Iterator[_T]:
            def run(name: str) -> _T:
                entries, device = outlines[name].entries, outlines[name].device.type
                with ExitStack() as stack:
                    shares: list[None] = []

                    def take_share() -> None:
                        if not shares:
                            shares.append(stack.enter_context(budget.of(entries)))

                    return work(name, lambda: pieces(entries, take_share, device=device))

            return pool.map(run, names)

        yield each


def _keep_freed_memory() -> None:
    """Let the allocator keep what a piece has freed for the next, instead of giving it back.

    glibc returns large blocks to the system until one of their size was freed; every piece would
    then wait for its memory to be zeroed again, for longer than it is computed with. This block is
    never touched, so it takes no memory.
    """
    torch.empty(_KEPT, dtype=torch.uint8)


@contextmanager
def _one_thread_each(count: int) -> Iterator[None]:
    """Let torch use one thread per tensor where several tensors are at work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if count > 1 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Budget:
    """Lets tensors be at work together as long as their entries stay below a bound."""

    def __init__(self, entries: int) -> None:
        self._left = entries
        self._changed = Condition()

    @contextmanager
    def of(self, entries: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._left >= entries)
            self._left -= entries
        try:
            yield
        finally:
            with self._changed:
                self._left += entries
                self._changed.notify_all()
