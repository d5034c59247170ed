"""Training dynamics, logged during a fit for defenses that rank the training rows by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from bdlit.callbacks.checks import victim_and_data
from bdlit.training.dynamics import DYNAMICS_FILE, measure_certainty, save_certainty


class TrainingDynamics(Callback):
    """Log after each epoch how sure the victim is of every training row's label or answer.

    The run's folder gets `dynamics.safetensors`: -log(1 - p) of each row and epoch, where p is the
    probability of the row's label, or the geometric mean over the tokens of the answer that a
    language model is taught, measured in eval mode on the whole training set (one pass without
    gradients per epoch). A fit that is resumed goes on with the epochs that its checkpoint brings.

    Attributes:
        certainty: What was logged, float64, shape [rows, epochs]; None before the first epoch.

    Example:
        >>> from bdlit.callbacks import TrainingDynamics
        >>> callback = TrainingDynamics()
    """

    def __init__(self) -> None:
        self.certainty: Tensor | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew with every fit; what a checkpoint brings is taken up after this."""
        self.certainty = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, and write what is known so far."""
        victim, data = victim_and_data(self, trainer, pl_module)
        epoch = measure_certainty(victim, data.train_rows, data.eval_batch_size)[:, None]
        before = [] if self.certainty is None else [self.certainty]
        self.certainty = torch.cat([*before, epoch], dim=1)
        if trainer.is_global_zero:
            save_certainty(
                self.certainty, data.train_rows, Path(trainer.default_root_dir) / DYNAMICS_FILE
            )

    def state_dict(self) -> dict[str, Any]:
        """Keep the epochs so far in the checkpoint."""
        return {"certainty": self.certainty}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the epochs of a checkpoint."""
        self.certainty = state_dict["certainty"]
