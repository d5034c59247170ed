"""Passthrough: models put together from whole layers of several models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from bdlit.errors import BdlitError
from bdlit.merging.settings import require_choice
from bdlit.weights import Elementwise, LazyWeights, outline
from bdlit.weights.layers import layer_count, layer_of, renumbered

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights import Outline, Read

Outside: TypeAlias = Literal["first", "ends"] | int
"""Whose the tensors outside the layers are: the first model's, those of the models that give the
first layer (embeddings) and the last layer (norms, pooler, head), or those of a model by number."""

_BEFORE_LAYERS = re.compile(r"embed|\bwte\b|\bwpe\b|\bshared\b")


class _Source(NamedTuple):
    model: int
    name: str


def passthrough(
    models: Sequence[Weights], layers: Sequence[tuple[int, int]], *, outside: Outside = "first"
) -> LazyWeights:
    """Return a model each of whose layers is one layer of one model, unchanged.

    Args:
        models: Models of one width and vocabulary, which may differ in depth.
        layers: (model, layer) for each layer of the result, from its first: indices from 0. A
            layer may occur often or never, so the result may be deeper or shallower.
        outside: Whose the tensors outside the layers are: those of the `first` model; with `ends`,
            as in MergeKit, embeddings of the model that gives the first layer, all others of the
            model that gives the last; or those of the model of this number, from 0.

    Returns:
        The result, read on access. Its notes hold its `depth` and for each layer the `layers`
        that it was. At another depth it needs a config of its own: `bdlit.weights.depth`.

    Raises:
        BdlitError: A model or layer does not exist, a model has no layers, or a layer does not
            fit in its new place.

    Reference: Goddard et al. 2024, "Arcee's MergeKit: A Toolkit for Merging Large Language
        Models", arXiv:2403.13257.

    >>> import torch
    >>> a = {"h.0.mlp.weight": torch.zeros(1), "h.1.mlp.weight": torch.ones(1)}
    >>> b = {"h.0.mlp.weight": torch.full((1,), 5.0), "h.1.mlp.weight": torch.full((1,), 6.0)}
    >>> merged = passthrough([a, b], [(0, 0), (1, 1), (0, 1)])
    >>> {name: tensor.item() for name, tensor in merged.items()}
    {'h.0.mlp.weight': 0.0, 'h.1.mlp.weight': 6.0, 'h.2.mlp.weight': 1.0}
    """
    depths = _depths(models)
    _require_layers(layers, depths)
    ends = _ends(outside, layers, len(models))
    sources = _sources(models, layers, ends)
    forms = stretched(models[0], len(layers))
    _require_fit(models, sources, forms)

    def tensor(name: str, read: Read) -> Tensor:
        source, form = sources[name], forms[name]
        return read(models[source.model], source.name).to(form.device, form.dtype)

    return Elementwise(
        forms,
        tensor,
        {"depth": len(layers), "layers": [list(layer) for layer in layers], "outside": outside},
        outline=forms.__getitem__,
    )


def stands_before_layers(name: str) -> bool:
    """Return whether a tensor outside the layers feeds the first of them: an embedding.

    >>> [stands_before_layers(name) for name in ("transformer.wte.weight", "lm_head.weight")]
    [True, False]
    """
    return _BEFORE_LAYERS.search(name) is not None


def stretched(first: Weights, depth: int) -> dict[str, Outline]:
    """Return names and forms of the tensors of a model like this one, but of another depth.

    Its last layer is the form of all that come after it.

    Raises:
        BdlitError: It has several lists of layers, or a list with a gap.

    >>> import torch
    >>> list(stretched({"h.0.mlp.weight": torch.ones(1), "ln_f.weight": torch.ones(1)}, 2))
    ['h.0.mlp.weight', 'h.1.mlp.weight', 'ln_f.weight']
    """
    return dict(_forms(first, depth))


def _depths(models: Sequence[Weights]) -> list[int]:
    if not models:
        raise BdlitError("there is nothing to merge: give at least one model")
    depths = [layer_count(model) for model in models]
    for i, depth in enumerate(depths):
        if not depth:
            raise BdlitError(
                f"model {i} has no layers by the names of its tensors (`...layer.0...`, "
                "`...layers.0...`, `...h.0...`): passthrough needs a transformer"
            )
    return depths


def _ends(outside: Outside, layers: Sequence[tuple[int, int]], models: int) -> tuple[int, int]:
    """Return the model that gives what stands before the layers, and the one for what follows."""
    if isinstance(outside, int):
        if not 0 <= outside < models:
            raise BdlitError(
                f"outside names model {outside}, and there are {models}: count them from 0"
            )
        return outside, outside
    require_choice("outside", outside, Literal["first", "ends"])
    return (layers[0][0], layers[-1][0]) if outside == "ends" else (0, 0)


def _require_layers(layers: Sequence[tuple[int, int]], depths: Sequence[int]) -> None:
    if not layers:
        raise BdlitError("passthrough was given no layers: give at least one (model, layer)")
    for place, (model, layer) in enumerate(layers):
        if not 0 <= model < len(depths):
            raise BdlitError(
                f"layer {place} of the result should come from model {model}, but there are "
                f"{len(depths)}: count them from 0"
            )
        if not 0 <= layer < depths[model]:
            raise BdlitError(
                f"layer {place} of the result would be layer {layer} of model {model}, which has "
                f"{depths[model]}: count them from 0"
            )


def _sources(
    models: Sequence[Weights], layers: Sequence[tuple[int, int]], ends: tuple[int, int]
) -> dict[str, _Source]:
    """Return for each name of the result whose tensor it is, and the name there."""
    of_layer: dict[tuple[int, int], list[str]] = {}
    for model in {model for model, _ in layers}:
        for name in models[model]:
            place = layer_of(name)
            if place is not None:
                of_layer.setdefault((model, place.layer), []).append(name)
    sources = {
        renumbered(name, index): _Source(model, name)
        for index, (model, layer) in enumerate(layers)
        for name in of_layer[model, layer]
    }
    before, after = ends
    for name in models[0]:
        if layer_of(name) is None:
            sources[name] = _Source(before if stands_before_layers(name) else after, name)
    return sources


def _forms(first: Weights, depth: int) -> Iterator[tuple[str, Outline]]:
    before = layer_count(first)
    for name in first:
        place = layer_of(name)
        if place is None or place.layer < depth:
            yield name, outline(first, name)
        if place is not None and place.layer == before - 1:
            for layer in range(before, depth):
                yield renumbered(name, layer), outline(first, name)


def _require_fit(
    models: Sequence[Weights], sources: Mapping[str, _Source], forms: Mapping[str, Outline]
) -> None:
    """Refuse sources of other names or shapes than the first model has in their place."""
    advice = "leave the layer in its place, or merge models of one architecture only"
    for name, form in forms.items():
        if name not in sources:
            raise BdlitError(f"the result would lack {name}: {advice}")
        model, own = sources[name]
        if own not in models[model]:
            raise BdlitError(f"model {model} lacks {own}: merge models of one architecture only")
        shape = outline(models[model], own).shape
        if shape != form.shape:
            raise BdlitError(
                f"{own} of model {model} is {list(shape)}, not {list(form.shape)}: merge models "
                "of one architecture and vocabulary only"
            )
    for name, (model, own) in sources.items():
        if name not in forms:
            raise BdlitError(f"{own} of model {model} has no place as {name}: {advice}")
