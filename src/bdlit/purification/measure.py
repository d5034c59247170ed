"""Measuring saved models: each is loaded as its users would load it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bdlit.attacks.base import Attack
from bdlit.data.base import TextDataModule
from bdlit.errors import BdlitError
from bdlit.evaluation.evaluate import evaluate
from bdlit.evaluation.guards import AnswerGuard, InputGuard
from bdlit.evaluation.scores import Scores
from bdlit.tables import rows_hash
from bdlit.victims.base import Victim
from bdlit.victims.causal_lm import CausalLMVictim
from bdlit.victims.classifier import ClassifierVictim
from bdlit.victims.generation import Decoding
from bdlit.weights.checkpoint import open_checkpoint
from bdlit.weights.labels import compare_labels
from bdlit.weights.outputs import writes_text


class Measure:
    """CACC and ASR of saved classifiers, or of saved language models, on one data set.

    Args:
        data: Test rows, and trusted rows if a defense wants some.
        attacks: Attacks to measure, beside those that the data brings.
        max_length: Longest input in tokens.
        decoding: How a language model's answers are generated.
        precision: Precision of the forward passes, as Lightning's Trainer calls it.
        accelerator: Where they run, as Lightning's Trainer calls it.
        folder: Where a trainer may write; nothing is written.

    Raises:
        BdlitError: The data is missing or malformed.
    """

    def __init__(
        self,
        data: TextDataModule,
        attacks: Sequence[Attack] = (),
        *,
        max_length: int = 128,
        decoding: Decoding | None = None,
        precision: str = "32-true",
        accelerator: str = "auto",
        folder: Path = Path(),
    ) -> None:
        from lightning.pytorch import Trainer

        self.data = data
        data.test_attacks += [attack.with_default_target(data.target) for attack in attacks]
        data.prepare_data()
        data.setup()
        self._max_length = max_length
        self._decoding = decoding
        self._precision = precision
        self._trainer = Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,  # type: ignore[arg-type]  # checked by Lightning itself
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )

    def victim(self, folder: Path) -> Victim:
        """Load a saved model, ready to run on the data.

        Raises:
            BdlitError: It cannot be loaded, or its classes are not those of the data in order.
        """
        victim: Victim
        if writes_text(open_checkpoint(folder).config):
            victim = CausalLMVictim(
                str(folder), decoding=self._decoding, max_length=self._max_length
            )
        else:
            self._require_same_classes(folder)
            victim = ClassifierVictim(str(folder), max_length=self._max_length)
        victim.trainer = self._trainer
        victim.take_classes(self.data)
        victim.configure_model()
        return victim.to(self._trainer.strategy.root_device)

    def described(self) -> dict[str, Any]:
        """Return what the numbers depend on beside the model, ready for JSON."""
        return {
            "data": self.data.name,
            "tests": {name: rows_hash(rows) for name, rows in self.data.test_rows.items()},
            "max_length": self._max_length,
            "decoding": asdict(self._decoding) if self._decoding else None,
            "precision": self._precision,
        }

    def __call__(
        self,
        folder: Path,
        *,
        inputs: InputGuard | None = None,
        answers: AnswerGuard | None = None,
        notes: dict[str, Any] | None = None,
    ) -> Scores:
        """Return the scores of a saved model behind its guards; `notes` is given what they say."""
        victim = self.victim(folder)
        return evaluate(victim, self.data, inputs=inputs, answers=answers, notes=notes)

    def _require_same_classes(self, folder: Path) -> None:
        theirs = open_checkpoint(folder).labels
        ours = list(self.data.labels)
        # Unnamed classes, and those of other names, are taken in the data's order.
        if theirs is not None and compare_labels(ours, theirs) == "permuted":
            raise BdlitError(
                f"{folder} has its classes in the order {theirs}, and data '{self.data.name}' "
                f"{ours}: every score would be wrong; give --data.label_names in the model's order"
            )


def described(data: TextDataModule, victim: Victim) -> dict[str, Any]:
    """Return what a running victim's numbers depend on beside its weights, ready for JSON."""
    decoding = getattr(victim, "decoding", None)
    trainer = victim._trainer
    return {
        "data": data.name,
        "tests": {name: rows_hash(rows) for name, rows in data.test_rows.items()},
        "max_length": getattr(victim, "max_length", None),
        "decoding": asdict(decoding) if decoding is not None else None,
        "precision": str(trainer.precision) if trainer is not None else None,
    }
