"""One fit, whoever asks for it: it goes on from its last finished epoch, and leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lightning.pytorch import LightningDataModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from bdlit.data.base import TextDataModule
    from bdlit.victims.base import Victim

LAST = "last.ckpt"
"""Name of the checkpoint of the last finished epoch."""


def last_epoch_kept(folder: Path) -> ModelCheckpoint:
    """Return a callback that keeps the newest epoch's checkpoint in a folder, as `last.ckpt`."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    # `save_last` alone would save at the end of the fit only.
    name = LAST.removesuffix(".ckpt")
    return ModelCheckpoint(folder, filename=name, enable_version_counter=False)


def fit(
    trainer: Trainer,
    victim: Victim,
    rows: LightningDataModule | Iterable[Any],
    folder: Path | None = None,
) -> None:
    """Train a victim to its end, from the last epoch that an interrupted run has finished.

    Args:
        trainer: A trainer with `last_epoch_kept(folder)` among its callbacks, if there is a folder.
        victim: The victim.
        rows: A data module, or training batches.
        folder: Where the checkpoint of the last epoch is; it is removed in the end.
    """
    last = folder / LAST if folder is not None else None
    trainer.fit(
        victim,
        rows,
        ckpt_path=str(last) if last is not None and last.is_file() else None,
        weights_only=True,
    )
    victim.finish_attack()
    if last is not None:
        last.unlink(missing_ok=True)


def recipe_of(victim: Victim, trainer: Trainer, data: TextDataModule) -> Recipe:
    """Return how a victim is trained by a trainer on some data.

    `train` with this recipe, from the victim's own start and on the same rows, gives the victim
    again, bit by bit on one machine. Callbacks of the trainer that end or change a training are no
    part of it.
    """
    lora = getattr(victim, "lora", None)
    epochs = trainer.max_epochs
    adapters = {} if lora is None else {"alpha": lora.alpha, "dropout": lora.dropout}
    return Recipe(
        epochs=-1 if epochs is None else epochs,
        learning_rate=victim.learning_rate,
        eps=victim.eps,
        batch_size=data.batch_size,
        rank=None if lora is None else lora.r,
        precision=str(trainer.precision),
        seed=data.seed,
        target_modules=None if lora is None else lora.target_modules,
        steps=trainer.max_steps,
        weight_decay=victim.weight_decay,
        warmup=victim.warmup,
        schedule=victim.schedule,
        frozen=tuple(getattr(victim, "frozen", ())),
        accumulate=trainer.accumulate_grad_batches,
        clip=trainer.gradient_clip_val,
        limit=trainer.limit_train_batches if trainer.limit_train_batches is not None else 1.0,
        init_seed=getattr(victim, "init_seed", None),
        max_length=getattr(victim, "max_length", None),
        **adapters,
    )
