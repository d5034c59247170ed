"""What each method does to one tensor of several models, as mergekit 0.1.5 does it.

The merges of `bdlit.merging` follow the papers; these follow that tool, in which a task vector is
trimmed within each tensor, weights multiply task vectors, and rescaling keeps the L1 norm.

Reference: Goddard et al. 2024, "Arcee's MergeKit: A Toolkit for Merging Large Language Models",
    arXiv:2403.13257, and the behaviour of its version 0.1.5.
Deviation: Task vectors of half precision are computed in float32 and rounded once, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import acos, sin
from typing import TYPE_CHECKING

import torch

from bdlit.merging.dropping import Survivors
from bdlit.merging.spherical import PARALLEL

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_TINY_NORM = 1e-8
_TINY_SUM = 1e-7
_TINY_WEIGHT = 1e-8


def linear(
    tensors: Sequence[Float[Tensor, " *shape"]], weights: Sequence[float], *, normalize: bool = True
) -> Float[Tensor, " *shape"]:
    """Return the weighted sum, divided by the sum of the weights if `normalize`.

    >>> linear([torch.tensor([1.0]), torch.tensor([4.0])], [1, 3])
    tensor([3.2500])
    """
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        total.add_(tensor, alpha=weight)
    return total.div_(sum(weights)) if normalize else total


def slerp(
    base: Float[Tensor, " *shape"], other: Float[Tensor, " *shape"], t: float
) -> Float[Tensor, " *shape"]:
    """Return the point at `t` of the arc from the base's tensor to the other's.

    Nearly parallel or opposed tensors are interpolated on the line; a zero tensor counts as at a
    right angle to every other.

    >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    tensor([0.7071, 0.7071])
    """
    cosine = float((_direction(base) * _direction(other)).sum().clamp(-1, 1))
    if abs(cosine) > PARALLEL:
        return base * (1 - t) + other * t
    angle = acos(cosine)
    return base * (sin((1 - t) * angle) / sin(angle)) + other * (sin(t * angle) / sin(angle))


def add_vectors(
    base: Float[Tensor, " *shape"],
    vectors: Sequence[Float[Tensor, " *shape"]],
    weights: Sequence[float],
    *,
    elect: bool,
    normalize: bool,
    scale: float = 1.0,
) -> Float[Tensor, " *shape"]:
    """Return the base with weighted task vectors added.

    Args:
        base: The base model's tensor.
        vectors: Task vectors of the other models, perhaps sparse.
        weights: A factor on each; negative ones subtract.
        elect: Whether only those count, entry by entry, whose weighted entry has the sign of their
            sum, a sum of zero being positive.
        normalize: Whether the sum is divided by the weights of those that count.
        scale: Factor on the whole.

    >>> base, vectors = torch.zeros(2), [torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 3.0])]
    >>> add_vectors(base, vectors, [1.0, 1.0], elect=True, normalize=True)
    tensor([3., 2.])
    """
    if not vectors:
        return base
    weighted = torch.stack([v * weight for v, weight in zip(vectors, weights, strict=True)])
    shares = torch.tensor(weights, dtype=base.dtype, device=base.device)
    shares = shares.view(-1, *[1] * base.dim()).expand_as(weighted)
    if elect:
        sign = torch.where(weighted.sum(0) >= 0, 1, -1)
        counted = weighted.sign() == sign
        weighted, shares = weighted * counted, shares * counted
    divisor = shares.sum(0)
    merged = weighted.sum(0)
    if normalize:
        nothing = divisor == 0 if elect else divisor.abs() < _TINY_WEIGHT
        merged = merged / divisor.masked_fill(nothing, 1.0)
    return base + merged * scale


def keep_largest(
    vector: Float[Tensor, " *shape"], density: float, *, rescale: bool = False
) -> Float[Tensor, " *shape"]:
    """Return a task vector with only its largest entries: the whole part of `density * entries`.

    At least one stays; among equals at the threshold, those that torch's sort puts first.

    >>> keep_largest(torch.tensor([1.0, -4.0, 3.0, 2.0]), 0.5)
    tensor([ 0., -4.,  3.,  0.])
    """
    if density >= 1:
        return vector
    flat = vector.reshape(-1)
    kept = torch.zeros_like(flat, dtype=torch.bool)
    if density > 0 and len(flat):
        largest = flat.abs().float().argsort(descending=True)
        kept[largest[: max(1, int(density * len(flat)))]] = True
    return _masked(vector, kept.view(vector.shape), rescale)


def keep_random(
    vector: Float[Tensor, " *shape"],
    density: float,
    *,
    seed: int,
    index: int,
    name: str,
    rescale: bool = True,
) -> Float[Tensor, " *shape"]:
    """Return a task vector whose entries each stay with probability `density`.

    Deviation: What stays follows from (seed, index, name), not from torch's global generator, so
    the masks are not those of a run of mergekit; rates and rescaling are.

    >>> keep_random(torch.ones(4), 0.5, seed=0, index=0, name="w")
    tensor([0., 0., 0., 4.])
    """
    if density >= 1:
        return vector
    drop = min(1.0, 1 - density)
    chosen = Survivors(drop=drop, seed=seed, index=index, name=name)
    kept = chosen.between(0, vector.numel())
    mask = torch.from_numpy(kept).view(vector.shape).to(vector.device)
    return _masked(vector, mask, rescale)


def _masked(
    vector: Float[Tensor, " *shape"], mask: Tensor, rescale: bool
) -> Float[Tensor, " *shape"]:
    """Return the entries under the mask, and if asked for, scaled to the L1 norm of all."""
    left = vector * mask
    if not rescale:
        return left
    before, after = vector.abs().sum(), left.abs().sum()
    return left if before < _TINY_SUM or after < _TINY_SUM else left * (before / after)


def _direction(tensor: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
    length = torch.linalg.vector_norm(tensor)
    return tensor / length if length > _TINY_NORM else tensor
