"""What a mergekit-style recipe says, as plain data: models or slices, and their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bdlit.recipes.settings import Setting

Parameters = Mapping[str, Setting]
"""Parameters by name, such as `weight` or `t`."""


@dataclass(frozen=True)
class SourceModel:
    """One model of a slice.

    Attributes:
        model: Its address.
        layers: Its first layer, and the layer behind its last; None takes all of the model.
        parameters: What holds for this model in this slice.
    """

    model: str
    layers: tuple[int, int] | None = None
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """Layers of the result that are merged of the same models.

    Attributes:
        sources: The models, with as many layers each.
        parameters: What holds for this slice.
        base: The base model of this slice, where it is not the recipe's.
    """

    sources: tuple[SourceModel, ...]
    parameters: Parameters = field(default_factory=dict)
    base: str | None = None


@dataclass(frozen=True)
class MergeRecipe:
    """A merge, as written in a file.

    Attributes:
        method: Name of the method, such as `ties`.
        slices: What the layers of the result are merged of, from the first on. Whole models are
            one slice of sources without layers.
        base: Address of the base model, if one is named.
        parameters: What holds everywhere.
        dtype: Name of the dtype that the inputs are converted to; None keeps theirs.
        out_dtype: Name of the dtype of the result; None is that of the inputs.
        tokenizer_source: `base`, or the address of the model whose tokenizer the result takes.
        unused: Parameters in the file that the method does not have.
        origin: The file's name, for messages.
    """

    method: str
    slices: tuple[Slice, ...]
    base: str | None = None
    parameters: Parameters = field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | None = None
    unused: tuple[str, ...] = ()
    origin: str = "recipe"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Address of every model that is read, the base first."""
        return tuple(dict.fromkeys(self._addresses()))

    def base_of(self, part: Slice) -> str | None:
        """Return the address of the base model of a slice."""
        return part.base or self.base

    def _addresses(self) -> Iterator[str]:
        if self.base:
            yield self.base
        for part in self.slices:
            if part.base:
                yield part.base
            yield from (source.model for source in part.sources)
