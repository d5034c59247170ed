"""How a model is trained, as plain data: recorded, and handed to `train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bdlit.errors import BdlitError

Schedule: TypeAlias = Literal["constant", "linear", "cosine"]
"""What the learning rate does after the warm-up."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is fine-tuned.

    Attributes:
        epochs: Passes over the rows; -1 where `steps` say when to end.
        learning_rate: Step size of Adam.
        eps: What Adam adds to the root of the second moment, above 0.
        batch_size: Rows per batch; a step has `accumulate` of them.
        rank: Rank of the LoRA adapters that are trained, and merged in the end; None trains all
            weights.
        alpha: Their updates are scaled by alpha / rank.
        precision: Precision of the training, as Lightning's Trainer calls it.
        seed: Seed of batches, dropout and everything that begins at random.
        dropout: Share of the adapters' inputs that is dropped, in [0, 1).
        target_modules: Names of the linear modules that get an adapter; None is all of them.
        steps: Steps after which training ends; -1 sets no limit.
        weight_decay: Decoupled weight decay (AdamW); 0 is plain Adam.
        warmup: Share of all steps over which the learning rate rises from 0, in [0, 1).
        schedule: What the learning rate does after the warm-up: stays (`constant`), falls to 0 at
            the last step (`linear`), or falls to 0 along a half cosine (`cosine`).
        frozen: Words; parameters whose name holds one of them are not trained.
        accumulate: Batches whose gradients make up one step.
        clip: Largest norm of the gradient; None does not clip.
        limit: Batches of an epoch: all of a share in [0, 1], or a number of them.
        init_seed: Seed of adapters, and of what the start lacks, such as a head; None is `seed`.
        max_length: Longest input in tokens, at least 1; None keeps the victim's.
    """

    epochs: int = 3
    learning_rate: float = 2e-4
    eps: float = 1e-8
    batch_size: int = 16
    rank: int | None = 8
    alpha: int = 16
    precision: str = "32-true"
    seed: int = 0
    dropout: float = 0.0
    target_modules: Sequence[str] | None = None
    steps: int = -1
    weight_decay: float = 0.0
    warmup: float = 0.0
    schedule: Schedule = "linear"
    frozen: Sequence[str] = ()
    accumulate: int = 1
    clip: float | None = None
    limit: int | float = 1.0
    init_seed: int | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        if not self.learning_rate >= 0:
            raise BdlitError(
                f"learning_rate {self.learning_rate} of a recipe is out of range: "
                "give a number of at least 0"
            )
        for name in ("batch_size", "alpha", "accumulate", "eps", "max_length"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BdlitError(
                    f"{name} {value} of a recipe is out of range: give a number above 0"
                )
        if self.rank is not None and self.rank < 1:
            raise BdlitError(
                f"rank {self.rank} of a recipe is out of range: give 1 or more, or "
                "null to train all weights"
            )
        if self.epochs < 1 and self.steps < 1:
            raise BdlitError(
                f"a recipe of {self.epochs} epochs and {self.steps} steps has no end: give "
                "1 epoch or more, or a number of steps"
            )

    @property
    def start_seed(self) -> int:
        """Seed of adapters, and of what the start lacks."""
        return self.seed if self.init_seed is None else self.init_seed
