"""Opening what is held beside a suspect, checked for one defense: the Python door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.defenses.base import Defense
from bdlit.purification.compatibility import Matching, fitted, open_base, open_others
from bdlit.purification.held import Held
from bdlit.recipe import Recipe
from bdlit.tables import column, read_sliced
from bdlit.types import Example

if TYPE_CHECKING:
    from bdlit.purification.suspect import Suspect
    from bdlit.training.dynamics import TrainingSet


@dataclass(frozen=True, kw_only=True)
class Supplies:
    """What a user gives a defender beside models and data: one setting for each such resource.

    Attributes:
        texts: File with a column `text` of plain texts to calibrate on, perhaps with a slice
            behind its name (`texts.jsonl[:128]`).
    """

    texts: str | None = None

    @property
    def names(self) -> set[str]:
        """Names of the resources that are given."""
        return {name for name, value in vars(self).items() if value}

    def read(self) -> dict[str, Any]:
        """Return each resource that is given, by its name.

        Raises:
            BdlitError: A file cannot be read, or lacks a column.
        """
        if self.texts is None:
            return {}
        texts = column(read_sliced(self.texts), "text", self.texts)
        return {"texts": [str(text) for text in texts if text]}


def hold(
    suspect: Suspect,
    defense: Defense,
    *,
    others: Sequence[str] = (),
    base: str | None = None,
    clean: Sequence[Example] = (),
    supplies: Supplies | None = None,
    training: TrainingSet | None = None,
    recipe: Recipe | None = None,
    archive: Path | None = None,
    matching: Matching | None = None,
) -> Held:
    """Open what a defender holds beside a suspect, and require that it fits.

    Args:
        suspect: The suspect.
        defense: The method that it is for.
        others: Addresses of models that merge with the suspect.
        base: Address of the checkpoint that all were fine-tuned from.
        clean: Trusted clean rows.
        supplies: What else is given.
        training: The suspect's untrusted training set.
        recipe: How the suspect was trained.
        archive: Folder of models that defenses have trained.
        matching: What is done about models that do not match the suspect.

    Raises:
        BdlitError: A model is missing or broken or does not fit, or the defense lacks something.
    """
    matching = matching or Matching()
    opened = open_others(suspect, others, matching)
    found = open_base(base, suspect) if base else None
    held = Held(
        base=found,
        clean=clean,
        supplied=(supplies or Supplies()).read(),
        training=training,
        start=(lambda: found.weights) if found is not None else None,
        recipe=recipe,
        archive=archive,
    )
    return fitted(suspect, defense, opened, held, matching)
