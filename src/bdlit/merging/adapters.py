"""Averages of LoRA adapters of one base that stay adapters, and low-rank forms of a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import torch

from bdlit.errors import BdlitError
from bdlit.merging.averaging import average, running_mean, shares_of
from bdlit.merging.settings import require_choice
from bdlit.weights import (
    Adapter,
    AdapterWeights,
    Factors,
    LazyFactors,
    fingerprint,
    select,
)
from bdlit.weights.adapters.config import config_for
from bdlit.weights.adapters.factors import wide_dtype

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from bdlit.types import Weights

AdapterHead: TypeAlias = Literal["average", "keep_suspect"]
"""What becomes of the tensors that adapters saved whole (the head): their mean, or the first's."""


class LowRank(NamedTuple):
    """A matrix of low rank, `b @ a`, and how far it is from the one that it stands for.

    Attributes:
        a: Of shape [rank, in].
        b: Of shape [out, rank].
        error: Frobenius norm of the difference, relative to that of the matrix; in [0, 1].
    """

    a: Float[Tensor, "rank in"]
    b: Float[Tensor, "out rank"]
    error: float


def average_adapters(
    adapters: Sequence[AdapterWeights],
    weights: Sequence[float] | None = None,
    *,
    head: AdapterHead = "average",
) -> Adapter:
    """Return the average of the merged models as one adapter of their base.

    The mean of the changes `s * B @ A` is itself such a product, of the factors side by side:
    A = [A1; A2; ...] and B = [w1 s1 B1, w2 s2 B2, ...], so nothing is lost but the rank is the
    sum of the ranks. A weight that only some adapters change counts as unchanged in the others.

    Args:
        adapters: One or more adapters of one base.
        weights: How much each counts, >= 0; they are divided by their sum, and an adapter that
            counts nothing adds no rank. None counts all alike.
        head: What becomes of the tensors that the adapters saved whole.

    Returns:
        The adapter: factors in float32 (float64 where an adapter's are), computed on access,
        with scaling 1; the first adapter gives task and base.

    Raises:
        BdlitError: Adapters have different bases (which are read and hashed where they are not
            one and the same file), or do not save the same tensors, or the weights do not fit.

    Reference: the merge is `average`; the concatenation is the `cat` of peft's
        `add_weighted_adapter`, with the weights on B alone.

    >>> average_adapters([])
    Traceback (most recent call last):
    bdlit.errors.BdlitError: there is nothing to merge: give at least one adapter
    """
    require_choice("head", head, AdapterHead)
    _require_one_base(adapters)
    shares = shares_of(weights, len(adapters))
    counted = [(a, share / sum(shares)) for a, share in zip(adapters, shares, strict=True) if share]
    names = list(dict.fromkeys(name for adapter, _ in counted for name in adapter.factors))
    holders = {name: [(a.factors, s) for a, s in counted if name in a.factors] for name in names}
    factors = LazyFactors(
        {name: partial(_side_by_side, name, held) for name, held in holders.items()},
        {name: sum(f.ranks[name] for f, _ in held) for name, held in holders.items()},
    )
    saved = _saved(adapters, weights, head)
    return Adapter(factors=factors, saved=saved, config=_config(adapters[0], factors))


def factors_average(
    adapters: Sequence[AdapterWeights],
    weights: Sequence[float] | None = None,
    *,
    head: AdapterHead = "keep_suspect",
) -> Adapter:
    """Return the mean of the factors A and the mean of the factors B: not an average of models.

    mean(B) @ mean(A) holds products of one adapter's B with another's A, which belong to no
    model, and of each adapter's own change only the square of its share: a quarter of it where
    two are averaged, not half. Nor does it depend on the changes alone, for (B M, M^-1 A) is the
    same change as (B, A) and has another mean. It is here because published numbers were made
    so, with the first model's head; use `average_adapters` for anything else.

    Args:
        adapters: One or more adapters of one base that change the same weights by equal ranks.
        weights: How much each counts, >= 0; they are divided by their sum. None counts all alike.
        head: What becomes of the tensors that the adapters saved whole.

    Returns:
        The adapter: factors in float32 (float64 where the first's are), computed on access,
        with the first adapter's scaling, task and base.

    Raises:
        BdlitError: Adapters have different bases, adapted weights, ranks or saved tensors, or
            the weights do not fit.

    Reference: the code published with Arora et al. 2024, arXiv:2402.19334, for LoRA models.

    >>> factors_average([])
    Traceback (most recent call last):
    bdlit.errors.BdlitError: there is nothing to merge: give at least one adapter
    """
    require_choice("head", head, AdapterHead)
    _require_one_base(adapters)
    shares = shares_of(weights, len(adapters))
    first = adapters[0].factors
    for adapter in adapters[1:]:
        if adapter.factors.ranks != first.ranks:
            raise BdlitError(
                f"{adapter.path} does not adapt the same weights by the same ranks as "
                f"{adapters[0].path}, so their factors have no mean: average the changes "
                "(space: delta)"
            )
    counted = [(a.factors, s) for a, s in zip(adapters, shares, strict=True) if s]
    factors = LazyFactors(
        {name: partial(_apart, name, first, counted) for name in first}, first.ranks
    )
    return Adapter(
        factors=factors,
        saved=_saved(adapters, weights, head),
        config=adapters[0].config,
    )


def low_rank(delta: Float[Tensor, "out in"], rank: int) -> LowRank:
    """Return the matrix of a rank that is nearest to a change of weights.

    Args:
        delta: The change, a matrix.
        rank: At least 1, at most the smaller side of the matrix.

    Returns:
        Factors in float32 (float64 where the change is), each with the square roots of the
        singular values, and the relative error, which is 0 for a change of zeros.

    Raises:
        BdlitError: The change is not a matrix of finite numbers, or the rank does not fit it.

    Reference: Eckart and Young 1936, "The approximation of one matrix by another of lower rank".

    >>> low_rank(torch.diag(torch.tensor([4.0, 3.0])), rank=1).error
    0.6
    """
    if delta.ndim != 2 or not 1 <= rank <= min(delta.shape) or not delta.isfinite().all():
        raise BdlitError(
            f"no rank {rank} of a change of shape {list(delta.shape)}: give a matrix of finite "
            "numbers and a rank from 1 to its smaller side"
        )
    left, values, right = torch.linalg.svd(delta.to(wide_dtype(delta.dtype)), full_matrices=False)
    roots = values[:rank].sqrt()
    whole, lost = values.double().norm(), values[rank:].double().norm()
    error = (lost / whole).item() if whole else 0.0
    return LowRank(roots[:, None] * right[:rank], left[:, :rank] * roots, error)


def _side_by_side(name: str, holders: Sequence[tuple[Mapping[str, Factors], float]]) -> Factors:
    held = [(factors[name], share) for factors, share in holders]
    a = torch.cat([_wide(own.a) for own, _ in held])
    b = torch.cat([_wide(own.b) * (own.scaling * share) for own, share in held], dim=1)
    return Factors(a, b, 1.0, held[0][0].layer)


def _apart(
    name: str,
    first: Mapping[str, Factors],
    counted: Sequence[tuple[Mapping[str, Factors], float]],
) -> Factors:
    own = first[name]
    held = [(factors[name], share) for factors, share in counted]
    a = running_mean((f.a.to(wide_dtype(own.a.dtype)), share) for f, share in held)
    b = running_mean((f.b.to(wide_dtype(own.b.dtype)), share) for f, share in held)
    return Factors(a, b, own.scaling, own.layer)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(wide_dtype(tensor.dtype))


def _saved(
    adapters: Sequence[AdapterWeights], weights: Sequence[float] | None, head: AdapterHead
) -> Weights:
    """Return what becomes of the tensors that the adapters saved whole."""
    first = adapters[0]
    if head == "keep_suspect" or not first.saved:
        return first.saved
    return average([adapter.saved for adapter in adapters], weights)


def _config(first: AdapterWeights, factors: LazyFactors) -> dict[str, Any]:
    ranks = {name.removesuffix(".weight"): rank for name, rank in factors.ranks.items()}
    return config_for(first.config, ranks, dict.fromkeys(ranks, 1.0)) if ranks else first.config


def _base_of(adapter: AdapterWeights) -> str | None:
    return adapter.base_address or adapter.config.get("base_model_name_or_path")


def _require_one_base(adapters: Sequence[AdapterWeights]) -> None:
    if not adapters:
        raise BdlitError("there is nothing to merge: give at least one adapter")
    for adapter in adapters:
        for name in adapter.copies:
            copy, own = adapter.copies[name], adapter.base[name]
            if copy.shape != own.shape or not torch.equal(copy, own.to(copy.dtype)):
                raise BdlitError(
                    f"{adapter.path} has a {name} of its own beside its factors, other than its "
                    "base's: average the merged models instead"
                )
    first, *others = adapters
    for other in others:
        _require_one_form(first, other)
    strangers = [o for o in others if not o.base_address or o.base_address != first.base_address]
    known = _base_hash(first) if strangers else ""
    for other in strangers:
        if _base_hash(other) != known:
            raise BdlitError(
                f"{other.path} has another base than {first.path} ({_base_of(other)}, not "
                f"{_base_of(first)}): changes of different models have no mean"
            )


def _require_one_form(first: AdapterWeights, other: AdapterWeights) -> None:
    differ = set(first) ^ set(other)
    if differ:
        raise BdlitError(
            f"{first.path} and {other.path} were made for different models ({min(differ)} is in "
            "one of them only): merge adapters of one base and one task type"
        )
    differ = set(first.saved) ^ set(other.saved)
    if differ:
        raise BdlitError(
            f"{first.path} and {other.path} do not save the same tensors ({min(differ)} is saved "
            "by one of them only): average the merged models instead"
        )


def _base_hash(adapter: AdapterWeights) -> str:
    """Return the hash of the base as far as the adapter leaves it in place."""
    return fingerprint(select(adapter.base, [n for n in adapter.base if n not in adapter.saved]))
