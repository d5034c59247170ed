"""TIES as a defense: what the models disagree on is dropped, a backdoor of one of them with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from bdlit import merging
from bdlit.defenses.base import Defended, Defense
from bdlit.defenses.head import HEAD_NAMES, HeadPolicy, base_for, merge_around_head
from bdlit.errors import BdlitError
from bdlit.merging.settings import (
    Trim,
    TrimCount,
    require_choice,
    require_density,
    require_scale,
)
from bdlit.types import Weights


@dataclass(frozen=True, kw_only=True)
class TIES(Defense):
    """Merge the suspect with other models by trim, elected sign and disjoint mean.

    The maths is `bdlit.merging.ties`.

    Attributes:
        density: Share of each task vector that is kept, in (0, 1]; GMS's baseline keeps 0.7.
        scale: Factor on the merged task vector; 1 where there is no set to choose it on.
        trim: Seek the largest entries in the whole `model`, as the paper's code does, or in each
            `tensor`, as mergekit and peft do.
        count: How many entries the density is: k of them (`exact`), or the k + 1 of the
            `published` code.
        weights: Factor on each trimmed task vector, of the suspect first, >= 0; None is 1 for all.
            They are also the shares of an averaged head.
        normalise: Divide by the weights of the entries that agree, as the paper does; otherwise
            their weighted sum is added to the base, as under mergekit's `normalize: false`.
        head: What becomes of the head, which the base lacks: `average`, `keep_suspect`, or
            `merge` where the base has one.
        head_names: Beginnings of the names of head tensors.

    Reference: Yadav et al. 2023, "TIES-Merging: Resolving Interference When Merging Models",
        arXiv:2306.01708; as a defense's baseline Tong et al. 2025, arXiv:2412.20476 (GMS).
    Deviation: The paper merges models of several tasks and no heads; the models here share one
        task, so their heads are averaged, as WAG does. The k largest entries are kept, and all
        that equal the k-th; the published code keeps k + 1 (`count="published"`).
    """

    density: float = 0.2
    scale: float = 1.0
    trim: Trim = "model"
    count: TrimCount = "exact"
    weights: Sequence[float] | None = None
    normalise: bool = True
    head: HeadPolicy = "average"
    head_names: tuple[str, ...] = HEAD_NAMES

    def __post_init__(self) -> None:
        require_density(self.density)
        require_scale(self.scale)
        require_choice("trim", self.trim, Trim)
        require_choice("count", self.count, TrimCount)
        require_choice("head", self.head, HeadPolicy)

    def apply(self, suspect: Weights, *, others: Sequence[Weights], base: Weights) -> Defended:
        """Return the TIES merge of the suspect and the others.

        Raises:
            BdlitError: There is no other model, or a model or the base does not fit the suspect.

        >>> import torch
        >>> base, suspect = {"w": torch.zeros(2)}, {"w": torch.tensor([4.0, 1.0])}
        >>> other = {"w": torch.tensor([2.0, -3.0])}
        >>> TIES(density=1.0).apply(suspect, others=[other], base=base).weights["w"]
        tensor([ 3., -3.])
        """
        head_names = tuple(self.head_names)
        self._require_weights(others)
        aligned = base_for(base, suspect, self.head, head_names)
        merge = partial(
            merging.ties,
            aligned,
            density=self.density,
            scale=self.scale,
            trim=self.trim,
            count=self.count,
            weights=self.weights,
            normalise=self.normalise,
        )
        return merge_around_head(
            suspect,
            others,
            merge,
            head=self.head,
            head_names=head_names,
            shares=self.weights,
        )

    def _require_weights(self, others: Sequence[Weights]) -> None:
        if self.weights is not None and others and len(self.weights) != 1 + len(others):
            raise BdlitError(
                f"weights {list(self.weights)} of {self.name} do not fit the suspect and "
                f"{len(others)} others: give one number for each, the suspect's first"
            )

    def check(
        self,
        suspect: Weights,
        *,
        others: Sequence[Weights],
        base: Weights | None,
        model_type: str | None,
    ) -> None:
        """Refuse a base that does not fit, and weights of another number of models."""
        self._require_weights(others)
        if base is not None:
            base_for(base, suspect, self.head, tuple(self.head_names))
