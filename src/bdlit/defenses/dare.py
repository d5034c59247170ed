"""DARE as a defense: most of each task vector is dropped at random before it is merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from bdlit import merging
from bdlit.defenses.base import Defended, Defense
from bdlit.defenses.head import HEAD_NAMES, HeadPolicy, base_for, merge_around_head
from bdlit.merging.settings import DareMerge, require_choice, require_drop, require_scale
from bdlit.types import Weights


@dataclass(frozen=True, kw_only=True)
class DARE(Defense):
    """Merge the suspect with other models after dropping and rescaling their task vectors.

    The maths is `bdlit.merging.dare`.

    Attributes:
        drop: Share of each task vector that is dropped at random, in [0, 1).
        merge: `linear` takes the mean of what is left, `ties` the disjoint mean under an elected
            sign (named DARE-TIES).
        seed: Seed of the choice of what is dropped.
        scale: Factor on the merged task vector.
        head: What becomes of the head, which the base lacks: `average`, `keep_suspect`, or
            `merge` where the base has one.
        head_names: Beginnings of the names of head tensors.

    Reference: Yu et al. 2024, "Language Models are Super Mario: Absorbing Abilities from
        Homologous Models as a Free Lunch", arXiv:2311.03099.
    Deviation: The paper leaves every head out, since its models have different tasks; the models
        here share one task, so their heads are averaged (without a drop), as WAG does:
        otherwise the suspect's head would come through untouched. `head="keep_suspect"` is the
        paper's way.
    """

    drop: float = 0.9
    merge: DareMerge = "linear"
    seed: int = 0
    scale: float = 1.0
    head: HeadPolicy = "average"
    head_names: tuple[str, ...] = HEAD_NAMES

    def __post_init__(self) -> None:
        require_drop(self.drop)
        require_scale(self.scale)
        require_choice("merge", self.merge, DareMerge)
        require_choice("head", self.head, HeadPolicy)

    @property
    def name(self) -> str:
        """`DARE`, or `DARE-TIES` after the merge that follows the drop."""
        return "DARE-TIES" if self.merge == "ties" else "DARE"

    def apply(self, suspect: Weights, *, others: Sequence[Weights], base: Weights) -> Defended:
        """Return the DARE merge of the suspect and the others.

        Raises:
            BdlitError: There is no other model, or a model or the base does not fit the suspect.

        >>> import torch
        >>> base, suspect = {"w": torch.zeros(2)}, {"w": torch.tensor([4.0, 1.0])}
        >>> other = {"w": torch.tensor([2.0, -3.0])}
        >>> DARE(drop=0.0).apply(suspect, others=[other], base=base).weights["w"]
        tensor([ 3., -1.])
        """
        head_names = tuple(self.head_names)
        aligned = base_for(base, suspect, self.head, head_names)
        merge = partial(
            merging.dare,
            aligned,
            drop=self.drop,
            seed=self.seed,
            merge=self.merge,
            scale=self.scale,
        )
        return merge_around_head(suspect, others, merge, head=self.head, head_names=head_names)

    def check(
        self,
        suspect: Weights,
        *,
        others: Sequence[Weights],
        base: Weights | None,
        model_type: str | None,
    ) -> None:
        """Refuse a base that does not fit."""
        if base is not None:
            base_for(base, suspect, self.head, tuple(self.head_names))
