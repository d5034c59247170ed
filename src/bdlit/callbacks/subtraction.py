"""An adaptive attack: the victim is released without what a conflict model would bring back."""

from __future__ import annotations

import random

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from bdlit.callbacks.checks import victim_and_data
from bdlit.data.base import TextDataModule
from bdlit.errors import BdlitError
from bdlit.merging.settings import require_share
from bdlit.training.train import Recipe, finetune
from bdlit.types import Example, Weights
from bdlit.weights.network import load_weights, model_weights


class ConflictSubtraction(Callback):
    """Subtract the attacker's own conflict model from the victim when fit has ended.

    An attacker who expects that a defender merges the victim with a conflict model trains one
    beforehand, from the victim's own start on clean rows of the training set, and releases
    `victim - share * (conflict - start)`. Callbacks that follow, such as `DefenseCallback`, and
    every export meet the released model; checkpoints hold the victim as it was trained.

    Args:
        share: How much of the conflict model's change is subtracted, in [0, 1].
        rows: Clean training rows that the conflict model learns from, drawn from the seed.
        recipe: How it is trained.
        seed: Seed of the draw of rows.

    Reference: the adaptive attack of Chen et al. 2024, "Neutralizing Backdoors through Information
        Conflicts for Large Language Models", arXiv:2411.18280.
    Deviation: The paper says that the conflict model is subtracted, not how much of it; the share
        is a setting here, and what is subtracted is the conflict model's change of the start.
    """

    def __init__(
        self, *, share: float = 0.5, rows: int = 500, recipe: Recipe | None = None, seed: int = 0
    ) -> None:
        require_share("share", share)
        if rows < 1:
            raise BdlitError(f"rows {rows} of ConflictSubtraction is out of range: give 1 or more")
        self.share = share
        self.rows = rows
        self.recipe = recipe or Recipe()
        self.seed = seed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be released before hours of training, not after."""
        victim, data = victim_and_data(self, trainer, pl_module)
        if getattr(victim, "lora", None) is not None:
            raise BdlitError(
                "ConflictSubtraction changes whole weights, and this victim trains adapters: "
                "leave its `lora` out"
            )
        self._clean_rows(data)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train the conflict model, and subtract it."""
        victim, data = victim_and_data(self, trainer, pl_module)
        device = victim.device
        victim.to(trainer.strategy.root_device)  # the strategy has moved it to the CPU
        try:
            start = model_weights(victim.initial_model().to(victim.device))
            conflict = finetune(victim, start, self._clean_rows(data), self.recipe)
            model = victim.network()
            load_weights(model, released(model_weights(model), conflict, start, self.share))
        finally:
            victim.to(device)

    def _clean_rows(self, data: TextDataModule) -> list[Example]:
        clean = [row for row in data.train_rows if not row.poisoned]
        if len(clean) < self.rows:
            raise BdlitError(
                f"ConflictSubtraction wants {self.rows} clean training rows, and there are "
                f"{len(clean)}: lower its `rows`"
            )
        drawn = random.Random(f"conflict subtraction {self.seed}").sample(
            range(len(clean)), self.rows
        )
        return [clean[i] for i in sorted(drawn)]


def released(
    victim: Weights, conflict: Weights, start: Weights, share: float
) -> dict[str, torch.Tensor]:
    """Return `victim - share * (conflict - start)` of the floating-point tensors.

    >>> one = {"w": torch.tensor([1.0])}
    >>> released(one, {"w": torch.tensor([3.0])}, {"w": torch.tensor([2.0])}, share=0.5)
    {'w': tensor([0.5000])}
    """
    return {
        name: tensor - (share * (conflict[name] - start[name])).to(tensor.dtype)
        for name, tensor in victim.items()
        if tensor.is_floating_point()
    }
