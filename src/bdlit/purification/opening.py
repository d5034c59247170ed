"""Opening a suspect and its relatives, and finding what stands in the way of a merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bdlit.errors import BdlitError
from bdlit.purification.held import Relative
from bdlit.purification.label_order import LabelPolicy, in_label_order
from bdlit.weights import float_names, outline
from bdlit.weights.checkpoint import Checkpoint, open_checkpoint, require_same_vocabulary

Differences: TypeAlias = Literal["error", "keep_suspect"]
"""What to do with tensors that another model lacks or has in another shape: refuse the merge, or
keep the suspect's own."""


@dataclass(frozen=True, kw_only=True)
class Parents:
    """What a merge starts from.

    Attributes:
        suspect: The model to purify.
        others: Models to merge it with, their classes in the suspect's order.
        base: The checkpoint that all were fine-tuned from.
        keep: Tensors that stay the suspect's own.
    """

    suspect: Checkpoint
    others: Sequence[Relative]
    base: Relative | None
    keep: Sequence[str]


def open_parents(
    suspect: str,
    others: Sequence[str],
    base: str | None = None,
    *,
    labels: LabelPolicy = "error",
    differences: Differences = "error",
    adapter_base: str | None = None,
) -> Parents:
    """Open saved models that are to be merged, and compare what can be compared.

    Args:
        suspect: Address of the model to purify.
        others: Addresses of the models to merge it with.
        base: Address of the checkpoint that all were fine-tuned from.
        labels: What to do where classes are in another order.
        differences: What to do with tensors that are not in all models in one shape.
        adapter_base: The model that adapters are merged into; by default the one each names.

    Raises:
        BdlitError: A model is missing or broken, has another architecture, vocabulary or label
            order, or shares too little with the suspect.
    """
    opened = open_checkpoint(suspect, adapter_base=adapter_base)
    relatives = [open_checkpoint(address, adapter_base=adapter_base) for address in others]
    _require_same_type(opened, relatives)
    require_same_vocabulary(opened, relatives)
    return Parents(
        suspect=opened,
        others=[
            Relative(other.address, in_label_order(opened, other, labels)) for other in relatives
        ],
        base=Relative(base, open_checkpoint(base).weights) if base else None,
        keep=_unshared(opened, relatives) if differences == "keep_suspect" else [],
    )


def _require_same_type(suspect: Checkpoint, others: Sequence[Checkpoint]) -> None:
    ours = suspect.config.get("model_type")
    for other in others:
        theirs = other.config.get("model_type")
        if ours and theirs and ours != theirs:
            raise BdlitError(
                f"{other.address} is a {theirs} model and {suspect.address} a {ours} model: merge "
                "models of one architecture only"
            )


def _unshared(suspect: Checkpoint, others: Sequence[Checkpoint]) -> list[str]:
    """Return the float tensors of the suspect that not all others have in its shape."""
    floats = float_names(suspect.weights)
    unshared = [
        name
        for name in floats
        if any(
            name not in other.weights
            or outline(other.weights, name).shape != outline(suspect.weights, name).shape
            for other in others
        )
    ]
    if len(unshared) == len(floats):
        raise BdlitError(
            f"the others share no tensor with {suspect.address}: merge models of one architecture"
        )
    return unshared
