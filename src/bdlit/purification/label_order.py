"""Class order: two models of one task may number their classes differently."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from bdlit.defenses.head import HEAD_NAMES
from bdlit.errors import BdlitError
from bdlit.weights import LazyWeights, outline, overlay
from bdlit.weights.labels import compare_labels

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.purification.suspect import Suspect
    from bdlit.types import Weights
    from bdlit.weights.checkpoint import Checkpoint

LabelPolicy: TypeAlias = Literal["error", "permute", "ignore"]
"""What to do with models whose classes are in another order: refuse them, bring the rows of their
heads into the suspect's order, or merge row with row whatever the rows are called."""


def require_one_task(suspect: Suspect, other: Checkpoint, policy: LabelPolicy) -> None:
    """Refuse a model whose classes are others than the suspect's, or in another order.

    Names are compared as they stand in `id2label`, but for case. A model that does not name its
    classes cannot be compared, and passes; so does one with another number of classes, whose head
    is refused for its shape or kept out of the merge.

    Raises:
        BdlitError: The order differs and the policy is `error`, or the names differ, so that no
            order can be found.
    """
    ours, theirs = suspect.labels, other.labels
    if ours is None or theirs is None or policy == "ignore" or len(ours) != len(theirs):
        return
    agreement = compare_labels(ours, theirs)
    if agreement == "different":
        raise BdlitError(
            f"{other.address} has classes {theirs}, and {suspect.address} {list(ours)}: merge "
            "models of one task, or say labels=ignore if the classes are the same in this order"
        )
    if agreement == "permuted" and policy == "error":
        raise BdlitError(
            f"{other.address} has its classes in the order {theirs}, and {suspect.address} "
            f"{list(ours)}: labels=permute brings them into one order"
        )


def in_label_order(
    labels: Sequence[str] | None,
    other: Checkpoint,
    policy: LabelPolicy = "error",
    head_names: tuple[str, ...] = HEAD_NAMES,
) -> Weights:
    """Return another model's weights with its classes in a suspect's order.

    Args:
        labels: The suspect's class names in the order of its head's rows.
        other: A model to be merged with it.
        policy: What to do where the order differs; `ignore` leaves the rows as they stand.
        head_names: Beginnings of the names of head tensors.
    """
    if labels is None or other.labels is None or policy == "ignore":
        return other.weights
    if len(labels) != len(other.labels) or compare_labels(labels, other.labels) != "permuted":
        return other.weights
    theirs = [label.lower() for label in other.labels]
    order = [theirs.index(label.lower()) for label in labels]
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
