"""Reading tensors whole, or piece by piece: how a merge goes through models larger than memory.

A merge computes each entry of a tensor from the same entry of every model. Its functions take a
`Read`, through which they look at the models: `whole` gives them tensors, a `Piece` the same run of
entries of each, flat. What they return is the merged tensor, or that run of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from bdlit.weights.outlines import outline

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights

_T = TypeVar("_T")

PIECE = 1 << 17
"""Entries of a piece: 0.5 MB in float32, so that what is computed of it stays in the cache."""

_ON_DEVICE = 64  # times as many on an accelerator, which a short piece would leave waiting


class Read(Protocol):
    """A way to look at the tensors of models.

    Attributes:
        start: First entry that is read, of the flattened tensor.
    """

    start: int

    def __call__(self, weights: Weights, name: str) -> Tensor:
        """Return a tensor or a run of its entries; it may be shared, so do not change it."""
        ...

    def kept(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return what was made under a key when an earlier piece of the tensor was read."""
        ...


class _Whole:
    """Reads whole tensors, and keeps nothing."""

    start = 0

    def __call__(self, weights: Weights, name: str) -> Tensor:
        return weights[name]

    def kept(self, key: Hashable, make: Callable[[], _T]) -> _T:
        return make()


whole = _Whole()


class Piece:
    """Reads entries `start` to `stop` of flattened tensors, each model's once.

    A model that computes its tensors entry by entry (`compute`) is asked for these entries, a file
    (`piece`) for their bytes. Of any other model the whole tensor is read for the first piece, and
    kept for those that follow.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        memory: dict[Hashable, object],
        before_whole: Callable[[], object],
    ) -> None:
        self.start, self.stop = start, stop
        self._memory, self._before_whole = memory, before_whole
        self._read: dict[tuple[int, str], tuple[Weights, Tensor]] = {}

    def __call__(self, weights: Weights, name: str) -> Tensor:
        """Return the entries of a tensor, flat; not to be changed."""
        compute = getattr(weights, "compute", None)
        if compute is not None:
            return cast("Tensor", compute(name, self))
        # The model is kept beside its entries: its id stays its own as long as it lives.
        key = (id(weights), name)
        if key not in self._read:
            self._read[key] = (weights, self._entries(weights, name))
        return self._read[key][1]

    def kept(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return what was made under a key for this tensor, or make it."""
        if key not in self._memory:
            self._memory[key] = make()
        return cast("_T", self._memory[key])

    def _entries(self, weights: Weights, name: str) -> Tensor:
        piece = getattr(weights, "piece", None)
        if piece is not None:
            return cast("Tensor", piece(name, self.start, self.stop))
        if type(weights) is dict:  # a subclass may compute what it is asked for
            return cast("Tensor", weights[name]).reshape(-1)[self.start : self.stop]
        _, flat = self.kept((id(weights), name), lambda: (weights, self._flat(weights, name)))
        return flat[self.start : self.stop]

    def _flat(self, weights: Weights, name: str) -> Tensor:
        self._before_whole()
        return weights[name].reshape(-1)


def pieces(
    entries: int, before_whole: Callable[[], object] | None = None, *, device: str = "cpu"
) -> Iterator[Piece]:
    """Yield the pieces to read one after the other, for tensors of one size.

    Args:
        entries: Number of entries; a tensor without entries is one piece.
        before_whole: Called once, before the first whole tensor must be read.
        device: Kind of device that they are computed on; elsewhere than on the CPU they are longer.

    >>> [(read.start, read.stop) for read in pieces(PIECE + 1)] == [(0, PIECE), (PIECE, PIECE + 1)]
    True
    """
    memory: dict[Hashable, object] = {}
    waits = [before_whole] if before_whole else []

    def first_whole() -> None:
        if waits:
            waits.pop()()

    step = PIECE if device == "cpu" else PIECE * _ON_DEVICE
    for start in range(0, max(1, entries), step):
        yield Piece(start, min(entries, start + step), memory, first_whole)


def in_pieces(weights: Weights, name: str) -> Iterator[Tensor]:
    """Yield the entries of a tensor in order, flat, a piece at a time.

    >>> import torch
    >>> [piece.shape for piece in in_pieces({"w": torch.ones(2, 3)}, "w")]
    [torch.Size([6])]
    """
    form = outline(weights, name)
    for read in pieces(form.entries, device=form.device.type):
        yield read(weights, name)
