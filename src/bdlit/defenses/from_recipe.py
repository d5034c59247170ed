"""A mergekit-style recipe as a defense, so that it is run and written like one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bdlit.defenses.base import Defended, Defense
from bdlit.recipes import MergeRecipe, merge
from bdlit.types import Weights

if TYPE_CHECKING:
    from bdlit.defenses.head import HeadFate


@dataclass(frozen=True, kw_only=True)
class FromRecipe(Defense):
    """Merge as a mergekit-style recipe says.

    The models are those that the recipe names; the suspect gives the form of the result alone.

    Attributes:
        recipe: What to do.
        addresses: Addresses of the others, in their order; the suspect's is the first.
        seed: Seed of what DARE drops.

    Reference: Goddard et al. 2024, arXiv:2403.13257 (MergeKit).
    """

    listed = False

    recipe: MergeRecipe
    addresses: tuple[str, ...]
    seed: int = 0

    @property
    def name(self) -> str:
        """The recipe's method."""
        return self.recipe.method

    def apply(self, suspect: Weights, *, others: Sequence[Weights]) -> Defended:
        """Return what the recipe makes of the models.

        Raises:
            BdlitError: The models do not fit the recipe.
        """
        models = dict(zip(self.addresses, (suspect, *others), strict=True))
        merged = merge(self.recipe, models.__getitem__, seed=self.seed)
        notes: dict[str, Any] = dict(merged.notes)
        depth: int | None = notes.get("depth")
        layers = [layer for _, layer in notes.get("layers", ())]
        return Defended(
            weights=merged,
            merged=list(merged),
            depth=depth,
            layers=layers if layers and len(layers) == depth else None,
            notes=notes,
        )

    @property
    def keeps_names(self) -> bool:
        """The recipe says what is taken from which model."""
        return False

    @property
    def keeps_head(self) -> bool:
        """The recipe says what becomes of heads."""
        return True

    @property
    def head_becomes(self) -> HeadFate | None:
        """What the method does; passthrough takes it whole, from the last slice's model."""
        if self.recipe.method != "passthrough":
            return None
        last = self.recipe.slices[-1].sources[0].model
        return "suspect's" if last == self.addresses[0] else "other's"
