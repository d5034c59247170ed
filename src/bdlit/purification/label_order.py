"""Class order: two models of one task may number their classes differently."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from bdlit.defenses.head import HEAD_NAMES
from bdlit.errors import BdlitError
from bdlit.weights import LazyWeights, outline, overlay
from bdlit.weights.checkpoint import Checkpoint
from bdlit.weights.labels import compare_labels

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights

LabelPolicy: TypeAlias = Literal["error", "permute", "ignore"]
"""What to do with models whose classes are in another order: refuse them, bring the rows of their
heads into the suspect's order, or merge row with row whatever the rows are called."""


def in_label_order(
    suspect: Checkpoint,
    other: Checkpoint,
    policy: LabelPolicy = "error",
    head_names: tuple[str, ...] = HEAD_NAMES,
) -> Weights:
    """Return the other model's weights with its classes in the suspect's order.

    Names are compared as they stand in `id2label`, but for case. A model that does not name its
    classes cannot be compared, and passes; so does one with another number of classes, which a
    head policy has to deal with.

    Args:
        suspect: The model that sets the order.
        other: A model to be merged with it.
        policy: What to do where the order differs.
        head_names: Beginnings of the names of head tensors.

    Raises:
        BdlitError: The order differs and the policy is `error`, or the names differ, so that no
            order can be found.
    """
    if suspect.labels is None or other.labels is None or policy == "ignore":
        return other.weights
    agreement = compare_labels(suspect.labels, other.labels)
    if agreement == "same" or len(suspect.labels) != len(other.labels):
        return other.weights
    if agreement == "different":
        raise BdlitError(
            f"{other.address} has classes {other.labels}, and {suspect.address} "
            f"{suspect.labels}: merge models of one task, or say --labels=ignore if the classes "
            "are the same in this order"
        )
    if policy == "error":
        raise BdlitError(
            f"{other.address} has its classes in the order {other.labels}, and {suspect.address} "
            f"{suspect.labels}: --labels=permute brings them into one order"
        )
    theirs = [label.lower() for label in other.labels]
    order = [theirs.index(label.lower()) for label in suspect.labels]
    return _permuted(other.weights, order, head_names)


def _permuted(weights: Weights, order: list[int], head_names: tuple[str, ...]) -> LazyWeights:
    """Reorder the rows of the tensors that have one row per class: the last layer of the head."""
    per_class = [
        name
        for name in weights
        if name.startswith(head_names)
        and (shape := outline(weights, name).shape)
        and shape[0] == len(order)
    ]

    def rows(name: str) -> Tensor:
        return weights[name][order]

    reordered = LazyWeights(
        {name: partial(rows, name) for name in per_class}, outline=partial(outline, weights)
    )
    return overlay(weights, reordered)
