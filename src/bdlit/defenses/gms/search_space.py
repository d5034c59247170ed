"""What a search may drop, step by step: module types, layers, both, or single cells."""

from __future__ import annotations

from bdlit.defenses.gms.greedy import Element, State
from bdlit.defenses.gms.hybrid import Taken
from bdlit.defenses.gms.options import Granularity
from bdlit.defenses.modules import Layout
from bdlit.merging.substitution import LayerModule


class SearchSpace:
    """The axes of a search over a model, and what its states mean there.

    Args:
        granularity: What a step may drop.
        layout: The model's module types and layers.

    Attributes:
        axes: Names of the axes to their elements, in the order that decides ties: module types by
            name before layers from the lowest on.
        nothing: The state in which nothing is replaced: the victim.
        everything: The state in which a search starts.
    """

    def __init__(self, granularity: Granularity, layout: Layout) -> None:
        self._layout = layout
        self._granularity = granularity
        types: list[Element] = sorted(layout.types)
        layers: list[Element] = list(range(layout.layers))
        self.axes: dict[str, list[Element]]
        match granularity:
            case "modules and layers":
                self.axes = {"modules": types, "layers": layers}
            case "modules":
                self.axes = {"modules": types}
            case "layers":
                self.axes = {"layers": layers}
            case "cells":
                self.axes = {"cells": [f"{key}.{layer}" for key in types for layer in layers]}
        self.nothing: State = tuple(() for _ in self.axes)
        self.everything: State = tuple(tuple(elements) for elements in self.axes.values())

    @property
    def modules(self) -> list[str]:
        """All module types, in the order of the architecture."""
        return list(self._layout.types)

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return self._layout.layers

    def replaced(self, state: State) -> dict[str, list[int]]:
        """Return each module type that is replaced somewhere, with its layers."""
        types, layers = list(self._layout.types), list(range(self._layout.layers))
        if self._granularity == "cells":
            cells = [str(cell).rpartition(".") for cell in state[0]]
            return {t: found for t in types if (found := [int(n) for k, _, n in cells if k == t])}
        left = dict(zip(self.axes, state, strict=True))
        layers = [int(layer) for layer in left.get("layers", layers)]
        return {str(key): layers for key in left.get("modules", types) if layers}

    def taken(self, state: State) -> Taken:
        """Return what each layer takes from the donor."""
        replaced = self.replaced(state)
        return tuple(
            frozenset(key for key, layers in replaced.items() if layer in layers)
            for layer in range(self._layout.layers)
        )

    def cells(self, state: State) -> set[LayerModule]:
        """Return what is replaced, as `merging.substitute` takes it."""
        modules = self._layout.types
        return {(modules[key], at) for key, layers in self.replaced(state).items() for at in layers}
