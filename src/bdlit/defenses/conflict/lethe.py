"""Lethe: the conflict model as its authors' published code trains and merges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from bdlit.defenses.along_depth import AlongDepth
from bdlit.defenses.base import Defended, Defense, Resources, run_defense
from bdlit.defenses.conflict.training import (
    FromBase,
    HeadFrom,
    conflict_model,
    drawn_rows,
    require_rows,
)
from bdlit.defenses.head import HeadFate
from bdlit.defenses.interpolation import SLERP, Linear
from bdlit.defenses.passthrough import Passthrough
from bdlit.defenses.ties import TIES
from bdlit.merging.settings import require_choice
from bdlit.named_recipes import named_recipe
from bdlit.recipe import Recipe
from bdlit.types import Example, Weights

if TYPE_CHECKING:
    from bdlit.training.train import Train

LETHE = replace(named_recipe("lethe", "language-model").settings, max_length=None)
"""How the published code trains its clean model; texts are cut where the suspect's are."""

LetheMerge: TypeAlias = Literal["linear", "ties", "slerp", "passthrough"]

LETHE_MERGES: Mapping[LetheMerge, Defense] = {
    "linear": Linear(t=0.5),
    "ties": TIES(density=0.5, weights=(0.5, 0.5), normalise=False, trim="tensor"),
    "slerp": SLERP(
        t=AlongDepth(
            attention=(0.0, 0.5, 0.3, 0.7, 1.0),
            mlp=(1.0, 0.5, 0.7, 0.3, 0.0),
            rest=0.5,
        )
    ),
    "passthrough": Passthrough(layers=(("suspect", 0.0, 0.6), (0, 0.5, 1.0)), outside="ends"),
}
"""The merges of the published code, which are MergeKit's, of the suspect and the clean model."""


@dataclass(frozen=True, kw_only=True)
class Lethe(FromBase):
    """Merge the suspect with a clean model, trained and merged as in Lethe's published code.

    It is `ConflictModel` with settings of its own: the clean model learns the task from the
    pre-trained base by LoRA, and takes half of the merge. The clean model is kept in the run's
    archive, and serves every suspect of the same base, head and task. `Guarded` puts conflict
    evidence around it, as the paper does.

    Attributes:
        merge: `linear` is the mean; `ties` keeps the larger half of each task vector and adds half
            of each where signs agree, not divided by how many agree; `slerp` turns along the depth,
            attention from the suspect to the clean model and the MLP the other way; `passthrough`
            puts the upper half of the clean model's layers on the lower three fifths of the
            suspect's, so that depth grows by a tenth (for saved models alone: a running victim
            keeps its depth).
        clean_rows: How many of the clean rows are used, drawn by the recipe's seed; None uses all.
        head_from: What the clean model's head begins with where the base has none: that of the
            suspect's `family` (the `suspect`'s, where it is not known), the `suspect`'s, or `drawn`
            anew.
        recipe: How the clean model is trained; by default the recipe named `lethe`, whatever the
            kind of the suspect.

    Reference: Lethe, arXiv:2508.21004 (USENIX Security 2026), and its published code; the successor
        of Chen et al. 2024, arXiv:2411.18280.
    Deviation: The published code trains on a base of 4 bits; here it is trained in the recipe's
        precision. Of its passthrough the ranges are known, but not which model comes first. Where
        a task vector has an odd number of entries, or equal ones, `ties` may keep one more than
        MergeKit. Its heads are those of language models; a classifier's is averaged by `ties`, is
        the clean model's by `passthrough`, and is merged with the rest otherwise.
    """

    merge: LetheMerge = "linear"
    clean_rows: int | None = None
    head_from: HeadFrom = "family"
    recipe: Recipe = LETHE

    def __post_init__(self) -> None:
        require_choice("merge", self.merge, LetheMerge)
        require_choice("head_from", self.head_from, HeadFrom)
        require_rows(self.clean_rows, self.name)

    @property
    def name(self) -> str:
        """Name in folders, logs and results: `Lethe-SLERP`."""
        return f"Lethe-{LETHE_MERGES[self.merge].name}"

    @property
    def head_becomes(self) -> HeadFate | None:
        """As the merge says."""
        return LETHE_MERGES[self.merge].head_becomes

    def apply(
        self,
        suspect: Weights,
        *,
        base: Weights,
        clean: Sequence[Example],
        train: Train,
        archive: Path | None = None,
    ) -> Defended:
        """Return the suspect merged with the clean model; `notes["conflict"]` says of which.

        Raises:
            BdlitError: The base does not fit the suspect, the merge refuses the two models, or
                there are fewer clean rows than `clean_rows`.
        """
        rows = drawn_rows(clean, self.clean_rows, self.recipe.seed, self.name)
        conflict, about = conflict_model(
            suspect,
            base,
            rows,
            recipe=self.recipe,
            head_from=self.head_from,
            train=train,
            archive=archive,
        )
        given = Resources(others=[conflict], base=base)
        merged = run_defense(LETHE_MERGES[self.merge], suspect, given)
        return replace(merged, notes={**merged.notes, "conflict": about})
