"""Weights that are computed when they are asked for, and the ways to compose mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from bdlit.weights.outlines import Outline, outline
from bdlit.weights.reading import Read, whole

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights


class LazyWeights(Mapping[str, "Tensor"]):
    """A model whose tensors are computed on access, one at a time, and not kept.

    Whoever needs all of them more than once makes a `dict` of it.

    >>> import torch
    >>> weights = LazyWeights({"w": lambda: torch.ones(2)})
    >>> weights["w"]
    tensor([1., 1.])

    Args:
        thunks: A function for each name, which computes the tensor.
        notes: What the computation reports, ready for JSON.
        outline: From a name to what `Outline` says of its tensor, where that is known without
            computing it.

    Attributes:
        notes: What the computation that made these weights reports, ready for JSON.
    """

    def __init__(
        self,
        thunks: Mapping[str, Callable[[], Tensor]],
        notes: Mapping[str, Any] | None = None,
        *,
        outline: Callable[[str], Outline] | None = None,
    ) -> None:
        self._thunks = dict(thunks)
        self._outline = outline
        self.notes = dict(notes or {})

    def __getitem__(self, name: str) -> Tensor:
        return self._thunks[name]()

    def outline(self, name: str) -> Outline:
        """Return shape, dtype and device of a tensor, without computing it where they are known."""
        if self._outline is not None:
            return self._outline(name)
        tensor = self[name]
        return Outline(tensor.shape, tensor.dtype, tensor.device)

    def __contains__(self, name: object) -> bool:
        return name in self._thunks  # the default would compute the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._thunks)

    def __len__(self) -> int:
        return len(self._thunks)

    def __repr__(self) -> str:
        return f"LazyWeights({len(self)} tensors)"


class Elementwise(LazyWeights):
    """A model whose entries are each computed from the same entries of other models.

    It can be read piece by piece (`bdlit.weights.reading`), so that no whole tensor need be held.

    >>> import torch
    >>> model = {"w": torch.ones(2)}
    >>> Elementwise(model, lambda name, read: read(model, name) * 2)["w"]
    tensor([2., 2.])

    Args:
        names: Names of the tensors.
        compute: From a name and a way to read other models to the entries that are read.
        notes: What the computation reports, ready for JSON.
        outline: As for `LazyWeights`.
    """

    def __init__(
        self,
        names: Iterable[str],
        compute: Callable[[str, Read], Tensor],
        notes: Mapping[str, Any] | None = None,
        *,
        outline: Callable[[str], Outline] | None = None,
    ) -> None:
        thunks = {name: partial(compute, name, whole) for name in names}
        super().__init__(thunks, notes, outline=outline)
        self.compute = compute


def renamed(weights: Weights, names: Mapping[str, str]) -> Elementwise:
    """Return tensors under other names.

    Args:
        weights: Where the tensors are.
        names: New name to the name in `weights`.

    >>> import torch
    >>> renamed({"a": torch.ones(1)}, {"b": "a"})["b"]
    tensor([1.])
    """
    return Elementwise(
        names,
        lambda name, read: read(weights, names[name]),
        outline=lambda name: outline(weights, names[name]),
    )


def select(weights: Weights, names: Iterable[str]) -> Elementwise:
    """Return the named tensors alone, in the order of `names`.

    >>> import torch
    >>> list(select({"a": torch.ones(1), "b": torch.ones(1)}, ["b"]))
    ['b']
    """
    return renamed(weights, {name: name for name in names})


def overlay(under: Weights, over: Weights) -> Elementwise:
    """Return the names of `under`, with the tensor of `over` wherever it has one.

    >>> import torch
    >>> overlay({"a": torch.zeros(1), "b": torch.zeros(1)}, {"b": torch.ones(1)})["b"]
    tensor([1.])
    """
    source = {name: over if name in over else under for name in under}
    return Elementwise(
        source,
        lambda name, read: read(source[name], name),
        outline=lambda name: outline(source[name], name),
    )


def on_device(weights: Weights, device: str) -> Weights:
    """Return weights whose tensors arrive on a device, which merges then compute on.

    >>> import torch
    >>> on_device({"w": torch.ones(1)}, "cpu")["w"].device
    device(type='cpu')
    """
    if device == "cpu":
        return weights
    import torch

    def known(name: str) -> Outline:
        return outline(weights, name)._replace(device=torch.device(device))

    return Elementwise(weights, lambda name, read: read(weights, name).to(device), outline=known)
