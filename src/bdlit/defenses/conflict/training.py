"""Training a conflict model: from the base, on a few clean rows, once for all suspects of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bdlit import weights
from bdlit.defenses.base import Defense
from bdlit.defenses.head import HEAD_NAMES, HeadStart, base_for, head_of
from bdlit.errors import BdlitError
from bdlit.recipe import Recipe
from bdlit.types import Example, Weights

if TYPE_CHECKING:
    from bdlit.training.train import Train

HeadFrom: TypeAlias = Literal["family", "suspect", "drawn"]
"""What a conflict model's head begins with where the base has none: what the head of every model of
the suspect's family began with, the head of the suspect, or a draw from the seed of its own
training. Where the family's is not known, the suspect's is taken."""


class FromBase(Defense):
    """A defense that trains a model of its own from the base."""

    def check(
        self,
        suspect: Weights,
        *,
        others: Sequence[Weights],
        base: Weights | None,
        model_type: str | None,
    ) -> None:
        """Refuse a base that a model of the suspect's kind cannot begin with."""
        if base is not None:
            base_for(base, suspect, "keep_suspect", HEAD_NAMES)


def conflict_model(
    suspect: Weights,
    base: Weights,
    clean: Sequence[Example],
    *,
    recipe: Recipe,
    head_from: HeadFrom,
    train: Train,
    archive: Path | None,
) -> tuple[Weights, dict[str, Any]]:
    """Train a conflict model, or find it in the archive.

    Args:
        suspect: The suspect; it gives names, and its head if that is wanted.
        base: The checkpoint that it was fine-tuned from.
        clean: The rows to train on.
        recipe: How.
        head_from: What its head begins with, where the base has none.
        train: Trains it.
        archive: Folder of models that defenses have trained.

    Returns:
        The model, and for the record: the number of `clean` rows, what its `head` began with, what
        it was `made_of`, and whether it was `found`.

    Raises:
        BdlitError: The base does not fit the suspect.
    """
    from bdlit.defenses.archive import kept
    from bdlit.tables import rows_hash

    aligned = base_for(base, suspect, "keep_suspect", HEAD_NAMES)
    start, head = begun(aligned, suspect, head_from, train)
    made_of = {
        "base": weights.fingerprint(start),
        "rows": rows_hash(clean),
        "recipe": asdict(recipe),
    }
    conflict, found = kept(
        archive, "conflict", made_of, lambda: train(clean, start=start, recipe=recipe)
    )
    return conflict, {"clean": len(clean), "head": head, "made_of": made_of, "found": found}


def begun(
    base: Weights, suspect: Weights, head_from: HeadFrom, train: Any
) -> tuple[Weights, HeadStart | Literal["none"]]:
    """Return what a conflict model begins with, and whose its head is.

    Args:
        base: The base under the suspect's names.
        suspect: The suspect.
        head_from: What its head begins with, where the base has none.
        train: Knows what the suspect's own training began with, perhaps.
    """
    missing = [name for name in weights.float_names(suspect) if name not in base]
    if not missing:
        return base, "base's" if head_of(suspect, HEAD_NAMES) else "none"
    if head_from == "drawn":
        return base, "drawn"
    names = [name for name in suspect if name in base or name in set(missing)]
    whole = weights.overlay(weights.select(suspect, names), base)
    family = family_head(base, missing, train) if head_from == "family" else None
    return (whole, "suspect's") if family is None else (weights.overlay(whole, family), "family's")


def family_head(base: Weights, missing: Sequence[str], train: Any) -> Weights | None:
    """Return the tensors that all models of the suspect's family began with; None if not known.

    They are part of what the suspect's own training began with, or follow from its `init_seed`.

    Args:
        base: The base under the suspect's names.
        missing: Names of the tensors that it lacks.
        train: Knows start and recipe of the suspect's own training, if anything does.
    """
    start = getattr(train, "start", None)
    began = start() if start is not None else {}
    if all(name in began for name in missing):
        return weights.select(began, missing)
    recipe: Recipe | None = getattr(train, "recipe", None)
    if recipe is None or recipe.init_seed is None:
        return None
    as_family = replace(recipe, rank=None, frozen=())
    twin = train.victim.twin(base, as_family)
    return weights.select(weights.model_weights(twin.network()), missing)


def drawn_rows(
    clean: Sequence[Example], count: int | None, seed: int, name: str
) -> Sequence[Example]:
    """Return as many clean rows as are to be used, in their order; more hold all of fewer.

    Args:
        clean: The rows.
        count: How many; None uses all.
        seed: Seed of the draw.
        name: Name of the defense, for errors.

    Raises:
        BdlitError: There are fewer.
    """
    if count is None:
        return clean
    if count > len(clean):
        raise BdlitError(
            f"clean_rows {count} of {name} is out of range: the data keeps "
            f"{len(clean)} trusted rows; raise its clean_pool_size"
        )
    order = random.Random(f"clean rows {seed}").sample(range(len(clean)), len(clean))
    return [clean[i] for i in sorted(order[:count])]


def require_rows(clean_rows: int | None, name: str) -> None:
    """Refuse a number of clean rows below 1.

    Raises:
        BdlitError: It is.
    """
    if clean_rows is not None and clean_rows <= 0:
        raise BdlitError(
            f"clean_rows {clean_rows} of {name} is out of range: give a number above 0"
        )
