"""Substitution: some modules of some layers are another model's, all else is the suspect's."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from bdlit.errors import BdlitError, did_you_mean
from bdlit.weights import Elementwise, LazyWeights, outline, require_compatible
from bdlit.weights.layers import layer_modules, layer_of, module_of

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights import Read

Cell: TypeAlias = tuple[str, int]
"""One module of one layer: (module type, layer), such as `("attention.self.query", 3)`."""


def grid(modules: Iterable[str], layers: Iterable[int]) -> frozenset[Cell]:
    """Return every one of the modules in every one of the layers.

    >>> sorted(grid(["mlp.c_fc"], range(2)))
    [('mlp.c_fc', 0), ('mlp.c_fc', 1)]
    """
    columns = list(layers)
    return frozenset((module, layer) for module in modules for layer in columns)


def substitute(suspect: Weights, donor: Weights, cells: Collection[Cell]) -> LazyWeights:
    """Return the suspect with the donor's weights and biases in some modules of some layers.

    Args:
        suspect: Gives names, dtypes and all that is not substituted.
        donor: A model of the same architecture; only what is substituted must fit.
        cells: Which modules of which layers; `grid` makes them of module types and layers. An
            empty set gives the suspect.

    Returns:
        The result, read on access. Its notes hold the layers of each module that was
        `substituted`, and the number of `tensors`.

    Raises:
        BdlitError: The suspect has no such module or layer, or the donor's do not fit.

    Reference: Tong et al. 2025, "Cut the Deadwood Out: Backdoor Purification via Guided Module
        Substitution", arXiv:2412.20476.

    >>> import torch
    >>> suspect = {"h.0.mlp.weight": torch.zeros(1), "score.weight": torch.zeros(1)}
    >>> donor = {"h.0.mlp.weight": torch.ones(1), "score.weight": torch.ones(1)}
    >>> result = substitute(suspect, donor, grid(["mlp"], [0]))
    >>> result["h.0.mlp.weight"], result["score.weight"]
    (tensor([1.]), tensor([0.]))
    """
    wanted = set(cells)
    _require_cells(suspect, wanted)
    replaced = [name for name in suspect if _cell(name) in wanted]
    require_compatible(suspect, [donor], replaced, labels=["the donor"])
    given = set(replaced)

    def tensor(name: str, read: Read) -> Tensor:
        if name not in given:
            return read(suspect, name)
        form = outline(suspect, name)
        return read(donor, name).to(form.device, form.dtype)

    substituted: dict[str, list[int]] = {}
    for module, layer in sorted(wanted):
        substituted.setdefault(module, []).append(layer)
    return Elementwise(
        suspect,
        tensor,
        {"substituted": substituted, "tensors": len(replaced)},
        outline=partial(outline, suspect),
    )


def _cell(name: str) -> Cell | None:
    place = layer_of(name)
    return None if place is None else (module_of(name), place.layer)


def _require_cells(suspect: Weights, cells: Iterable[Cell]) -> None:
    known = layer_modules(suspect)
    for module, layer in sorted(cells):
        if not known:
            raise BdlitError(
                "the suspect has no layers by the names of its tensors: substitution needs a "
                "transformer"
            )
        if module not in known:
            raise BdlitError(
                f"the suspect has no module '{module}' in its layers: {did_you_mean(module, known)}"
            )
        if layer not in known[module]:
            near = min(known[module], key=lambda other: abs(other - layer))
            raise BdlitError(
                f"the suspect has no '{module}' in layer {layer}: did you mean layer {near}? "
                f"({_ranges(known[module])} have it)"
            )


def _ranges(layers: list[int]) -> str:
    whole = layers == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers))
