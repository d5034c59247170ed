"""The model to judge and purify: a victim that is running, or a saved checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.defenses.base import Defended
from bdlit.defenses.passthrough import require_depth_kept
from bdlit.evaluation.scores import Scores
from bdlit.types import Weights
from bdlit.weights.tokenizer import TokenizerFacts

if TYPE_CHECKING:
    from bdlit.evaluation.evaluate import NamedTests
    from bdlit.merging.audit import Audit
    from bdlit.purification.held import Held
    from bdlit.victims.base import Victim


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How a purified model is computed and written.

    Attributes:
        workers: Number of threads that compute tensors.
        device: Where tensors are computed; they are written from the CPU.
        progress: Called with the bytes done and the bytes in all, from several threads.
        dense: Write a dense model even if the suspect is an adapter.
        rank: Write an adapter of this rank, by SVD, where no adapter is exactly the result.
        check: Called with the folder at the end; it raises if the model does not work.
    """

    workers: int = 1
    device: str = "cpu"
    progress: Callable[[int, int], None] = lambda done, total: None
    dense: bool = False
    rank: int | None = None
    check: Callable[[Path], Any] | None = None


class Suspect(ABC):
    """A model to purify.

    Attributes:
        address: What it is called in records: where it is, or the name of a victim.
    """

    address: str

    @property
    @abstractmethod
    def weights(self) -> Weights:
        """Its weights, perhaps lazy."""

    @property
    @abstractmethod
    def model_type(self) -> str | None:
        """Its architecture, as transformers calls it; None where nothing says it."""

    @property
    @abstractmethod
    def labels(self) -> Sequence[str] | None:
        """Class names in the order of the head's rows; None where nothing says them."""

    @property
    @abstractmethod
    def words(self) -> TokenizerFacts | None:
        """Its tokenizer, as plain data; None where there is none."""

    @property
    @abstractmethod
    def runnable(self) -> bool:
        """Whether it can be run on rows."""

    @abstractmethod
    def victim(self) -> Victim:
        """Return it as a module to run, a plain Hugging Face model.

        Raises:
            BdlitError: It cannot be run.
        """

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Hash of its content; see `bdlit.weights.fingerprint`."""

    @abstractmethod
    def identity(self) -> Any:
        """Return what tells its content from another's, quickly, ready for JSON."""

    @abstractmethod
    def adapted(self, defense: Any, held: Held, writing: Writing) -> Defended | None:
        """Return what a defense makes of adapters as one adapter, where that is exact."""

    @abstractmethod
    def settled(
        self, defended: Defended, audit: Audit, folder: Path | None, writing: Writing
    ) -> Defended:
        """Compute every tensor of a result once, with the audit looking on.

        Args:
            defended: The result, perhaps lazy.
            audit: Told of every tensor.
            folder: Where the weights are written; None keeps them in memory.
            writing: How.
        """

    @abstractmethod
    def carry(self, defended: Defended, folder: Path) -> list[str]:
        """Write beside the weights what a model needs to be loaded; return what was left behind."""

    @abstractmethod
    def measure(
        self, tests: NamedTests, defended: Defended | None = None, folder: Path | None = None
    ) -> tuple[Scores, dict[str, Any]]:
        """Return the scores of the suspect, or of what was made of it, and notes of its guards.

        Every process of a group calls this.

        Args:
            tests: The test rows.
            defended: What is deployed in its place.
            folder: Where that was written, if it was.
        """


@dataclass
class LiveSuspect(Suspect):
    """A victim on its device, as a plain Hugging Face model (see `Victim.dense`).

    Attributes:
        module: The victim.
        address: What it is called in records.
        origin: Folder that holds the same model, if one does, for its identity.
    """

    module: Victim
    address: str = "victim"
    origin: Path | None = None

    @property
    def weights(self) -> Weights:
        """The network's own tensors."""
        from bdlit.weights.network import model_weights

        return model_weights(self.module.network())

    @property
    def model_type(self) -> str | None:
        """The architecture."""
        return str(self.module.network().config.model_type)

    @property
    def labels(self) -> Sequence[str] | None:
        """The victim's classes; None of a language model."""
        return self.module.labels

    @cached_property
    def words(self) -> TokenizerFacts | None:
        """The words of the victim's tokenizer."""
        if self.module.tokenizer is None:
            return None
        found = self.module.tokenizer.get_vocab()
        return TokenizerFacts((), "", {index: word for word, index in found.items()})

    @property
    def runnable(self) -> bool:
        """It can be run."""
        return True

    def victim(self) -> Victim:
        """Return the victim."""
        return self.module

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights, computed once: the victim stays as it is while it is purified."""
        from bdlit.weights import fingerprint

        return fingerprint(self.weights)

    def identity(self) -> Any:
        """Return the files of the same model, or the hash of the weights."""
        if self.origin is None:
            return self.sha256
        from bdlit.purification.identity import files_of
        from bdlit.weights import open_weights

        return files_of(open_weights(self.origin))

    def adapted(self, defense: Any, held: Held, writing: Writing) -> Defended | None:
        """A running victim is purified as a dense model."""
        return None

    def settled(
        self, defended: Defended, audit: Audit, folder: Path | None, writing: Writing
    ) -> Defended:
        """Compute every tensor, into memory."""
        require_depth_kept(defended, self.weights)
        weights = dict(defended.weights)  # a lazy merge is computed here
        for name, tensor in weights.items():
            audit(name, tensor)
        return replace(defended, weights=weights)

    def carry(self, defended: Defended, folder: Path) -> list[str]:
        """Write weights, configuration and tokenizer, as transformers writes them."""
        from bdlit.weights.network import swapped

        with swapped(self.module.network(), defended.weights):
            self.module.save_pretrained(folder)
        return []

    def measure(
        self, tests: NamedTests, defended: Defended | None = None, folder: Path | None = None
    ) -> tuple[Scores, dict[str, Any]]:
        """Measure the victim, with the purified weights in place of its own."""
        from bdlit.evaluation.evaluate import evaluate

        notes: dict[str, Any] = {}
        if defended is None:
            return evaluate(self.module, tests), notes
        scores = evaluate(
            self.module,
            tests,
            None if defended.is_suspect else defended.weights,
            inputs=defended.inputs,
            answers=defended.answers,
            notes=notes,
        )
        return scores, notes


@contextmanager
def apart(victim: Victim | None) -> Iterator[None]:
    """Have a victim without its trainer for a while: a defense cannot reach the data through it."""
    if victim is None:
        yield
        return
    trainer, victim._trainer = victim._trainer, None
    try:
        yield
    finally:
        victim._trainer = trainer
