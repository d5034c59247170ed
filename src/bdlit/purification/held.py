"""What a defender holds beside the suspect: models with hashes, rows, and how it was trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.defenses.base import Resources
from bdlit.recipe import Recipe
from bdlit.tables import rows_hash
from bdlit.types import Example, Weights
from bdlit.weights import fingerprint

if TYPE_CHECKING:
    from bdlit.training.dynamics import TrainingSet
    from bdlit.victims.base import Victim

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
        training: The suspect's untrusted training set, with the marks that defenses never see.
        start: Gives the weights that the suspect's own training began with.
        recipe: How the suspect was trained.
        archive: Folder of models that defenses have trained.
        supplied: Name of a resource to its value, of those that a user gives as a file or a
            setting; see `bdlit.purification.hold.Supplies`.
        keep: Names of the suspect's tensors that the others lack or have in another shape, and
            that stay the suspect's own.
        left_out: Name of an other model to those of its tensors that the suspect has not, and
            that no defense is given.
    """

    others: Sequence[HeldModel] = ()
    base: HeldModel | None = None
    clean: Sequence[Example] = ()
    training: TrainingSet | None = None
    start: Callable[[], Weights] | None = field(default=None, repr=False)
    recipe: Recipe | None = None
    archive: Path | None = None
    supplied: Mapping[str, Any] = field(default_factory=dict)
    keep: Sequence[str] = ()
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Names of the resources that are at hand, without those that need a runnable suspect."""
        held: Mapping[str, object] = {
            "others": self.others,
            "base": self.base,
            "clean": self.clean,
            "suspect_train": self.training,
            "oracle": self.training is not None and self.training.oracle,
            **self.supplied,
        }
        return {name for name, value in held.items() if value} | {"workspace", "archive"}

    def resources(self, uses: Sequence[str], victim: Victim | None, work: Path | None) -> Resources:
        """Return what a defense may be given; no row of it is marked.

        Args:
            uses: What the defense has declared.
            victim: The suspect as a module, if it can be run.
            work: Folder for what a long computation has finished.
        """
        from bdlit.training.train import Train

        training = self.training if {"suspect_train", "oracle"} & set(uses) else None
        trains = victim is not None and "train" in uses
        return Resources(
            others=[other.weights for other in self.others],
            base=self.base.weights if self.base else None,
            clean=[row.unmarked for row in self.clean] or None,
            suspect_train=training.unmarked if training else None,
            oracle=training.oracle if training else None,
            victim=victim,
            train=Train(victim, self.start, self.recipe, work) if victim and trains else None,
            workspace=work,
            archive=self.archive,
            **self.supplied,
        )

    def given(self, uses: Sequence[str]) -> dict[str, Any]:
        """Return in words what a defense is given, for the record: hashes are computed now."""
        found: dict[str, Any] = {
            "others": [other.described() for other in self.others],
            "base": self.base.described() if self.base and "base" in uses else None,
        }
        if "clean" in uses:
            found["clean"] = len(self.clean)
        if "suspect_train" in uses:
            found["suspect_train"] = _training(self.training)
        for name in self._supplied(uses):
            found[name] = len(self.supplied[name])
        return found

    def identity(self, uses: Sequence[str]) -> dict[str, Any]:
        """Return what tells the rows and settings that a defense is given from others."""
        rows: dict[str, Any] = {}
        if "clean" in uses:
            rows["clean"] = rows_hash(self.clean)
        if "suspect_train" in uses:
            rows["suspect_train"] = rows_hash(self.training.rows if self.training else ())
        for name in self._supplied(uses):
            rows[name] = sha256(json.dumps(self.supplied[name]).encode()).hexdigest()
        return {
            "rows": rows,
            "dynamics": _dynamics(self.training) if "suspect_train" in uses else None,
            "recipe": asdict(self.recipe) if self.recipe and "train" in uses else None,
        }

    def _supplied(self, uses: Sequence[str]) -> list[str]:
        return [name for name in self.supplied if name in uses]


def _training(training: TrainingSet | None) -> dict[str, int] | None:
    """Return the size of the untrusted training set, and how many epochs were logged."""
    if training is None:
        return None
    certainty = training.certainty
    return {"rows": len(training.rows), "epochs": 0 if certainty is None else certainty.shape[1]}


def _dynamics(training: TrainingSet | None) -> str | None:
    if training is None or training.certainty is None:
        return None
    return sha256(training.certainty.contiguous().numpy().tobytes()).hexdigest()
