"""Linear and SLERP: the suspect and one other model, and a point between them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdlit import merging
from bdlit.defenses.along_depth import AlongDepth
from bdlit.defenses.base import Defended, Defense
from bdlit.defenses.head import HEAD_NAMES, HeadPolicy, merge_around_head
from bdlit.errors import BdlitError
from bdlit.merging.settings import require_choice, require_share
from bdlit.types import Weights

if TYPE_CHECKING:
    from bdlit.merging.adapters import AdapterHead
    from bdlit.weights import Adapter, AdapterWeights, LazyWeights


@dataclass(frozen=True, kw_only=True)
class _Between(Defense):
    """A point between the suspect and one other model."""

    head: HeadPolicy = "merge"
    head_names: tuple[str, ...] = HEAD_NAMES

    def __post_init__(self) -> None:
        require_choice("head", self.head, HeadPolicy)

    @abstractmethod
    def _merge(self, models: Sequence[Weights]) -> LazyWeights:
        """Return the point between the suspect's and the other's tensors."""

    def apply(self, suspect: Weights, *, others: Sequence[Weights]) -> Defended:
        """Return the point between the suspect and the only other model.

        Raises:
            BdlitError: There is not exactly one other model, or it does not fit the suspect.
        """
        if len(others) > 1:
            raise BdlitError(
                f"{self.name} lies between the suspect and one other model, and {len(others)} "
                "others were given: give one, or take WAG for several"
            )
        names = tuple(self.head_names)
        return merge_around_head(suspect, others, self._merge, head=self.head, head_names=names)


@dataclass(frozen=True, kw_only=True)
class Linear(_Between):
    """Interpolate the suspect and one other model on the line between them.

    `(1 - t) * suspect + t * other`; the maths is `bdlit.merging.average`.

    Attributes:
        t: Share of the other model, in [0, 1]; 0.5 is WAG with one other.
        head: What becomes of the head: the same `merge` as the rest, the `average`, or
            `keep_suspect`.
        head_names: Beginnings of the names of head tensors.

    Reference: Wortsman et al. 2022, "Model soups", arXiv:2203.05482.
    """

    t: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("t", self.t)

    def _merge(self, models: Sequence[Weights]) -> LazyWeights:
        return merging.average(models, [1 - self.t, self.t])

    def apply_to_adapters(
        self, suspect: AdapterWeights, others: Sequence[AdapterWeights]
    ) -> Adapter | None:
        """Return the point as one adapter, whose rank is the sum of the ranks."""
        if self.head == "average" or len(others) != 1:
            return None
        head: AdapterHead = "average" if self.head == "merge" else "keep_suspect"
        return merging.average_adapters([suspect, *others], [1 - self.t, self.t], head=head)


@dataclass(frozen=True, kw_only=True)
class SLERP(_Between):
    """Interpolate the suspect and one other model on the arc between them.

    The maths is `bdlit.merging.slerp`; the notes say how many tensors fell back to the line.

    Attributes:
        t: Share of the other model, in [0, 1]; or shares along the depth, for attention and MLP
            apart, as `{attention: [0, 0.5, 1], mlp: [1, 0.5, 0], rest: 0.5}`.
        head: What becomes of the head: the same `merge` as the rest, the `average`, or
            `keep_suspect`.
        head_names: Beginnings of the names of head tensors.

    Reference: Goddard et al. 2024, "Arcee's MergeKit: A Toolkit for Merging Large Language
        Models", arXiv:2403.13257.
    """

    t: float | AlongDepth = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.t, AlongDepth):
            require_share("t", self.t)

    def _merge(self, models: Sequence[Weights]) -> LazyWeights:
        suspect, other = models
        if isinstance(self.t, AlongDepth):
            return merging.slerp(suspect, other, self.t.shares(suspect).__getitem__)
        return merging.slerp(suspect, other, self.t)
