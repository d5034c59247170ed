"""Means of models, and sums of task vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from math import isfinite
from typing import TYPE_CHECKING

import torch

from bdlit.errors import BdlitError
from bdlit.merging.settings import require_scale
from bdlit.merging.task_vectors import add_to_base, common_precision, like_first, task_vectors
from bdlit.weights import Elementwise, LazyWeights

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights import Read


def average(models: Sequence[Weights], weights: Sequence[float] | None = None) -> LazyWeights:
    """Return the element-wise mean of models.

    Args:
        models: One or more models; the first gives names, dtypes and integer buffers.
        weights: How much each model counts, >= 0; they are divided by their sum. None counts all
            alike.

    Returns:
        The mean, computed on access in float32. Copies of one model give that model, bit for bit.

    Raises:
        BdlitError: Models differ in names or shapes, or the weights do not fit them.

    Reference: Wortsman et al. 2022, "Model soups", arXiv:2203.05482; as a defense Arora et al.
        2024, arXiv:2402.19334 (WAG).
    Deviation: WAG's code averages integer buffers too; here they are the first model's.

    >>> average([{"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([1.0, 4.0])}])["w"]
    tensor([0.5000, 3.0000])
    """
    shares = shares_of(weights, len(models))
    wide = common_precision(models)
    counted = [(model, share) for model, share in zip(wide, shares, strict=True) if share]
    return like_first(
        models[0],
        lambda name, read: running_mean((read(model, name), share) for model, share in counted),
    )


def task_arithmetic(base: Weights, models: Sequence[Weights], scale: float = 1.0) -> LazyWeights:
    """Return `base + scale * sum(model - base)`.

    Args:
        base: The checkpoint that the models were fine-tuned from.
        models: One or more models; the first gives names, dtypes and integer buffers.
        scale: Factor on the sum; `1 / len(models)` gives the average.

    Raises:
        BdlitError: Models differ in names or shapes, or the base lacks one of their tensors.

    Reference: Ilharco et al. 2023, "Editing models with task arithmetic", arXiv:2212.04089.

    >>> base = {"w": torch.tensor([1.0])}
    >>> task_arithmetic(base, [{"w": torch.tensor([2.0])}, {"w": torch.tensor([4.0])}])["w"]
    tensor([5.])
    """
    require_scale(scale)
    vectors = task_vectors(base, models)

    def total(name: str, read: Read) -> Float[Tensor, " *shape"]:
        return reduce(torch.add, (read(vector, name) for vector in vectors))

    summed = Elementwise(vectors[0], total)
    return add_to_base(base, models[0], summed, scale=scale)


def running_mean(
    counted: Iterable[tuple[Float[Tensor, " *shape"], float]],
) -> Float[Tensor, " *shape"]:
    """Return the mean of (tensor, positive weight) pairs, moving from each to the next.

    The step from the mean to an equal tensor is exactly zero, so copies of one model merge to it
    without rounding, which a sum divided by its count does not promise.
    """
    pairs = iter(counted)
    first, total = next(pairs)
    mean = first.clone()
    for tensor, weight in pairs:
        total += weight
        mean.lerp_(tensor, weight / total)
    return mean


def shares_of(weights: Sequence[float] | None, count: int) -> Sequence[float]:
    """Return how much each of `count` models counts, and refuse numbers that do not fit them."""
    shares = [1.0] * count if weights is None else list(weights)
    fits = len(shares) == count and all(isfinite(s) and s >= 0 for s in shares)
    if not fits or (count and not any(shares)):
        raise BdlitError(
            f"weights {shares} do not fit {count} models: give one number >= 0 for each, "
            "not all zero"
        )
    return shares
