"""What callbacks that work on a victim and its rows are given by the trainer."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from bdlit.data.base import TextDataModule
from bdlit.errors import BdlitError
from bdlit.victims.base import Victim


def victim_and_data(
    callback: Callback, trainer: Trainer, module: LightningModule
) -> tuple[Victim, TextDataModule]:
    """Return the module and the data of a fit as what they are.

    Raises:
        BdlitError: They are something else.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(module, Victim) or not isinstance(data, TextDataModule):
        raise BdlitError(
            f"{type(callback).__name__} needs a bdlit Victim, and a TextDataModule given to "
            "trainer.fit as `datamodule`"
        )
    return module, data


def require_whole_model(callback: Callback, trainer: Trainer) -> None:
    """Refuse a strategy under which no process has the whole model.

    Raises:
        BdlitError: The trainer's strategy keeps a part of the model on each GPU.
    """
    if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
        raise BdlitError(
            f"{type(callback).__name__} needs the whole model, and this strategy keeps a part of "
            "it on each GPU: fit without the callback, then run `bdlit defend` on the checkpoint"
        )
