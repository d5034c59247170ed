"""A purified adapter that is an adapter again: exactly where the method allows it, or by SVD."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bdlit.defenses.base import Defended, Defense
from bdlit.errors import BdlitError
from bdlit.purification.held import HeldModel
from bdlit.weights import Adapter, AdapterWeights, Factors, LazyWeights
from bdlit.weights.adapters.config import config_for
from bdlit.weights.adapters.factors import wide_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights


@dataclass(frozen=True, kw_only=True)
class AsAdapter(Defended):
    """A result that is written as an adapter.

    Attributes:
        adapter: The adapter; `weights` are the tensors that it changes, as in the merged model.
    """

    adapter: Adapter


def exact_adapter(
    defense: Defense, suspect: Weights, others: Sequence[HeldModel]
) -> AsAdapter | None:
    """Return what the defense makes of adapters as one adapter, if there is an exact one.

    Raises:
        BdlitError: The adapters do not fit each other.
    """
    adapted = [each.weights for each in others if isinstance(each.weights, AdapterWeights)]
    if not isinstance(suspect, AdapterWeights) or not adapted or len(adapted) < len(others):
        return None
    found = defense.apply_to_adapters(suspect, adapted)
    if found is None:
        return None
    kept = tuple(suspect.saved) if found.saved is suspect.saved else ()
    return as_adapter(found, suspect, len(others), {}, kept)


def as_adapter(
    adapter: Adapter,
    suspect: AdapterWeights,
    others: int,
    notes: Mapping[str, Any],
    kept: Collection[str] = (),
) -> AsAdapter:
    """Return an adapter as the result of a defense.

    Args:
        adapter: The adapter.
        suspect: The suspect.
        others: How many models it was merged with.
        notes: What else is to be said.
        kept: Names of the tensors that it saves whole and that are the suspect's own.
    """
    saved = [name for name in adapter.saved if name not in kept]
    changed = {**dict.fromkeys(adapter.factors), **dict.fromkeys(saved)}
    return AsAdapter(
        weights=dense_view(adapter, suspect),
        merged=list(changed),
        copied=[name for name in suspect if name not in changed],
        notes={"models": others + 1, "form": "adapter", **notes},
        adapter=adapter,
    )


def low_rank_adapter(
    suspect: Weights, merged: Weights, rank: int
) -> tuple[Adapter, dict[str, Any]]:
    """Return the adapter of a rank that comes nearest to a merged model, and how near it comes.

    Args:
        suspect: The suspect, an adapter.
        merged: The merged model; it differs from the suspect's base where the suspect does.
        rank: Rank of every changed weight, or the smaller side of its matrix if that is less.

    Raises:
        BdlitError: The suspect is no adapter, or weights were merged that it does not adapt.
    """
    from bdlit.merging import low_rank

    if not isinstance(suspect, AdapterWeights):
        raise BdlitError("--rank is about adapters, and the suspect is a dense model: leave it out")
    factors: dict[str, Factors] = {}
    errors: dict[str, float] = {}
    for name in suspect.factors:
        own = suspect.factors[name]
        change = _change(merged[name], suspect.base[name], own)
        found = low_rank(change, min(rank, *change.shape))
        factors[name] = Factors(found.a, found.b, 1.0, own.layer)
        errors[name] = found.error
    strays = _strays(suspect, merged)
    if strays:
        raise BdlitError(
            f"{len(strays)} tensors changed that {suspect.path} does not adapt, first {strays[0]}: "
            "no adapter of its modules holds the result; leave --rank out for a dense model"
        )
    ranks = {name.removesuffix(".weight"): own.rank for name, own in factors.items()}
    saved = LazyWeights({name: partial(merged.__getitem__, name) for name in suspect.saved})
    config = config_for(suspect.config, ranks, dict.fromkeys(ranks, 1.0))
    notes = {"rank": rank, "svd_error": errors, "svd_error_max": max(errors.values())}
    return Adapter(factors=factors, saved=saved, config=config), notes


def dense_view(adapter: Adapter, suspect: AdapterWeights) -> LazyWeights:
    """Return the tensors that an adapter changes, as they are in the merged model."""

    def changed(name: str) -> Tensor:
        return adapter.factors[name].added_to(suspect.base[name])

    thunks = {name: partial(changed, name) for name in adapter.factors}
    thunks |= {name: partial(adapter.saved.__getitem__, name) for name in adapter.saved}
    return LazyWeights(thunks, outline=suspect.outline)


def _change(merged: Tensor, base: Tensor, own: Factors) -> Tensor:
    wide = wide_dtype(base.dtype)
    change = merged.to(wide) - base.to(wide)
    return change if own.layer == "linear" else change.T


def _strays(suspect: AdapterWeights, merged: Weights) -> Sequence[str]:
    adapted = {*suspect.factors, *suspect.saved}
    rest = [name for name in suspect.base if name not in adapted]
    return [name for name in rest if not merged[name].equal(suspect.base[name])]
