"""The objective of a training: one class for attackers and for defenders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from bdlit.errors import BdlitError

if TYPE_CHECKING:
    from bdlit.types import Example
    from bdlit.victims.base import Batch, Victim


class Objective(nn.Module):
    """What a step of training minimises, in place of the victim's own loss.

    Every method has a default, and the defaults together are the victim's own training: a subclass
    overrides what it changes. An attack hands its objective to the victim that it poisons; a
    defense hands one to `train`.

    An objective is a module that is attached to the victim while it trains. So its parameters are
    optimised beside the victim's, its tensors move with the victim, its gradients are averaged over
    processes, and its parameters and buffers are part of every checkpoint. State of another kind
    (positions of rows, a phase) goes into the checkpoint through torch's `get_extra_state` and
    `set_extra_state`; it has to be plain data. A fit that is resumed then ends as if it had never
    been interrupted. Random numbers come from torch's global generator, which is seeded anew in
    every epoch.
    """

    def begin(self, victim: Victim, rows: Sequence[Example]) -> None:
        """Get ready, once, before the first step and before a checkpoint is loaded.

        Parameters and buffers that depend on the model or the rows are made here.

        Args:
            victim: The victim with its network, perhaps not yet on its device.
            rows: The training rows.
        """

    def tensors(self, victim: Victim, rows: Sequence[Example]) -> Batch:
        """Return the tensors of a batch of rows, on the CPU; by default the victim's."""
        return victim.tokenize(rows)

    def loss(self, victim: Victim, batch: Batch) -> Tensor:
        """Return the loss of each row, shape [rows]; by default the victim's."""
        return victim.loss(batch)

    def end_epoch(self, victim: Victim, rows: Sequence[Example]) -> None:
        """Look at the model after an epoch, before its checkpoint is written.

        Every process of a group calls this; `bdlit.training.measure_certainty` shares the rows out.
        """

    def files(self) -> Mapping[str, bytes]:
        """Return what was learned, as files by name that belong beside the trained model."""
        return {}

    @property
    def name(self) -> str:
        """The name of the class, for error lines and records."""
        return type(self).__name__


def checked_loss(objective: Objective, losses: Tensor, step: int) -> Tensor:
    """Return the losses of an objective, and refuse what cannot be minimised.

    Args:
        objective: Whose they are.
        losses: What it returned.
        step: Number of the step, for the error.

    Raises:
        BdlitError: They are not one number for each row, or one of them is NaN or infinity.

    >>> import torch
    >>> checked_loss(Objective(), torch.tensor([1.0, float("nan")]), step=3)
    Traceback (most recent call last):
    bdlit.errors.BdlitError: Objective gave a loss of NaN or infinity in step 3: lower the \
learning rate, or mend its `loss`
    """
    if losses.dim() != 1:
        raise BdlitError(
            f"{objective.name} gave losses of shape {list(losses.shape)}: `loss` returns one "
            "number for each row, shape [rows]"
        )
    if not bool(losses.detach().isfinite().all()):
        raise BdlitError(
            f"{objective.name} gave a loss of NaN or infinity in step {step}: lower the learning "
            "rate, or mend its `loss`"
        )
    return losses
