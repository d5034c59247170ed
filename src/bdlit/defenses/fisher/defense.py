"""Fisher merging: each parameter is taken most from the model whose predictions depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bdlit import merging, weights
from bdlit.defenses.base import Defended, Defense
from bdlit.defenses.head import HEAD_NAMES, HeadPolicy, merge_around_head
from bdlit.errors import BdlitError
from bdlit.merging.settings import Floored, require_choice
from bdlit.types import Example, Weights


@dataclass(frozen=True, kw_only=True)
class Fisher(Defense):
    """Average the suspect with other models, weighted by the Fisher information of each.

    The maths is `bdlit.merging.fisher_average`. The information of every model is computed on the
    texts of the trusted clean rows (`fisher_information`); their labels are not read. The data
    gives such rows where its `clean_pool_size` is set. What was computed is kept in the run's
    archive, and found again for the same model and rows.

    Attributes:
        floor: Least information of any parameter, > 0.
        normalise: Divide each model's information, once it is floored, by the norm of what was
            measured over all tensors that are merged.
        floored: Whose information has the floor: `all` models', or the `first` model's alone, which
            is the suspect's, as in the published code.
        draws: Outcomes drawn from the model's own distribution for each row, for a model of many
            classes; None sums exactly over the classes of a classifier, and draws once for a
            language model.
        seed: Seed of the draws.
        head: What becomes of the head: the same `merge` as the rest, the `average`, or
            `keep_suspect`.
        head_names: Beginnings of the names of head tensors.

    Reference: Matena and Raffel 2022, "Merging Models with Fisher-Weighted Averaging",
        arXiv:2111.09832; as a defense's baseline Arora et al. 2024, arXiv:2402.19334.
    Deviation: The published code normalises by default, and floors its first model alone:
        `normalise=True, floored="first"`. Here all models have the floor by default, since where
        nothing depends on a parameter the suspect would come through whole, and the information
        stays as it was measured.
    """

    floor: float = 1e-6
    normalise: bool = False
    floored: Floored = "all"
    draws: int | None = None
    seed: int = 0
    head: HeadPolicy = "merge"
    head_names: tuple[str, ...] = HEAD_NAMES

    def __post_init__(self) -> None:
        if not self.floor > 0:
            raise BdlitError(f"floor {self.floor} is out of range: give a number > 0")
        if self.draws is not None and self.draws < 1:
            raise BdlitError(f"draws {self.draws} is out of range: give 1 or more, or null")
        require_choice("floored", self.floored, Floored)
        require_choice("head", self.head, HeadPolicy)

    def apply(
        self,
        suspect: Weights,
        *,
        others: Sequence[Weights],
        clean: Sequence[Example],
        victim: Any,
        archive: Path | None = None,
    ) -> Defended:
        """Return the mean of the suspect and the others, weighted by their information.

        Raises:
            BdlitError: There is no other model, one does not fit the suspect, or there are no
                clean rows.
        """
        from bdlit.defenses.archive import kept
        from bdlit.defenses.fisher.information import (
            architecture_hash,
            drawn_by_default,
            fisher_information,
            tokens_hash,
        )

        draws = drawn_by_default(victim) if self.draws is None else self.draws
        about = {
            "architecture": architecture_hash(victim),
            "rows": tokens_hash(victim, clean),
            "draws": draws,
            "seed": self.seed if draws else None,
        }

        def information_of(model: Weights) -> Weights:
            made_of = {"model": weights.fingerprint(model), **about}
            make = partial(fisher_information, victim, clean, model, draws=draws, seed=self.seed)
            return kept(archive, "fisher", made_of, make)[0]

        information = [information_of(model) for model in (suspect, *others)]
        merge = partial(
            _merge,
            information=information,
            floor=self.floor,
            normalise=self.normalise,
            floored=self.floored,
        )
        names = tuple(self.head_names)
        defended = merge_around_head(suspect, others, merge, head=self.head, head_names=names)
        return replace(defended, notes={**defended.notes, "clean_rows": len(clean), "draws": draws})


def _merge(models: Sequence[Weights], *, information: Sequence[Weights], **options: Any) -> Any:
    """Merge a part of the tensors with the information of that part."""
    parts = [weights.select(each, models[0]) for each in information]
    return merging.fisher_average(models, parts, **options)
