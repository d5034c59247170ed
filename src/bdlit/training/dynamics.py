"""Training dynamics: how sure a model was of every training row's label or answer, by epoch.

Backdoored rows are learned early and surely. Their certainty is so close to 1 that a probability
in float32 no longer tells them apart, so what is kept is -log(1 - p), computed from logits in
float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bdlit.atomic import whole_file
from bdlit.data.buckets import BucketSampler
from bdlit.errors import BdlitError
from bdlit.ranks import place
from bdlit.tables import rows_hash
from bdlit.types import Example
from bdlit.weights.network import in_eval_mode

if TYPE_CHECKING:
    from bdlit.victims.base import Victim

DYNAMICS_FILE = "dynamics.safetensors"
"""Name of the file in the folder of a run."""

_TENSOR = "certainty"


@dataclass(frozen=True)
class TrainingSet:
    """The rows that a model was trained on, which nobody has checked.

    Attributes:
        rows: The rows, with the labels of training.
        certainty: -log(1 - p) of every row's label, or of its answer, float64, shape
            [rows, epochs]; None where nobody has logged it.
    """

    rows: Sequence[Example]
    certainty: Tensor | None = None

    @property
    def unmarked(self) -> TrainingSet:
        """The same as a defender sees it: no row says whether an attack changed it."""
        return replace(self, rows=[row.unmarked for row in self.rows])

    @property
    def oracle(self) -> Oracle | None:
        """What the marks of the rows say; None where no row is marked."""
        if not any(row.poisoned for row in self.rows):
            return None
        turned = [
            (row.label, row.response) != (row.true_label, row.true_response) for row in self.rows
        ]
        return Oracle([row.poisoned for row in self.rows], turned)


@dataclass(frozen=True)
class Oracle:
    """The truth about training rows, which no defender has: for upper bounds and studies.

    Attributes:
        poisoned: Whether an attack changed each row.
        turned: Whether it changed what the row says (label or response), not only its text.
    """

    poisoned: Sequence[bool]
    turned: Sequence[bool]


def measure_certainty(
    victim: Victim,
    rows: Sequence[Example],
    batch_size: int = 128,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Return -log(1 - p) of what every row says, float64, shape [rows]; see `Victim.certainty`.

    The model runs in eval mode and in the precision of its weights: rounded logits would make ties
    of what is to be ranked. Under a process group each process runs its share of the batches, and
    all get the whole.

    Args:
        victim: The model, on its device.
        rows: Rows with the labels or answers of training.
        batch_size: Rows per batch.
        watch: Called with the batches done and all batches of this process.
    """
    found = torch.zeros(len(rows), dtype=torch.float64)
    precise = torch.autocast(victim.device.type, enabled=False)
    with in_eval_mode(victim.network()), torch.inference_mode(), precise:
        batches = BucketSampler(rows, batch_size, shuffle=False)
        for done, indices in enumerate(batches, 1):
            found[indices] = victim.certainty(victim.on_device([rows[i] for i in indices])).cpu()
            watch(done, len(batches))
    return _sum_over_processes(found, victim.device)


def save_certainty(certainty: Tensor, rows: Iterable[Example], path: Path) -> None:
    """Write training dynamics with the hash of the rows that they belong to.

    Raises:
        BdlitError: The file cannot be written.
    """
    described = {
        "rows": rows_hash(rows),
        "value": "-log(1 - p) of the label or answer, [rows, epochs]",
    }
    with whole_file(path) as part:
        save_file({_TENSOR: certainty.contiguous()}, part, metadata=described)


def load_certainty(path: Path, rows: Sequence[Example]) -> Tensor:
    """Read training dynamics, shape [rows, epochs].

    Raises:
        BdlitError: The file is missing or damaged, or belongs to other rows.
    """
    try:
        with safe_open(path, "pt") as file:
            described = file.metadata() or {}
            certainty: Tensor = file.get_tensor(_TENSOR)
    except (OSError, SafetensorError) as error:
        raise BdlitError(f"cannot read training dynamics {path}: {error}") from error
    if described.get("rows") != rows_hash(rows):
        raise BdlitError(
            f"the training dynamics {path} belong to other rows than the suspect's training set "
            f"({len(rows)} rows): give the very file that the suspect was trained on"
        )
    return certainty


def _sum_over_processes(found: Tensor, device: torch.device) -> Tensor:
    if place()[1] == 1:
        return found
    shared = found.to(device)
    torch.distributed.all_reduce(shared)
    return shared.cpu()
