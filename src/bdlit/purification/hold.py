"""Opening what is held beside a suspect, checked for one defense: the Python door."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bdlit.defenses.base import Defense
from bdlit.purification.compatibility import Matching, fitted, open_base, open_others
from bdlit.purification.held import Held
from bdlit.recipe import Recipe
from bdlit.tables import column, read_sliced
from bdlit.types import Example

if TYPE_CHECKING:
    from bdlit.purification.suspect import Suspect
    from bdlit.training.dynamics import TrainingSet


def hold(
    suspect: Suspect,
    defense: Defense,
    *,
    others: Sequence[str] = (),
    base: str | None = None,
    clean: Sequence[Example] = (),
    texts: str | None = None,
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
        texts: File with a column `text` of plain texts, perhaps with a slice behind its name.
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
        texts=read_texts(texts) if texts else (),
        training=training,
        start=(lambda: found.weights) if found is not None else None,
        recipe=recipe,
        archive=archive,
    )
    return fitted(suspect, defense, opened, held, matching)


def read_texts(file: str) -> list[str]:
    """Return the texts of a table's column `text`.

    Raises:
        BdlitError: The file cannot be read, or has no such column.
    """
    return [str(text) for text in column(read_sliced(file), "text", file) if text]
