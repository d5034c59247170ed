"""Switching: every module of every layer comes from one of several models, as a table says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bdlit.errors import BdlitError
from bdlit.merging.substitution import LayerModule, substitute, substituted_names
from bdlit.weights import LazyWeights

if TYPE_CHECKING:
    from bdlit.types import Weights


def switch(
    rest: Weights, models: Sequence[Weights], sources: Mapping[LayerModule, int]
) -> LazyWeights:
    """Return a model whose modules come from several models.

    Args:
        rest: Gives names, dtypes and all that no model is the source of, such as embeddings,
            norms and head: one of the models, or their average.
        models: Models of one architecture, at least one.
        sources: One module of one layer to the position of the model that it comes from.

    Returns:
        The result, read on access. Its notes hold the source of each module by layer, under
        `switched`.

    Raises:
        BdlitError: A source is not a model, or the models lack such a module or do not fit.

    Reference: Li et al. 2025, "Defending against Backdoor Attacks via Module Switching",
        arXiv:2504.05902.

    >>> import torch
    >>> zeros = {f"h.{i}.mlp.weight": torch.zeros(1) for i in range(2)}
    >>> ones = {name: torch.ones(1) for name in zeros}
    >>> result = switch(zeros, [zeros, ones], {("mlp", 0): 1, ("mlp", 1): 0})
    >>> result["h.0.mlp.weight"], result["h.1.mlp.weight"]
    (tensor([1.]), tensor([0.]))
    """
    for (module, layer), source in sources.items():
        if not 0 <= source < len(models):
            raise BdlitError(
                f"'{module}' of layer {layer} should come from model {source}, but there are "
                f"models 0 to {len(models) - 1}"
            )
    result = substitute(rest, rest, ())
    for position, model in enumerate(models):
        result = substitute(result, model, _of(sources, position))
    switched: dict[str, dict[int, int]] = {}
    for (module, layer), source in sorted(sources.items()):
        switched.setdefault(module, {})[layer] = source
    result.notes = {"switched": switched}
    return result


def switched_names(rest: Weights, sources: Mapping[LayerModule, int], but: int) -> list[str]:
    """Return the names of the tensors that come from other models than one, in whole or in part.

    Args:
        rest: As for `switch`.
        sources: As for `switch`.
        but: Position of that one model.
    """
    return substituted_names(rest, {cell for cell, source in sources.items() if source != but})


def _of(sources: Mapping[LayerModule, int], position: int) -> set[LayerModule]:
    return {cell for cell, source in sources.items() if source == position}
