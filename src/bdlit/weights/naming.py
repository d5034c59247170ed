"""Names of tensors: which of them are merged, and how a base checkpoint calls them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bdlit.weights.lazy import Elementwise, renamed
from bdlit.weights.outlines import outline

if TYPE_CHECKING:
    from bdlit.types import Weights


def float_names(weights: Weights) -> list[str]:
    """Return the names of the floating-point tensors: all that a merge may change.

    >>> import torch
    >>> float_names({"w": torch.ones(2), "position_ids": torch.arange(2)})
    ['w']
    """
    return [name for name in weights if outline(weights, name).is_float]


def align_names(weights: Weights, suspect: Weights) -> Elementwise:
    """Return `weights` under the names of `suspect`, as far as it has the tensors.

    A bare encoder is saved without the prefix that a classifier puts before it
    (`encoder.layer.0...` for `bert.encoder.layer.0...`), and old BERT checkpoints call the scale
    and shift of a LayerNorm `gamma` and `beta`.

    >>> import torch
    >>> base = {"embeddings.w": torch.ones(1)}
    >>> suspect = {"bert.embeddings.w": torch.ones(1), "classifier.w": torch.ones(1)}
    >>> list(align_names(base, suspect))
    ['bert.embeddings.w']
    """
    found = {name: next((n for n in _spellings(name) if n in weights), None) for name in suspect}
    own = {name: spelled for name, spelled in found.items() if spelled is not None}
    return renamed(weights, own)


def _spellings(name: str) -> Iterator[str]:
    for form in (name, name.partition(".")[2]):
        yield form
        yield form.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )
