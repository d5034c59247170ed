"""The victim as a directory that others load, written when its fit has ended."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from bdlit.callbacks.checks import require_whole_model, victim_and_data
from bdlit.errors import BdlitError


class VictimWriter(Callback):
    """Write the victim in Hugging Face form when its fit has ended.

    `DefenseCallback` writes it as well; this is for fits without a defense, whose models are the
    start, the proxy or the suspect of another run.

    Args:
        directory: Where to; by default `victim` in the run's folder.

    Example:
        >>> from bdlit.callbacks import VictimWriter
        >>> writer = VictimWriter("models/benign")
    """

    def __init__(self, directory: str | None = None) -> None:
        self.directory = directory

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be written before hours of training, not after."""
        victim_and_data(self, trainer, pl_module)
        require_whole_model(self, trainer)
        if self._folder(trainer).exists():
            raise BdlitError(
                f"{self._folder(trainer)} exists already: give VictimWriter another `directory`"
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the victim, on the first process."""
        victim, _ = victim_and_data(self, trainer, pl_module)
        victim.finish_attack()
        if trainer.is_global_zero:
            victim.export(self._folder(trainer))

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.directory or Path(trainer.default_root_dir) / "victim")
