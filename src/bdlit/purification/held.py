"""What a defender holds beside the suspect: saved models, opened, checked, and put into a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.defenses.base import Defense, Resources
from bdlit.errors import BdlitError
from bdlit.types import Example, Weights
from bdlit.weights import fingerprint, open_weights, require_compatible

if TYPE_CHECKING:
    from bdlit.data.base import TextDataModule
    from bdlit.training.dynamics import TrainingSet
    from bdlit.training.train import FineTune
    from bdlit.victims.base import Victim


ARCHIVE = "trained"
"""Folder, beside a run's results, of the models that defenses have trained."""


@dataclass(frozen=True)
class Relative:
    """A saved model beside the suspect.

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
class Job:
    """One defense to be run on a suspect, with what the defender holds.

    Attributes:
        name: Name of the defense in folders, logs and results.
        defense: The method.
        others: Other models.
        base: The checkpoint that all were fine-tuned from.
        clean: Trusted clean rows.
        victim: The suspect as a module to run, a plain Hugging Face model.
        suspect_train: The suspect's untrusted training set.
        workspace: Folder for what a long computation has finished.
        archive: Folder of models that defenses have trained.
    """

    name: str
    defense: Defense
    others: Sequence[Relative] = ()
    base: Relative | None = None
    clean: Sequence[Example] = ()
    victim: Victim | None = None
    suspect_train: TrainingSet | None = None
    workspace: Path | None = None
    archive: Path | None = None

    @property
    def resources(self) -> Resources:
        """What the defense may be given; it gets what it declares, and not what is not there."""
        return Resources(
            others=[other.weights for other in self.others],
            base=self.base.weights if self.base else None,
            clean=list(self.clean) or None,
            victim=self.victim,
            suspect_train=self.suspect_train,
            finetune=self._finetune(),
            workspace=self.workspace,
            archive=self.archive,
        )

    @property
    def given(self) -> dict[str, Any]:
        """The same in words, for the record: names and hashes, which are read now."""
        return {
            "others": [other.described() for other in self.others],
            "base": self.base.described() if self.base and "base" in self.defense.needs else None,
            **({"clean": len(self.clean)} if "clean" in self.defense.uses else {}),
            **({"suspect_train": self._training()} if "suspect_train" in self.defense.uses else {}),
        }

    def _finetune(self) -> FineTune | None:
        if self.victim is None or "finetune" not in self.defense.uses:
            return None
        from bdlit.training.train import finetune_like

        return finetune_like(self.victim)

    def _training(self) -> dict[str, int] | None:
        """Return the size of the untrusted training set, and how many epochs were logged."""
        if self.suspect_train is None:
            return None
        certainty = self.suspect_train.certainty
        epochs = 0 if certainty is None else certainty.shape[1]
        return {"rows": len(self.suspect_train.rows), "epochs": epochs}


def require_clean_rows(defenses: Mapping[str, Defense], data: TextDataModule) -> None:
    """Refuse defenses that need trusted clean rows where the data keeps none.

    Raises:
        BdlitError: A defense needs clean rows, and the data's `clean_pool_size` is 0.
    """
    needy = [name for name, defense in defenses.items() if defense.needs_clean]
    if needy and not data.clean_pool_size:
        raise BdlitError(
            f"{', '.join(needy)} needs trusted clean rows, and data '{data.name}' keeps none: "
            "set its clean_pool_size (100, say)"
        )


def open_relative(address: str, victim: Victim, name: str | None = None) -> Relative:
    """Open a saved model and require that it can be merged with the victim.

    Args:
        address: What `open_weights` takes.
        victim: The suspect, as a plain Hugging Face model (see `Victim.dense`).
        name: Name in records; the address by default.

    Raises:
        BdlitError: There is no model, its tensors have other names or shapes, or its tokenizer
            has another vocabulary.
    """
    from bdlit.weights.network import model_weights

    weights = open_weights(address)
    require_compatible(model_weights(victim.network()), [weights], labels=[address])
    _require_same_vocabulary(victim, address)
    return Relative(name or address, weights)


def _require_same_vocabulary(victim: Victim, address: str) -> None:
    directory = Path(address)
    if victim.tokenizer is None or not (directory / "tokenizer_config.json").is_file():
        return  # bare weights bring no tokenizer; their shapes have been compared
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(directory).get_vocab()
    ours = victim.tokenizer.get_vocab()
    if theirs != ours:
        word = min(theirs.items() ^ ours.items())[0]
        raise BdlitError(
            f"{address} has another vocabulary than the suspect (they differ at '{word}'): "
            "models can be merged only if they share one tokenizer"
        )
