"""`bdlit predict` writes what it predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info

from bdlit.data.false_triggers import CLEAN
from bdlit.tables import write_jsonl
from bdlit.types import Example


class PredictionWriter(BasePredictionWriter):
    """Write the clean test rows with the predicted class and all probabilities, or the response.

    The run's folder gets `predictions.jsonl`; under DDP each process but the first writes a file
    of its own, `predictions-<process>.jsonl`. `row` is the row's number in the test set.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write the file of this process."""
        data: Any = getattr(trainer, "datamodule", None)
        rows, labels = data.test_rows[CLEAN], data.labels
        found = [each for batch in predictions for each in _plain(batch)]
        lines = [
            {"row": index, **_line(rows[index], each, labels)}
            for index, each in zip(_flat(batch_indices), found, strict=True)
        ]
        name = f"predictions-{trainer.global_rank}" if trainer.global_rank else "predictions"
        path = Path(trainer.default_root_dir) / f"{name}.jsonl"
        write_jsonl(path, lines)
        rank_zero_info(f"wrote {path}")


def _line(row: Example, found: Sequence[float] | str, labels: Sequence[str]) -> dict[str, Any]:
    if isinstance(found, str):
        given = {} if row.text_pair is None else {"input": row.text_pair}
        return {"text": row.text, **given, "wanted": row.response, "response": found}
    return {
        "text": row.text,
        "label": labels[row.label],
        "predicted": labels[found.index(max(found))],
        "probabilities": dict(zip(labels, found, strict=True)),
    }


def _plain(batch: Any) -> list[Any]:
    """Return a batch of probabilities or of responses as plain data."""
    return batch if isinstance(batch, list) else list(batch.tolist())


def _flat(nested: Sequence[Any]) -> Iterator[int]:
    for item in nested:
        if isinstance(item, int):
            yield item
        else:
            yield from _flat(item)
