"""From a recipe and the models to a plan: for each tensor of the result, its inputs and values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdlit.errors import BdlitError
from bdlit.merging.passthrough import stands_before_layers, stretched
from bdlit.recipes.merge_recipe import MergeRecipe, Parameters, Slice, SourceModel
from bdlit.recipes.methods import METHODS
from bdlit.recipes.settings import Number, value_of
from bdlit.weights import outline
from bdlit.weights.layers import layer_count, layer_lists, layer_of, renumbered

if TYPE_CHECKING:
    from bdlit.types import Weights


@dataclass(frozen=True)
class Input:
    """One model's part in a tensor.

    Attributes:
        model: Address of the model.
        name: Name of the tensor there.
        values: The parameters of this model, for this tensor.
        is_base: Whether the model is the base.
    """

    model: str
    name: str
    values: Mapping[str, Number]
    is_base: bool


@dataclass(frozen=True)
class TensorPlan:
    """How one tensor of the result is made.

    Attributes:
        inputs: The models' parts, in the order of the recipe.
        values: The parameters that hold for all of them.
    """

    inputs: tuple[Input, ...]
    values: Mapping[str, Number]


@dataclass(frozen=True)
class _Spot:
    """A tensor of the result: its slice, its place in it, and its name in each source."""

    part: Slice
    position: float
    names: Sequence[str]


def plan(recipe: MergeRecipe, models: Mapping[str, Weights]) -> dict[str, TensorPlan]:
    """Return how each tensor of the result is made, by its name.

    Args:
        recipe: What to do.
        models: The models by their addresses.

    Raises:
        BdlitError: A model lacks layers or tensors, their shapes differ, or a parameter that the
            method needs has no value.
    """
    spots = _of_slices if recipe.slices[0].sources[0].layers else _of_models
    steps = {name: _step(recipe, name, spot) for name, spot in spots(recipe, models)}
    for name, step in steps.items():
        _require_fit(name, step, models)
    if recipe.slices[0].sources[0].layers:
        steps = _in_order(steps, models[recipe.slices[0].sources[0].model])
    return steps


def _of_models(recipe: MergeRecipe, models: Mapping[str, Weights]) -> Iterator[tuple[str, _Spot]]:
    [part] = recipe.slices
    for source in part.sources:
        _require_same_names(models, part.sources[0].model, source.model)
    first = models[part.sources[0].model]
    lists = layer_lists(first)
    for name in first:
        place = layer_of(name)
        position = _position(place.layer, lists[place.prefix]) if place else 0.0
        yield name, _Spot(part, position, [name] * len(part.sources))


def _of_slices(recipe: MergeRecipe, models: Mapping[str, Weights]) -> Iterator[tuple[str, _Spot]]:
    first, last = recipe.slices[0], recipe.slices[-1]
    for name in models[first.sources[0].model]:
        if layer_of(name) is None:
            # A gradient has its first value everywhere outside the layers.
            part = first if stands_before_layers(name) else last
            yield name, _Spot(part, 0.0, [name] * len(part.sources))
    index = 0
    for part in recipe.slices:
        for source in part.sources:
            _require_layers(source, models[source.model])
        starts = [source.layers[0] for source in part.sources if source.layers]
        count = _length(part)
        for offset in range(count):
            for name in _names_of_layer(models[part.sources[0].model], starts[0] + offset):
                names = [renumbered(name, start + offset) for start in starts]
                yield renumbered(name, index), _Spot(part, _position(offset, count), names)
            index += 1


def _length(part: Slice) -> int:
    start, end = part.sources[0].layers or (0, 0)
    return end - start


def _position(index: int, count: int) -> float:
    return index / (count - 1) if count > 1 else 1.0


def _names_of_layer(model: Weights, index: int) -> Iterable[str]:
    for name in model:
        place = layer_of(name)
        if place is not None and place.layer == index:
            yield name


def _step(recipe: MergeRecipe, name: str, spot: _Spot) -> TensorPlan:
    method, part = METHODS[recipe.method], spot.part
    shared = [part.parameters, recipe.parameters]
    of_all = [key for key, parameter in method.parameters.items() if parameter.scope == "all"]
    inputs = []
    for source, own in zip(part.sources, spot.names, strict=True):
        is_base = source.model == recipe.base_of(part)
        scopes = {"each"} if is_base else {"each", "others"}
        keys = [key for key, parameter in method.parameters.items() if parameter.scope in scopes]
        wanted = _values(recipe, keys, [source.parameters, *shared], own, spot.position, source)
        inputs.append(Input(source.model, own, wanted, is_base))
    return TensorPlan(tuple(inputs), _values(recipe, of_all, shared, name, spot.position))


def _values(
    recipe: MergeRecipe,
    keys: Iterable[str],
    levels: Sequence[Parameters],
    name: str,
    position: float,
    source: SourceModel | None = None,
) -> dict[str, Number]:
    """Return the value of each parameter, from the innermost level that has one for the tensor."""
    found = {}
    for key in keys:
        given = (value_of(level[key], name, position) for level in levels if key in level)
        value = next((value for value in given if value is not None), None)
        parameter = METHODS[recipe.method].parameters[key]
        if value is None:
            value = parameter.default
        if value is not None:
            found[key] = value
        elif not parameter.optional:
            whose = f" of {source.model}" if source else ""
            raise BdlitError(
                f"{recipe.origin}: {recipe.method} needs the parameter {key}{whose}, and there is "
                f"none for {name}: give one"
            )
    return found


def _require_layers(source: SourceModel, model: Weights) -> None:
    depth = layer_count(model)
    _, end = source.layers or (0, 0)
    if not depth:
        raise BdlitError(f"{source.model} has no layers by the names of its tensors")
    if end > depth:
        raise BdlitError(
            f"layer_range {list(source.layers or ())} goes beyond {source.model}, which has "
            f"{depth} layers"
        )


def _require_same_names(models: Mapping[str, Weights], first: str, other: str) -> None:
    for one, two in ((first, other), (other, first)):
        lost = [n for n in models[one] if n not in models[two] and outline(models[one], n).is_float]
        if lost:
            raise BdlitError(
                f"{two} lacks {len(lost)} tensors of {one}, first {lost[0]}: merge models of one "
                "architecture, with a head of the same kind each"
            )


def _require_fit(name: str, step: TensorPlan, models: Mapping[str, Weights]) -> None:
    present = [each for each in step.inputs if each.name in models[each.model]]
    forms = [outline(models[each.model], each.name) for each in present]
    missing = [each for each in step.inputs if each not in present]
    # Integer buffers come and go between versions of transformers; the first model's are copied.
    if missing and (missing[0] is step.inputs[0] or forms[0].is_float):
        raise BdlitError(
            f"{missing[0].model} has no {missing[0].name}, which {name} is made of: merge models "
            "of one architecture"
        )
    for each, form in zip(present, forms, strict=True):
        if form.is_float and form.shape != forms[0].shape:
            raise BdlitError(
                f"{each.name} of {each.model} is {list(form.shape)}, and {list(forms[0].shape)} in "
                f"{present[0].model}: merge models of one architecture and vocabulary"
            )


def _in_order(steps: dict[str, TensorPlan], first: Weights) -> dict[str, TensorPlan]:
    """Return the steps as a checkpoint of that depth has them, and refuse other names."""
    names = stretched(first, layer_count(steps))
    strange = [name for name in names if name not in steps] or [n for n in steps if n not in names]
    if strange:
        does = "lack" if strange[0] in names else "have"
        raise BdlitError(
            f"the result would {does} {strange[0]}, unlike its first model: leave layers of "
            "another form in their place"
        )
    return {name: steps[name] for name in names}
