"""Low-rank factors of a change of weights: what an adapter consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from bdlit.types import Weights

Layer: TypeAlias = Literal["linear", "transposed", "embedding"]
"""Layout of the adapted weight: [out, in] as in `torch.nn.Linear`; [in, out] as in the Conv1D of
GPT-2; or [rows, width] of an embedding, whose factors peft keeps under names of their own."""


@dataclass(frozen=True)
class Factors:
    """The change of one weight, `scaling * b @ a`, transposed unless the layer is linear.

    Attributes:
        a: Of shape [rank, in], or [rank, rows] for an embedding.
        b: Of shape [out, rank], or [width, rank] for an embedding.
        scaling: Factor on the product.
        layer: Layout of the adapted weight.
    """

    a: Float[Tensor, "rank in"]
    b: Float[Tensor, "out rank"]
    scaling: float = 1.0
    layer: Layer = "linear"

    @property
    def rank(self) -> int:
        """Rank of the change, at most."""
        return self.a.shape[0]

    def added_to(self, weight: Float[Tensor, ...]) -> Float[Tensor, ...]:
        """Return the weight with the change, in the dtype of the weight.

        It is computed in float32, or in float64 where the weight is float64.

        >>> factors = Factors(torch.ones(1, 3), torch.tensor([[1.0], [2.0]]), scaling=0.5)
        >>> factors.added_to(torch.zeros(2, 3))
        tensor([[0.5000, 0.5000, 0.5000],
                [1.0000, 1.0000, 1.0000]])
        """
        wide = wide_dtype(weight.dtype)
        a, b = (factor.to(weight.device, wide) for factor in (self.a, self.b))
        left, right = (b, a) if self.layer == "linear" else (a.T, b.T)
        return torch.addmm(weight.to(wide), left, right, alpha=self.scaling).to(weight.dtype)


class LazyFactors(Mapping[str, Factors]):
    """Factors by the name of the weight that they change, read or computed on access.

    Args:
        thunks: A function for each name, which gives the factors.
        ranks: The rank of each, known without calling it.

    >>> factors = LazyFactors({"w": lambda: Factors(torch.ones(2, 3), torch.ones(4, 2))}, {"w": 2})
    >>> factors.ranks["w"] == factors["w"].rank
    True
    """

    def __init__(
        self, thunks: Mapping[str, Callable[[], Factors]], ranks: Mapping[str, int]
    ) -> None:
        self._thunks = dict(thunks)
        self.ranks = dict(ranks)

    def __getitem__(self, name: str) -> Factors:
        return self._thunks[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._thunks  # the default would read the factors

    def __iter__(self) -> Iterator[str]:
        return iter(self._thunks)

    def __len__(self) -> int:
        return len(self._thunks)

    def __repr__(self) -> str:
        return f"LazyFactors({len(self)} weights)"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter that is not tied to files: all that `save_adapter` needs.

    Attributes:
        factors: Factors by the model's name of the weight that they change.
        saved: Whole tensors that take the place of the base's, or come to them: the head.
        config: What `adapter_config.json` says; ranks and scalings are those of the factors.
    """

    factors: Mapping[str, Factors]
    saved: Weights = field(default_factory=dict)
    config: Mapping[str, Any]


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that products and means are computed in.

    >>> wide_dtype(torch.bfloat16)
    torch.float32
    """
    return torch.float64 if dtype == torch.float64 else torch.float32
