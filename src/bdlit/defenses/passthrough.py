"""Passthrough: a model of the suspect's and other models' layers, each taken whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bdlit import merging
from bdlit.defenses.base import Defended, Defense
from bdlit.errors import BdlitError, did_you_mean
from bdlit.types import Weights
from bdlit.weights.layers import layer_count, layer_of

SUSPECT = "suspect"

Origin: TypeAlias = Literal["suspect"] | int
"""Whose layers: the suspect's, or those of one of the others by its number, from 0."""

LayerRange: TypeAlias = tuple[Origin, int, int]
"""Layers from the first number up to, not including, the second: `[suspect, 0, 6]`."""


@dataclass(frozen=True, kw_only=True)
class Passthrough(Defense):
    """Put a model together from whole layers of the suspect and of other models.

    The maths is `bdlit.merging.passthrough`. Tensors outside the layers, the embeddings and the
    head, are the suspect's.

    Attributes:
        layers: The slices of the result from its first layer on, each as [source, start, end] with
            end not included: `[[suspect, 0, 6], [0, 6, 12]]` puts the upper half of the first
            other on the lower half of the suspect. None takes turns at the suspect's depth: layers
            0, 2, 4 ... of the first other, 1, 3, 5 ... of the suspect.

    Reference: Chen et al. 2024, "Neutralizing Backdoors through Information Conflicts for Large
        Language Models", arXiv:2411.18280; the merge as in arXiv:2403.13257 (MergeKit).
    Deviation: The paper names passthrough among its merges without saying which layers are whose;
        taking turns is our choice.
    """

    layers: Sequence[LayerRange] | None = None

    def __post_init__(self) -> None:
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(map(_checked, self.layers)))
            if not self.layers:
                raise BdlitError("layers is empty: give slices such as [suspect, 0, 6]")

    def apply(self, suspect: Weights, *, others: Sequence[Weights]) -> Defended:
        """Return a model of whole layers; `depth` is the number of them.

        Raises:
            BdlitError: There is no other model, a model has no layers, or a slice names a model
                or layers that do not exist.

        >>> import torch
        >>> suspect = {f"h.{i}.mlp.weight": torch.zeros(1) for i in range(2)}
        >>> other = {f"h.{i}.mlp.weight": torch.ones(1) for i in range(2)}
        >>> halves = Passthrough(layers=[("suspect", 0, 1), (0, 1, 2)])
        >>> halves.apply(suspect, others=[other]).weights["h.1.mlp.weight"]
        tensor([1.])
        """
        if not others:
            raise BdlitError("there are no other models to take layers from: give at least one")
        layers = list(self._layers(layer_count(suspect), len(others)))
        # Without layers the merge itself says what is wrong.
        result = merging.passthrough([suspect, *others], layers or [(0, 0)])
        own = {i for i, layer in enumerate(layers) if layer == (0, i)}
        copied = [name for name in result if _is_own(name, own)]
        return Defended(
            weights=result,
            merged=[name for name in result if not _is_own(name, own)],
            copied=copied,
            depth=len(layers),
            layers=[layer for _, layer in layers],
            notes=result.notes,
        )

    @property
    def keeps_head(self) -> bool:
        """Embeddings and head are the suspect's."""
        return True

    @property
    def keeps_names(self) -> bool:
        """The others may have more layers, or fewer: those that are taken must fit."""
        return False

    def check(
        self,
        suspect: Weights,
        *,
        others: Sequence[Weights],
        base: Weights | None,
        model_type: str | None,
    ) -> None:
        """Refuse slices that the models do not have: putting the model together reads nothing."""
        if others:
            self.apply(suspect, others=others)

    def _layers(self, depth: int, others: int) -> Iterator[tuple[int, int]]:
        """Yield (model, layer) with the suspect as model 0 and the others behind it."""
        if self.layers is None:
            yield from ((1 - layer % 2, layer) for layer in range(depth))
            return
        for origin, start, end in self.layers:
            if isinstance(origin, int) and origin >= others:
                raise BdlitError(
                    f"layers names other {origin}, and there are {others}: count them from 0"
                )
            model = origin + 1 if isinstance(origin, int) else 0
            yield from ((model, layer) for layer in range(start, end))


def require_depth_kept(defended: Defended, suspect: Weights) -> None:
    """Refuse a result of another depth, where it is to run in the suspect's place.

    Raises:
        BdlitError: The result has more or fewer layers than the suspect.
    """
    before, after = layer_count(suspect), defended.depth
    if after is not None and after != before:
        raise BdlitError(
            f"the result has {after} layers and the suspect {before}, so it cannot run in its "
            f"place: let the slices of layers add up to {before}, or merge to a folder"
        )


def _is_own(name: str, own_layers: set[int]) -> bool:
    place = layer_of(name)
    return place is None or place.layer in own_layers


def _checked(part: LayerRange) -> LayerRange:
    shape = "give [source, start, end] such as [suspect, 0, 6]"
    if isinstance(part, str) or not isinstance(part, Sequence) or len(part) != 3:
        raise BdlitError(f"{part!r} is not a slice of layers: {shape}")
    origin, start, end = part
    if isinstance(origin, str) and origin != SUSPECT:
        raise BdlitError(
            f"unknown source {origin!r} of layers: {did_you_mean(origin, [SUSPECT])} "
            "Or give the number of one of the others, from 0"
        )
    numbers = [start, end] if origin == SUSPECT else [origin, start, end]
    if any(type(number) is not int or number < 0 for number in numbers) or start >= end:
        raise BdlitError(f"{list(part)} is not a slice of layers: {shape}, with start below end")
    return (origin, start, end)
