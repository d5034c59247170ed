"""What can be known of a tensor without reading or computing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from bdlit.types import Weights


class Outline(NamedTuple):
    """Shape, dtype and device of a tensor.

    Attributes:
        shape: Its shape.
        dtype: Its dtype.
        device: The device it is on.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device = torch.device("cpu")

    @property
    def is_float(self) -> bool:
        """Whether a merge may change the tensor."""
        return self.dtype.is_floating_point

    @property
    def entries(self) -> int:
        """Number of its entries."""
        return self.shape.numel()

    @property
    def bytes(self) -> int:
        """Size of its data."""
        return self.entries * self.dtype.itemsize


def outline(weights: Weights, name: str) -> Outline:
    """Return shape, dtype and device of a tensor, without its data if possible.

    Mappings that read or compute their tensors say it themselves, by a method `outline`; of any
    other mapping the tensor is looked at.

    >>> outline({"w": torch.ones(2, 3)}, "w").shape
    torch.Size([2, 3])
    """
    known = getattr(weights, "outline", None)
    if known is not None:
        found: Outline = known(name)
        return found
    tensor = weights[name]
    return Outline(tensor.shape, tensor.dtype, tensor.device)
