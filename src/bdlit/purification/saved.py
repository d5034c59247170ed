"""A saved checkpoint as the suspect: read lazily, written in its own form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.atomic import whole_directory
from bdlit.defenses.base import Defended
from bdlit.errors import BdlitError
from bdlit.evaluation.scores import Scores
from bdlit.purification.as_adapter import AsAdapter, as_adapter, exact_adapter, low_rank_adapter
from bdlit.purification.identity import files_of
from bdlit.purification.suspect import Suspect, Writing
from bdlit.purification.write import write_like
from bdlit.types import Weights
from bdlit.weights import AdapterWeights, fingerprint, save_weights, write_adapter
from bdlit.weights.adapters.config import CONFIG_NAME as ADAPTER_CONFIG
from bdlit.weights.checkpoint import Checkpoint, open_checkpoint
from bdlit.weights.depth import with_depth
from bdlit.weights.tokenizer import TokenizerFacts

if TYPE_CHECKING:
    from bdlit.evaluation.evaluate import NamedTests
    from bdlit.merging.audit import Audit
    from bdlit.purification.held import Held
    from bdlit.purification.measure import Measure
    from bdlit.victims.base import Victim

EXPORTED = "suspect"
"""Folder of a suspect that came as a Lightning checkpoint, in the form in which it can be run."""


@dataclass
class SavedSuspect(Suspect):
    """A saved checkpoint.

    Attributes:
        checkpoint: The model.
        runner: Loads saved models and measures them; None where there is no data to run them on.
        folder: Folder of the run, for a form of the suspect that can be run.
    """

    checkpoint: Checkpoint
    runner: Measure | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        self.address = self.checkpoint.address

    @property
    def weights(self) -> Weights:
        """The tensors, lazily; those of an adapter are merged into its base."""
        return self.checkpoint.weights

    @cached_property
    def model_type(self) -> str | None:
        """The architecture that the configuration names."""
        named = self.checkpoint.config.get("model_type")
        return None if named is None else str(named)

    @cached_property
    def labels(self) -> Sequence[str] | None:
        """The classes that the configuration names."""
        return self.checkpoint.labels

    @cached_property
    def words(self) -> TokenizerFacts | None:
        """The tokenizer beside the weights."""
        return self.checkpoint.words

    @property
    def runnable(self) -> bool:
        """Whether there is data to run it on."""
        return self.runner is not None

    def victim(self) -> Victim:
        """Load the suspect as its users would."""
        if self.runner is None:
            raise BdlitError(f"{self.address} can be run on data only: give --data")
        return self.runner.victim(self.runnable_folder())

    def runnable_folder(self) -> Path:
        """Return a folder from which transformers loads the suspect, made now if need be.

        Raises:
            BdlitError: Nothing says what architecture the weights are of.
        """
        if self.checkpoint.folder is not None:
            return self.checkpoint.folder
        if self.checkpoint.lightning is None or self.folder is None:
            raise BdlitError(
                f"{self.address} has no config.json beside it, so it cannot be run: give the "
                "directory of the model, or leave --data out"
            )
        exported = self.folder / EXPORTED
        if not exported.exists():
            with whole_directory(exported) as part:
                save_weights(self.weights, part)
                self.checkpoint.carry(part)
        return exported

    @cached_property
    def sha256(self) -> str:
        """Hash of the content, read once."""
        return fingerprint(self.weights)

    def identity(self) -> Any:
        """Return path, size and time of the files."""
        return files_of(self.weights)

    def adapted(self, defense: Any, held: Held, writing: Writing) -> Defended | None:
        """Return what a defense makes of adapters as one adapter, where that is exact."""
        if writing.dense or held.keep:
            return None
        return exact_adapter(defense, self.weights, held.others)

    def settled(
        self, defended: Defended, audit: Audit, folder: Path | None, writing: Writing
    ) -> Defended:
        """Compute every tensor, into the folder if there is one."""
        if writing.rank is not None and not isinstance(defended, AsAdapter):
            defended = self._low_rank(defended, writing.rank)
        if isinstance(defended, AsAdapter):
            for name in defended.weights:
                audit(name, defended.weights[name])
            if folder is not None:
                adapter = defended.adapter
                write_adapter(adapter.factors, adapter.saved, adapter.config, folder)
        elif folder is not None and not defended.is_suspect:
            write_like(self.weights, defended.weights, audit, folder, writing)
        else:
            for name in defended.weights:
                audit(name, defended.weights[name])
        return defended

    def _low_rank(self, defended: Defended, rank: int) -> AsAdapter:
        found, notes = low_rank_adapter(self.weights, defended.weights, rank)
        assert isinstance(self.weights, AdapterWeights)
        others = defended.notes.get("models", 1) - 1
        written = as_adapter(found, self.weights, others, notes, set(defended.copied))
        return replace(
            written,
            notes={**written.notes, **defended.notes},
            files=defended.files,
            chosen=defended.chosen,
            inputs=defended.inputs,
            answers=defended.answers,
        )

    def carry(self, defended: Defended, folder: Path) -> list[str]:
        """Copy configuration and tokenizer, nothing that would run code."""
        left = self.checkpoint.carry(folder, dense=not (folder / ADAPTER_CONFIG).exists())
        _set_depth(folder / "config.json", defended)
        return left

    def measure(
        self, tests: NamedTests, defended: Defended | None = None, folder: Path | None = None
    ) -> tuple[Scores, dict[str, Any]]:
        """Load what was written, or the suspect itself, and measure it."""
        assert self.runner is not None
        notes: dict[str, Any] = {}
        if defended is None:
            return self.runner(self.runnable_folder()), notes
        where = self.runnable_folder() if defended.is_suspect or folder is None else folder
        scores = self.runner(where, inputs=defended.inputs, answers=defended.answers, notes=notes)
        return scores, notes


def open_suspect(
    address: str,
    *,
    runner: Measure | None = None,
    folder: Path | None = None,
    adapter_base: str | None = None,
) -> SavedSuspect:
    """Open a saved model as a suspect; nothing in it is run.

    Args:
        address: What `open_weights` takes: directory, file, or hub id.
        runner: Loads and measures it, where there is data.
        folder: Folder of the run.
        adapter_base: The model that an adapter is merged into; by default the one it names.

    Raises:
        BdlitError: There is no model, or it cannot be opened without running code.
    """
    return SavedSuspect(open_checkpoint(address, adapter_base=adapter_base), runner, folder)


def _set_depth(file: Path, defended: Defended) -> None:
    """Write the number of layers into the configuration, where the defense changed it."""
    if defended.depth is None or not file.is_file():
        return
    config = json.loads(file.read_text("utf-8"))
    deeper = with_depth(config, defended.depth, defended.layers)
    file.write_text(json.dumps(deeper, indent=2) + "\n")
