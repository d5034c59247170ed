"""What is recorded of a training by a named recipe: which one, and every departure from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bdlit.named_recipes import named_recipe
from bdlit.training.fit import recipe_of

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from bdlit.data.base import TextDataModule
    from bdlit.victims.base import Victim

RECORD = "recipe.json"
"""Name of the record's file in the folder of a model or of a run."""


def recipe_record(victim: Victim, trainer: Trainer, data: TextDataModule) -> dict[str, Any]:
    """Return the record of a training, as plain data: `recipe`, if it has one by a name.

    Departures are found by comparing what is really done, whoever asked for it: those of the
    user, and what a recipe has that no training here does.

    Args:
        victim: The victim, whose `recipe` is the name; None gives an empty record.
        trainer: Its trainer.
        data: Its data.

    Raises:
        BdlitError: The recipe is unknown or does not fit the victim.
    """
    if victim.recipe is None:
        return {}
    kind, head = victim.kind
    recipe = named_recipe(victim.recipe, kind)
    return {
        "recipe": {
            "name": recipe.name,
            "kind": kind,
            "paper": recipe.paper,
            "departures": recipe.departures(recipe_of(victim, trainer, data), head),
        }
    }


def departures_told(record: dict[str, Any]) -> str:
    """Return a record in one line.

    >>> told = {"learning_rate": {"recipe": 2e-05, "used": 5e-05}}
    >>> departures_told({"recipe": {"name": "wag", "kind": "classifier", "departures": told}})
    'recipe wag (classifier), learning_rate 2e-05 -> 5e-05'
    """
    own = record["recipe"]
    pairs = (f"{name} {v['recipe']} -> {v['used']}" for name, v in own["departures"].items())
    return ", ".join([f"recipe {own['name']} ({own['kind']})", *pairs])
