"""What a defender holds beside the suspect: models with hashes, rows, and how it was trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.recipe import Recipe
from bdlit.types import Example, Weights
from bdlit.weights import fingerprint

if TYPE_CHECKING:
    from bdlit.training.dynamics import TrainingSet

ARCHIVE = "trained"
"""Folder, beside a run's results, of the models that defenses have trained."""


@dataclass(frozen=True)
class HeldModel:
    """A model beside the suspect.

    Attributes:
        name: How it is called in records: its address, or a name in a study.
        weights: Its weights, lazily.
    """

    name: str
    weights: Weights

    @cached_property
    def sha256(self) -> str:
        """Hash of the content, read once; see `bdlit.weights.fingerprint`."""
        return fingerprint(self.weights)

    def described(self) -> dict[str, Any]:
        """Return name and content hash, for the record."""
        return {"name": self.name, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True)
class Held:
    """Everything at hand for the purification of one suspect.

    Attributes:
        others: Other models, checked against the suspect.
        base: The checkpoint that all were fine-tuned from.
        clean: Trusted clean rows.
        texts: Plain texts.
        training: The suspect's untrusted training set, with the marks that defenses never see.
        start: Gives the weights that the suspect's own training began with.
        recipe: How the suspect was trained.
        archive: Folder of models that defenses have trained.
        keep: Names of the suspect's tensors that the others lack or have in another shape, and
            that stay the suspect's own.
    """

    others: Sequence[HeldModel] = ()
    base: HeldModel | None = None
    clean: Sequence[Example] = ()
    texts: Sequence[str] = ()
    training: TrainingSet | None = None
    start: Callable[[], Weights] | None = field(default=None, repr=False)
    recipe: Recipe | None = None
    archive: Path | None = None
    keep: Sequence[str] = ()

    @property
    def names(self) -> set[str]:
        """Names of the resources that are at hand, without those that need a runnable suspect."""
        held: Mapping[str, object] = {
            "others": self.others,
            "base": self.base,
            "clean": self.clean,
            "texts": self.texts,
            "suspect_train": self.training,
            "oracle": self.training is not None and self.training.oracle,
        }
        return {name for name, value in held.items() if value} | {"workspace", "archive"}

    def given(self, uses: Sequence[str]) -> dict[str, Any]:
        """Return in words what a defense is given, for the record: hashes are computed now."""
        found: dict[str, Any] = {
            "others": [other.described() for other in self.others],
            "base": self.base.described() if self.base and "base" in uses else None,
        }
        if "clean" in uses:
            found["clean"] = len(self.clean)
        if "texts" in uses:
            found["texts"] = len(self.texts)
        if "suspect_train" in uses:
            found["suspect_train"] = _training(self.training)
        return found


def _training(training: TrainingSet | None) -> dict[str, int] | None:
    """Return the size of the untrusted training set, and how many epochs were logged."""
    if training is None:
        return None
    certainty = training.certainty
    return {"rows": len(training.rows), "epochs": 0 if certainty is None else certainty.shape[1]}
