"""WAG: the average of several models keeps their task and loses their backdoors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from bdlit import merging
from bdlit.defenses.base import Defended, Defense
from bdlit.defenses.head import HEAD_NAMES, HeadFate, HeadPolicy, merge_around_head
from bdlit.errors import BdlitError
from bdlit.merging.settings import require_choice
from bdlit.types import Weights

if TYPE_CHECKING:
    from bdlit.merging.adapters import AdapterHead
    from bdlit.weights import Adapter, AdapterWeights

AdapterSpace: TypeAlias = Literal["delta", "factors"]


@dataclass(frozen=True, kw_only=True)
class WAG(Defense):
    """Average the suspect with other models, which may be backdoored in other ways.

    The maths is `bdlit.merging.average`.

    Attributes:
        head: What becomes of the head: `average` takes the mean of the heads too, as the paper
            does, and so does `merge`; `keep_suspect` keeps the suspect's own, for others of another
            task.
        head_names: Beginnings of the names of head tensors.
        space: What is averaged of LoRA adapters: the changes of the weights (`delta`), which is
            the average of the models, or the `factors` A and B apart, which is not, and is how
            the published numbers of LoRA models were made.

    Reference: Arora et al. 2024, "Here's a Free Lunch: Sanitizing Backdoored Models with Model
        Merge", arXiv:2402.19334.
    Deviation: Integer buffers are the suspect's; the published code averages them.
    """

    head: HeadPolicy = "average"
    head_names: tuple[str, ...] = HEAD_NAMES
    space: AdapterSpace = "delta"

    def __post_init__(self) -> None:
        require_choice("head", self.head, HeadPolicy)
        require_choice("space", self.space, AdapterSpace)

    def apply(self, suspect: Weights, *, others: Sequence[Weights]) -> Defended:
        """Return the mean of the suspect and the others.

        Raises:
            BdlitError: There is no other model, or one does not fit the suspect.

        >>> import torch
        >>> suspect, other = {"w": torch.tensor([0.0])}, {"w": torch.tensor([1.0])}
        >>> WAG().apply(suspect, others=[other]).weights["w"]
        tensor([0.5000])
        """
        if self.space == "factors":
            raise BdlitError(
                "space=factors is about LoRA adapters: give a suspect and others that are adapters "
                "of one base, to `bdlit merge` or `bdlit defend`"
            )
        return merge_around_head(
            suspect, others, merging.average, head=self.head, head_names=tuple(self.head_names)
        )

    def apply_to_adapters(
        self, suspect: AdapterWeights, others: Sequence[AdapterWeights]
    ) -> Adapter:
        """Return the mean as one adapter, whose rank is the sum of the ranks."""
        head: AdapterHead = "keep_suspect" if self.keeps_head else "average"
        if self.space == "factors":
            return merging.factors_average([suspect, *others], head=head)
        return merging.average_adapters([suspect, *others], head=head)

    @property
    def head_becomes(self) -> HeadFate | None:
        """The mean, as all else."""
        return "averaged"
