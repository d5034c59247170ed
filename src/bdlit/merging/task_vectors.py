"""What every merge shares: a common precision on the way in, task vectors, the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from bdlit.errors import BdlitError
from bdlit.weights import Elementwise, Outline, outline, require_compatible

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights import Read

_Form: TypeAlias = tuple[torch.device, torch.dtype]


def common_precision(models: Sequence[Weights]) -> list[Elementwise]:
    """Return the float tensors of each model, in the form that merges are computed in.

    That is float32 (float64 where the first model is float64), on the device of the first model.

    Raises:
        BdlitError: There is no model, or one differs in names or shapes.
    """
    if not models:
        raise BdlitError("there is nothing to merge: give at least one model")
    require_compatible(models[0], models[1:])
    forms = _forms(models[0])
    return [_in_forms(model, forms) for model in models]


def task_vectors(base: Weights, models: Sequence[Weights]) -> list[Elementwise]:
    """Return `model - base` for each model, over the float tensors of the first.

    The base may hold more than the models do (a language-modelling head).

    Raises:
        BdlitError: A model differs from the first, or the base lacks one of its tensors.

    Reference: Ilharco et al. 2023, "Editing models with task arithmetic", arXiv:2212.04089.

    >>> [vector] = task_vectors({"w": torch.tensor([1.0, 2.0])}, [{"w": torch.tensor([3.0, 2.0])}])
    >>> vector["w"]
    tensor([2., 0.])
    """
    wide = common_precision(models)
    wide_base = _widened_base(base, models[0])

    def difference(model: Weights, name: str, read: Read) -> Tensor:
        return read(model, name) - read(wide_base, name)

    return [Elementwise(model, partial(difference, model), outline=model.outline) for model in wide]


def add_to_base(
    base: Weights,
    first: Weights,
    vector: Weights,
    *,
    scale: float = 1.0,
    notes: Mapping[str, Any] | None = None,
) -> Elementwise:
    """Return `base + scale * vector` in the dtype of `first`, whose integer buffers are copied."""
    wide_base = _widened_base(base, first)
    return like_first(
        first,
        lambda name, read: read(wide_base, name).add(read(vector, name), alpha=scale),
        notes,
    )


def like_first(
    first: Weights,
    merged: Callable[[str, Read], Tensor],
    notes: Mapping[str, Any] | None = None,
) -> Elementwise:
    """Return a model of the names and dtypes of `first`: its floats merged, the rest copied."""
    forms = {name: outline(first, name) for name in first}

    def tensor(name: str, read: Read) -> Tensor:
        form = forms[name]
        return merged(name, read).to(form.dtype) if form.is_float else read(first, name)

    return Elementwise(first, tensor, notes, outline=forms.__getitem__)


def _widened_base(base: Weights, first: Weights) -> Elementwise:
    forms = _forms(first)
    require_compatible(first, [base], forms, labels=["the base"])
    return _in_forms(base, forms)


def _forms(first: Weights) -> dict[str, _Form]:
    """Return, for each float tensor of the first model, where and how it is computed."""
    outlines = {name: outline(first, name) for name in first}
    return {
        name: (own.device, torch.float64 if own.dtype == torch.float64 else torch.float32)
        for name, own in outlines.items()
        if own.is_float
    }


def _in_forms(model: Weights, forms: Mapping[str, _Form]) -> Elementwise:
    def tensor(name: str, read: Read) -> Tensor:
        return read(model, name).to(*forms[name])

    def known(name: str) -> Outline:
        device, dtype = forms[name]
        return Outline(outline(model, name).shape, dtype, device)

    return Elementwise(forms, tensor, outline=known)
