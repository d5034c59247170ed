"""`bdlit merge`: saved models in, one merged model out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bdlit.cli.writing import show_written, writing_with_progress
from bdlit.defenses.base import Defense
from bdlit.defenses.from_recipe import FromRecipe
from bdlit.errors import BdlitError
from bdlit.purification.compatibility import DifferencesPolicy, Matching
from bdlit.purification.hold import hold
from bdlit.purification.label_order import LabelPolicy
from bdlit.purification.purify import purify
from bdlit.purification.saved import open_suspect
from bdlit.recipes import read_recipe


def merge(
    out: str,
    suspect: str | None = None,
    defense: Defense | None = None,
    others: Sequence[str] = (),
    base: str | None = None,
    recipe: str | None = None,
    seed: int = 0,
    labels: LabelPolicy = "error",
    differences: DifferencesPolicy = "error",
    device: Literal["cpu", "cuda"] = "cpu",
    dense: bool = False,
    rank: int | None = None,
    adapter_base: str | None = None,
    verify: bool = False,
) -> None:
    """Merge a saved model with others, tensor by tensor, and write the result.

    Nothing of the models is run, and no more than a few tensors are in memory at a time. Run the
    same command again after an interruption, and it goes on where it stopped.

    Args:
        out: Folder of the merged model, in Hugging Face form; it must not exist.
        suspect: The model to purify: directory, file, or hub id.
        defense: How to merge.
        others: Models to merge it with.
        base: The checkpoint that all were fine-tuned from, where the method needs it.
        recipe: A mergekit-style YAML file, in place of suspect, defense, others and base.
        seed: Seed of what the recipe's DARE drops.
        labels: Classes in another order are refused (`error`), brought into the suspect's order
            (`permute`), or merged as they stand (`ignore`).
        differences: Tensors that not all models have in one shape are refused (`error`), or stay
            the suspect's own (`keep_suspect`).
        device: Where to compute.
        dense: Write a dense model even if the suspect is an adapter. By default an adapter stays
            one where the method allows it exactly (WAG, Linear).
        rank: Where it does not, write the adapter of this rank that comes nearest, by SVD.
        adapter_base: The model that the suspect's and the others' adapters are merged into; by
            default the one that each names.
        verify: Load the result with transformers and run it once.
    """
    if recipe is not None:
        if suspect or defense or others or base:
            raise BdlitError("a recipe names its own models and method: give --recipe alone")
        defense = _from_recipe(Path(recipe), seed)
        suspect, *others = defense.addresses
    if suspect is None or defense is None:
        raise BdlitError("give --suspect and --defense, or a mergekit-style --recipe")
    matching = Matching(labels=labels, differences=differences, adapter_base=adapter_base)
    opened = open_suspect(suspect, adapter_base=adapter_base)
    held = hold(opened, defense, others=others, base=base, matching=matching)
    with writing_with_progress(
        defense.name, device=device, dense=dense, rank=rank, verify=verify
    ) as writing:
        purified = purify(opened, defense, held, out=Path(out), writing=writing)
    show_written(Path(out), purified.origin)


def _from_recipe(path: Path, seed: int) -> FromRecipe:
    """Read a recipe; its first model that is not the base gives the result its form."""
    recipe = read_recipe(path)
    models = [address for address in recipe.addresses if address != recipe.base]
    first = models[0] if models else recipe.addresses[0]
    rest = [address for address in recipe.addresses if address != first]
    return FromRecipe(recipe=recipe, addresses=(first, *rest), seed=seed)
