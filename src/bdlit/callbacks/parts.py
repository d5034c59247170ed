"""What callbacks that work on a victim and its rows are given by the trainer."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

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
