"""Hybrids in memory: a model with some modules of a donor, changed in place and back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import torch

from bdlit.errors import BdlitError
from bdlit.merging.substitution import mixed, require_donor

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bdlit.defenses.modules import Layout
    from bdlit.types import Weights

Taken: TypeAlias = tuple[frozenset[str], ...]
"""For each layer, the module types that are the donor's."""


class Hybrid:
    """A model whose layers take some modules from a donor; nothing is copied but pointers.

    Both models' modules stay in memory. Only a packed matrix with a block of the
    donor's is put together anew.

    Args:
        model: The victim's network.
        donor: A model of the same architecture.
        layout: What may be taken, and where it is.
        dtype: Run the matrices of the layers in this type; by default in the model's own. For
            use under autocast, which then need not cast them each time.

    Raises:
        BdlitError: The donor does not fit; see `require_proxy`.
    """

    def __init__(
        self,
        model: nn.Module,
        donor: Weights,
        layout: Layout,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._layout = layout
        own = model.state_dict(keep_vars=True)
        require_proxy(own, donor, layout)
        names = [name for _, name in layout.tensors]
        self._parameters = {name: own[name] for name in names}
        self._kept = {name: own[name].data for name in names}
        self._ours = {name: _cast(own[name].data, dtype) for name in names}
        self._theirs = {
            name: _cast(donor[name].to(ours.device, ours.dtype), dtype)
            for name, ours in self._kept.items()
        }
        self._taken: list[frozenset[str] | None] = [None] * layout.layers

    def take(self, taken: Taken) -> None:
        """Make each layer's modules of the given types the donor's, and all others the victim's."""
        for layer, types in enumerate(taken):
            if self._taken[layer] != types:
                self._take(layer, types)
                self._taken[layer] = types

    def restore(self) -> None:
        """Give the model its own tensors back."""
        for name, tensor in self._kept.items():
            self._parameters[name].data = tensor
        self._taken = [None] * len(self._taken)

    def _take(self, layer: int, types: Collection[str]) -> None:
        for name, blocks in self._layout.of_layer(layer).items():
            ours, theirs = self._ours[name], self._theirs[name]
            chosen = {block for key, block in blocks.items() if key in types}
            self._parameters[name].data = mixed(ours, theirs, ours.shape, chosen)


def require_proxy(suspect: Weights, proxy: Weights, layout: Layout) -> None:
    """Refuse a proxy that modules cannot be taken from.

    Raises:
        BdlitError: It has another depth, or its modules other names or shapes; or a module cannot
            be cut into the blocks that the layout names.
    """
    replaced = {name: set(blocks.values()) for (_, name), blocks in layout.tensors.items()}
    require_donor(suspect, proxy, replaced, "the proxy")


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor if dtype is None or tensor.dim() < 2 else tensor.to(dtype)


def layers_of(model: nn.Module, layout: Layout) -> Sequence[nn.Module]:
    """Return the layers of a network, in order.

    Raises:
        BdlitError: The tensors' names do not lead to a list of layers.
    """
    from bdlit.weights.layers import layer_of

    place = layer_of(next(name for _, name in layout.tensors))
    assert place is not None
    try:
        layers = model.get_submodule(place.prefix)
    except AttributeError as error:
        raise BdlitError(f"the network has no list of layers '{place.prefix}'") from error
    return list(layers.children())


@contextmanager
def hybrid_of(
    model: nn.Module,
    donor: Weights,
    layout: Layout,
    *,
    dtype: torch.dtype | None = None,
) -> Iterator[Hybrid]:
    """Turn a model into a hybrid for a while; its own tensors are back when the block ends."""
    hybrid = Hybrid(model, donor, layout, dtype=dtype)
    try:
        yield hybrid
    finally:
        hybrid.restore()


@contextmanager
def hybrid_as(model: nn.Module, donor: Weights, layout: Layout, taken: Taken) -> Iterator[None]:
    """Turn a model into one hybrid for a while."""
    with hybrid_of(model, donor, layout) as hybrid:
        hybrid.take(taken)
        yield
