"""Fine-tuning as a function, for defenses that train a model of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from bdlit.types import Example, Weights

if TYPE_CHECKING:
    from bdlit.victims.base import Victim

Precision: TypeAlias = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is fine-tuned.

    Attributes:
        epochs: Passes over the rows.
        learning_rate: Step size of Adam.
        batch_size: Rows per step.
        rank: Rank of the LoRA adapters that are trained, and merged in the end.
        alpha: Their updates are scaled by alpha / rank.
        precision: Precision of the training, as Lightning's Trainer calls it.
        seed: Seed of batches, dropout and everything that begins at random.
    """

    epochs: int = 3
    learning_rate: float = 2e-4
    batch_size: int = 16
    rank: int = 8
    alpha: int = 16
    precision: Precision = "32-true"
    seed: int = 0


class FineTune(Protocol):
    """Fine-tunes a model on rows."""

    def __call__(
        self,
        start: Weights,
        rows: Sequence[Example],
        recipe: Recipe,
        workspace: Path | None = None,
    ) -> Weights:
        """Return the fine-tuned weights; see `finetune`."""


def finetune_like(victim: Victim) -> FineTune:
    """Return `finetune` for models of a victim's architecture, with its tokenizer."""
    return partial(finetune, victim)


def finetune(
    victim: Victim,
    start: Weights,
    rows: Sequence[Example],
    recipe: Recipe,
    workspace: Path | None = None,
) -> Weights:
    """Fine-tune a model by LoRA, through Lightning, and return it with the adapters merged.

    The victim gives architecture, tokenizer, prompts and device; its weights have no part in it.
    A process of a group trains by itself, and all of them come to the same result.

    Args:
        victim: A victim with a plain Hugging Face model.
        start: Weights to begin with, under the victim's names. What they lack, such as the head of
            a checkpoint that was never fine-tuned, begins at random from the recipe's seed.
        rows: What to train on.
        recipe: How.
        workspace: Folder of the last epoch's checkpoint, from which an interrupted training goes
            on; None keeps nothing.

    Returns:
        The weights by the victim's names, in float32, in memory.

    Raises:
        BdlitError: `start` has a tensor that the victim lacks, or one of another shape.
    """
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint

    from bdlit.data.loaders import training_loader
    from bdlit.progress import progress
    from bdlit.ranks import alone
    from bdlit.victims.lora import LoRA
    from bdlit.weights.network import model_weights

    fresh = victim.twin(
        start,
        lora=LoRA(r=recipe.rank, alpha=recipe.alpha),
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
    )
    keep = ModelCheckpoint(workspace, filename="last", enable_version_counter=False)
    last = workspace / "last.ckpt" if workspace else None
    device = victim.device
    # A second bar of Lightning's would take down the one of the fit that this may be part of.
    with alone(), _seeded(recipe.seed), progress("fine-tuning") as tell:

        def watch(trainer: Trainer, *_: object) -> None:
            tell(trainer.global_step, int(trainer.estimated_stepping_batches))

        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=1 if device.index is None else [device.index],
            max_epochs=recipe.epochs,
            precision=recipe.precision,
            logger=False,
            enable_checkpointing=workspace is not None,
            callbacks=[LambdaCallback(on_train_batch_end=watch), *([keep] if workspace else [])],
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=workspace,
        )
        trainer.fit(
            fresh,
            training_loader(list(rows), recipe.batch_size, recipe.seed),
            ckpt_path=str(last) if last and last.is_file() else None,
            weights_only=True,
        )
    with fresh.dense() as model:
        return {name: tensor.to(device) for name, tensor in model_weights(model).items()}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed everything for a while; the random state of the run around it stays as it is."""
    from lightning.pytorch import seed_everything
    from lightning.pytorch.utilities.seed import isolate_rng

    before = os.environ.get("PL_GLOBAL_SEED")
    try:
        with isolate_rng():
            seed_everything(seed, verbose=False)
            yield
    finally:
        os.environ.pop("PL_GLOBAL_SEED", None)
        if before is not None:
            os.environ["PL_GLOBAL_SEED"] = before
