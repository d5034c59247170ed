"""Passthrough: a model of the suspect's and other models' layers, each taken whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from bdlit import merging
from bdlit.defenses.base import Defended, Defense
from bdlit.defenses.head import HEAD_NAMES, HeadFate, HeadPolicy, head_of, with_head
from bdlit.errors import BdlitError, did_you_mean
from bdlit.merging.settings import require_choice
from bdlit.types import Weights
from bdlit.weights.layers import layer_count, layer_of

if TYPE_CHECKING:
    from bdlit.merging.passthrough import Outside

SUSPECT = "suspect"
ENDS = "ends"

Origin: TypeAlias = Literal["suspect"] | int
"""Whose layers: the suspect's, or those of one of the others by its number, from 0."""

LayerRange: TypeAlias = tuple[Origin, int | float, int | float]
"""Layers from the first number up to, not including, the second: `[suspect, 0, 6]`. Where one of
the numbers has a point, both are shares of the depth: `[suspect, 0, 0.5]`."""

OutsideOrigin: TypeAlias = Literal["suspect", "ends"] | int
"""Whose the tensors outside the layers are: the suspect's, those of the models that give the first
and the last layer, or those of one of the others by its number, from 0."""


@dataclass(frozen=True, kw_only=True)
class Passthrough(Defense):
    """Put a model together from whole layers of the suspect and of other models.

    The maths is `bdlit.merging.passthrough`. Tensors outside the layers, such as embeddings, the
    last norm and the head, are the suspect's unless `outside` or `head` say otherwise.

    Attributes:
        layers: The slices of the result from its first layer on, each as [source, start, end] with
            end not included: `[[suspect, 0, 6], [0, 6, 12]]` puts the upper half of the first
            other on the lower half of the suspect. Numbers with a point are shares of the source's
            depth, rounded to layers: `[[suspect, 0, 0.6], [0, 0.5, 1.0]]` makes a model of 12
            layers one of 13. None takes turns at the suspect's depth: layers 0, 2, 4 ... of the
            first other, 1, 3, 5 ... of the suspect.
        outside: Whose the tensors outside the layers are: the `suspect`'s; with `ends`, as in
            MergeKit, the embeddings of the model that gives the first layer and all others of the
            model that gives the last; or those of one of the others by its number, from 0.
        head: What becomes of the head: `merge` takes it as `outside` says; `average` takes the mean
            of all models' heads, and `keep_suspect` the suspect's, whatever stands outside.
        head_names: Beginnings of the names of head tensors.

    Reference: Chen et al. 2024, "Neutralizing Backdoors through Information Conflicts for Large
        Language Models", arXiv:2411.18280; the merge as in arXiv:2403.13257 (MergeKit).
    Deviation: The paper names passthrough among its merges without saying which layers are whose;
        taking turns is our choice, and so is the suspect's for what stands outside: MergeKit's
        passthrough is `outside="ends"`.
    """

    layers: Sequence[LayerRange] | None = None
    outside: OutsideOrigin = "suspect"
    head: HeadPolicy = "merge"
    head_names: tuple[str, ...] = HEAD_NAMES

    def __post_init__(self) -> None:
        require_choice("head", self.head, HeadPolicy)
        if isinstance(self.outside, str) and self.outside not in (SUSPECT, ENDS):
            raise BdlitError(
                f"unknown outside {self.outside!r}: {did_you_mean(self.outside, [SUSPECT, ENDS])} "
                "Or give the number of one of the others, from 0"
            )
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
        models = [suspect, *others]
        depths = [layer_count(model) for model in models]
        layers = list(self._layers(depths))
        # Without layers the merge itself says what is wrong.
        made = merging.passthrough(models, layers or [(0, 0)], outside=self._outside(len(others)))
        of_head = head_of(suspect, self.head_names)
        result = with_head(made, models, of_head, self.head)
        copied = set(self._own(made, layers, of_head))
        return Defended(
            weights=result,
            merged=[name for name in result if name not in copied],
            copied=[name for name in result if name in copied],
            depth=len(layers),
            layers=[layer for _, layer in layers],
            notes={**made.notes, "outside": self.outside},
        )

    @property
    def keeps_head(self) -> bool:
        """As `head` says, and `outside` where that says no more."""
        return self.head == "keep_suspect" or (self.head == "merge" and self.outside == SUSPECT)

    @property
    def head_becomes(self) -> HeadFate | None:
        """The mean, or another model's as a whole, where it is not the suspect's."""
        return "averaged" if self.head == "average" else "other's"

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

    def _layers(self, depths: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield (model, layer) with the suspect as model 0 and the others behind it."""
        if self.layers is None:
            yield from ((1 - layer % 2, layer) for layer in range(depths[0]))
            return
        for part in self.layers:
            origin, start, end = part
            model = self._model(origin, len(depths) - 1, "layers")
            if isinstance(start, float) or isinstance(end, float):
                start, end = round(start * depths[model]), round(end * depths[model])
                if start == end and depths[model]:
                    raise BdlitError(
                        f"{list(part)} of layers is no layer of a model of {depths[model]}: take "
                        "a larger share"
                    )
            yield from ((model, layer) for layer in range(int(start), int(end)))

    def _outside(self, others: int) -> Outside:
        if isinstance(self.outside, int):
            return self._model(self.outside, others, "outside")
        return "first" if self.outside == SUSPECT else "ends"

    def _model(self, origin: Origin, others: int, setting: str) -> int:
        """Return the number of a model among the suspect and the others."""
        if not isinstance(origin, int):
            return 0
        if not 0 <= origin < others:
            raise BdlitError(
                f"{setting} names other {origin}, and there are {others}: count them from 0"
            )
        return origin + 1

    def _own(
        self, names: Iterable[str], layers: Sequence[tuple[int, int]], head: Sequence[str]
    ) -> Iterator[str]:
        """Yield the names of the tensors that are the suspect's in their own place."""
        from bdlit.merging.passthrough import stands_before_layers

        own = {i for i, layer in enumerate(layers) if layer == (0, i)}
        ends = {SUSPECT: (0, 0), ENDS: (layers[0][0], layers[-1][0]) if layers else (0, 0)}
        before, after = ends.get(str(self.outside), (1, 1))
        of_head = set(head)
        for name in names:
            place = layer_of(name)
            if name in of_head and self.head != "merge":
                is_own = self.head == "keep_suspect"
            elif place is not None:
                is_own = place.layer in own
            else:
                is_own = not (before if stands_before_layers(name) else after)
            if is_own:
                yield name


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
    known = origin == SUSPECT or (type(origin) is int and origin >= 0)
    if not known or not {type(start), type(end)} <= {int, float} or not 0 <= start < end:
        raise BdlitError(f"{list(part)} is not a slice of layers: {shape}, with start below end")
    if float in {type(start), type(end)} and end > 1:
        raise BdlitError(
            f"{list(part)} is not a slice of layers: numbers with a point are shares of the depth, "
            "from 0 to 1"
        )
    return (origin, start, end)
