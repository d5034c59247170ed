"""Which model plays which role of a table: chosen by how far the features of classes are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn.functional import cosine_similarity

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    Features = Float[Tensor, "classes width"]


@dataclass(frozen=True)
class Suspicion:
    """How much each class looks like the target of a backdoor.

    Attributes:
        target: The class that looks most like it; the first of equals.
        distances: For each class, how far its made-up inputs lie from the other classes' rows,
            summed over the models.
    """

    target: int
    distances: tuple[float, ...]


def distance_to_others(feature: Float[Tensor, " width"], clean: Features, label: int) -> float:
    """Return the summed cosine distance of a feature to the clean features of other classes.

    Args:
        feature: The feature.
        clean: The clean feature of each class.
        label: The class that is left out.

    >>> import torch
    >>> clean = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    >>> distance_to_others(torch.tensor([3.0, 0.0]), clean, label=0)  # 1 - 0, and 1 - (-1)
    3.0
    """
    distances = 1 - cosine_similarity(clean.double(), feature.double()[None], dim=1)
    return float(distances.sum() - distances[label])


def suspicion(dummies: Sequence[Features], cleans: Sequence[Features]) -> Suspicion:
    """Find the class whose made-up inputs look least like rows of any other class.

    A backdoor is a way into its target class that no clean row takes.

    Args:
        dummies: Features of made-up inputs by class, for each model.
        cleans: Features of clean rows by class, for each model.
    """
    totals = [
        sum(
            distance_to_others(dummy[label], clean, label)
            for dummy, clean in zip(dummies, cleans, strict=True)
        )
        for label in range(len(cleans[0]))
    ]
    return Suspicion(totals.index(max(totals)), tuple(totals))
