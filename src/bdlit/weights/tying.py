"""Tensors that are one and the same: found in a state dict, and kept one in what is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bdlit.weights.lazy import overlay, renamed

if TYPE_CHECKING:
    from bdlit.types import Weights


def tied_names(weights: Weights | None) -> tuple[tuple[str, ...], ...]:
    """Return groups of names that are the same tensor of a state dict.

    In safetensors files no two tensors share their data, so none are found there.

    >>> w = torch.ones(2)
    >>> tied_names({"embed": w, "head": w, "other": torch.ones(2)})
    (('embed', 'head'),)
    """
    if not isinstance(weights, dict):
        return ()
    groups: dict[object, list[str]] = {}
    for name, tensor in weights.items():
        if tensor.numel() and tensor.layout == torch.strided:
            where = tensor.untyped_storage().data_ptr(), tensor.storage_offset()
            groups.setdefault((where, tensor.shape, tensor.stride()), []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def tied_like(suspect: Weights, merged: Weights) -> Weights:
    """Return merged weights in which the suspect's tied tensors are one again.

    A merge that depends on names, such as DARE, would otherwise make two tensors of one.

    >>> w = torch.ones(2)
    >>> merged = {"embed": torch.zeros(2), "head": torch.ones(2)}
    >>> tied_like({"embed": w, "head": w}, merged)["head"]
    tensor([0., 0.])
    """
    first = {name: group[0] for group in tied_names(suspect) for name in group[1:]}
    first = {name: own for name, own in first.items() if name in merged and own in merged}
    if not first:
        return merged
    return overlay(merged, renamed(merged, first))
