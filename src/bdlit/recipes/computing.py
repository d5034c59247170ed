"""Computing a recipe: the models are opened, and each tensor is made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import torch

from bdlit.recipes import formulas
from bdlit.recipes.merge_recipe import MergeRecipe
from bdlit.recipes.planning import Input, TensorPlan, plan
from bdlit.weights import LazyWeights, Outline, outline
from bdlit.weights.layers import layer_lists

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights


def merge(recipe: MergeRecipe, open: Callable[[str], Weights], *, seed: int = 0) -> LazyWeights:
    """Compute a recipe: the tensors that mergekit 0.1.5 makes of it.

    Tensors are computed in float32 (float64 where an input is float64) and rounded once. Integer
    buffers are copied from the first model of their slice.

    Args:
        recipe: What to do; see `read_recipe`.
        open: From an address to the model there, such as `bdlit.weights.open_weights`.
        seed: Seed of what DARE drops. mergekit draws from torch's global generator, so that its
            masks cannot be drawn again; all else agrees.

    Returns:
        The result, computed on access. Its notes hold `method`, `models`, `depth`, for slices the
        `layers` (model, layer) that each layer begins from, and parameters that were `unused`.

    Raises:
        BdlitError: A model cannot be opened or does not fit, or a parameter has no value.

    >>> from bdlit.recipes import parse_recipe
    >>> models = {"a": {"w": torch.tensor([0.0])}, "b": {"w": torch.tensor([4.0])}}
    >>> entries = [{"model": "a"}, {"model": "b", "parameters": {"weight": 3}}]
    >>> content = {"merge_method": "linear", "models": entries, "parameters": {"weight": 1}}
    >>> merge(parse_recipe(content), models.__getitem__)["w"]
    tensor([3.])
    """
    models = {address: open(address) for address in recipe.addresses}
    steps = plan(recipe, models)
    forms = {name: _form(recipe, step, models) for name, step in steps.items()}

    def tensor(name: str) -> Tensor:
        return _computed(recipe, name, steps[name], models, seed).to(forms[name].dtype)

    return LazyWeights(
        {name: partial(tensor, name) for name in steps},
        _notes(recipe, steps),
        outline=forms.__getitem__,
    )


def _form(recipe: MergeRecipe, step: TensorPlan, models: Mapping[str, Weights]) -> Outline:
    first = _outline(step.inputs[0], models)
    if not first.is_float:
        return first
    named = recipe.out_dtype or recipe.dtype
    dtype = getattr(torch, named) if named else _common_dtype(step, models)
    return Outline(first.shape, dtype, first.device)


def _common_dtype(step: TensorPlan, models: Mapping[str, Weights]) -> torch.dtype:
    return reduce(torch.promote_types, (_outline(each, models).dtype for each in step.inputs))


def _outline(each: Input, models: Mapping[str, Weights]) -> Outline:
    return outline(models[each.model], each.name)


def _computed(
    recipe: MergeRecipe, name: str, step: TensorPlan, models: Mapping[str, Weights], seed: int
) -> Tensor:
    first = models[step.inputs[0].model][step.inputs[0].name]
    if not first.is_floating_point():
        return first
    common = getattr(torch, recipe.dtype) if recipe.dtype else _common_dtype(step, models)
    wide = torch.float64 if common == torch.float64 else torch.float32

    def read(each: Input) -> Tensor:
        # An input is rounded to the recipe's dtype before anything is computed of it.
        return models[each.model][each.name].to(first.device, common).to(wide)

    match recipe.method:
        case "linear":
            weights = [each.values["weight"] for each in step.inputs]
            tensors = [read(each) for each in step.inputs]
            return formulas.linear(tensors, weights, normalize=bool(step.values["normalize"]))
        case "slerp":
            base, other = sorted(step.inputs, key=lambda each: not each.is_base)
            return formulas.slerp(read(base), read(other), step.values["t"])
        case "passthrough":
            [only] = step.inputs
            return read(only) * only.values["scale"] if "scale" in only.values else read(only)
        case method:
            return _from_vectors(method, name, step, read, seed)


def _from_vectors(
    method: str, name: str, step: TensorPlan, read: Callable[[Input], Tensor], seed: int
) -> Tensor:
    base = next(read(each) for each in step.inputs if each.is_base)
    others = [each for each in step.inputs if not each.is_base]
    rescale = bool(step.values["rescale"])

    def sparse(index: int, each: Input) -> Tensor:
        vector, density = read(each) - base, each.values["density"]
        if method == "ties":
            return formulas.keep_largest(vector, density, rescale=rescale)
        if method.startswith("dare"):
            return formulas.keep_random(
                vector, density, seed=seed, index=index, name=name, rescale=rescale
            )
        return vector

    return formulas.add_vectors(
        base,
        [sparse(i, each) for i, each in enumerate(others)],
        [each.values["weight"] for each in others],
        elect=method.endswith("ties"),
        normalize=bool(step.values["normalize"]),
        scale=step.values["lambda"],
    )


def _notes(recipe: MergeRecipe, steps: Mapping[str, TensorPlan]) -> dict[str, Any]:
    notes: dict[str, Any] = {
        "method": recipe.method,
        "models": list(recipe.addresses),
        "depth": sum(layer_lists(steps).values()),
        "unused": list(recipe.unused),
    }
    if recipe.slices[0].sources[0].layers:
        notes["layers"] = [
            [part.sources[0].model, layer]
            for part in recipe.slices
            for layer in range(*(part.sources[0].layers or (0, 0)))
        ]
    return notes
