"""How far two models are apart: tensor by tensor, and summed up by layer and by kind of module."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, sqrt
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from bdlit.weights.layers import LayerName, layer_of
from bdlit.weights.naming import align_names, float_names
from bdlit.weights.outlines import outline
from bdlit.weights.reading import in_pieces

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights

_Key = TypeVar("_Key", bound=Hashable)


_RUN = 2**16  # entries that are summed in float32


class ModuleAt(NamedTuple):
    """The layer and the module that a tensor belongs to.

    Attributes:
        layer: Number of its layer; None outside the layers.
        module: What kind of module it is of: the same name in every layer.
    """

    layer: int | None
    module: str


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums over the numbers of two vectors, which say how far they are apart.

    Attributes:
        difference: Sum of the squared differences.
        first: Sum of squares of the first.
        other: Sum of squares of the other.
        product: Sum of the products.
    """

    difference: float = 0.0
    first: float = 0.0
    other: float = 0.0
    product: float = 0.0

    @classmethod
    def between(cls, first: Tensor, other: Tensor) -> Sums:
        """Sum over two tensors of one shape.

        Short runs are summed in float32, or in float64 where a tensor is, and the runs in float64:
        the error is below 1e-6 of the sum.
        """
        [sums] = cls.between_each([first], other)
        return sums

    @classmethod
    def between_each(cls, firsts: Sequence[Tensor], other: Tensor) -> list[Sums]:
        """Sum over each of several tensors and one other, which is gone through once."""
        dtypes = [tensor.dtype for tensor in (*firsts, other)]
        wide = torch.float64 if torch.float64 in dtypes else torch.float32
        cut = [torch.split(t.detach().cpu().reshape(-1), _RUN) for t in (other, *firsts)]
        squares = [0.0] * len(cut)
        gaps = [0.0] * len(firsts)
        for runs in zip(*cut, strict=True):
            end, *starts = (run.to(wide) for run in runs)
            for i, start in enumerate(starts):
                gaps[i] += _sum_of_squares(end - start)
            for i, run in enumerate((end, *starts)):
                squares[i] += _sum_of_squares(run)
        of_other, *of_firsts = squares
        return [
            cls(difference=gap, first=own, other=of_other, product=(own + of_other - gap) / 2)
            for gap, own in zip(gaps, of_firsts, strict=True)
        ]

    @classmethod
    def over(cls, parts: Iterable[Sums]) -> Sums:
        """Return the sums of vectors that follow each other."""
        held = list(parts)
        return cls(
            difference=sum(part.difference for part in held),
            first=sum(part.first for part in held),
            other=sum(part.other for part in held),
            product=sum(part.product for part in held),
        )

    @property
    def relative_l2(self) -> float | None:
        """Length of the difference over the length of the first; None over a length of nothing."""
        if self.difference == 0:
            return 0.0
        return sqrt(self.difference / self.first) if self.first else None

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between the two, in [-1, 1]; None where one is zero."""
        lengths = sqrt(self.first * self.other)
        if not lengths:
            return None
        cosine = self.product / lengths
        return cosine if isnan(cosine) else max(-1.0, min(1.0, cosine))


@dataclass(frozen=True, kw_only=True)
class Distance(Sums):
    """How far a tensor, or several as one long vector, is from its counterpart.

    Attributes:
        name: Name of the tensor, or of the group.
        at: Its layer and module; of a group, those of its first tensor or as given.
        tensors: How many tensors it is over.
        entries: How many numbers it is over.
    """

    name: str
    at: ModuleAt
    tensors: int
    entries: int


def distances(
    first: Weights, other: Weights, watch: Callable[[int, int], None] | None = None
) -> list[Distance]:
    """Measure the floating-point tensors that two models share, one after the other.

    Tensors are read piece by piece, so that neither memory nor rounding grows with the model;
    those of different shapes are left out.

    Args:
        first: The model that lengths are relative to.
        other: The model that is compared with it.
        watch: Called with the number of entries that were read and the number of all.

    >>> (found,) = distances({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([3.0, 0.0])})
    >>> found.relative_l2, found.cosine
    (0.8, 0.6)
    """
    names = shared_names(first, other)
    modules = modules_of(first)
    total = sum(outline(first, name).entries for name in names)
    done = 0
    found = []
    for name in names:
        found.append(_measured(name, modules[name], first, other))
        done += found[-1].entries
        if watch is not None:
            watch(done, total)
    return found


def shared_names(first: Weights, other: Weights) -> list[str]:
    """Return the floating-point tensors that both have in one shape.

    >>> shared_names({"w": torch.ones(1), "v": torch.ones(1)}, {"w": torch.ones(1)})
    ['w']
    """
    theirs = set(float_names(other))
    return [
        name
        for name in float_names(first)
        if name in theirs and outline(first, name).shape == outline(other, name).shape
    ]


def aligned(first: Weights, other: Weights) -> tuple[Weights, Weights]:
    """Return two models under common names, where one of them is the bare encoder of the other.

    >>> bare, classifier = {"embeddings.w": torch.ones(1)}, {"bert.embeddings.w": torch.ones(1)}
    >>> [list(model) for model in aligned(bare, classifier)]
    [['bert.embeddings.w'], ['bert.embeddings.w']]
    """
    if any(name in other for name in first):
        return first, other
    if renamed := align_names(other, first):
        return first, renamed
    renamed = align_names(first, other)
    return (renamed, other) if renamed else (first, other)


def combine(found: Iterable[Distance], name: str, at: ModuleAt | None = None) -> Distance:
    """Return several distances as the one of all their entries together.

    Args:
        found: At least one distance.
        name: What to call the group.
        at: Layer and module of the group; by default those of its first tensor.

    Raises:
        ValueError: There is nothing to combine.
    """
    members = list(found)
    if not members:
        raise ValueError("no distances to combine")
    return Distance(
        name=name,
        at=at or members[0].at,
        tensors=sum(d.tensors for d in members),
        entries=sum(d.entries for d in members),
        **vars(Sums.over(members)),
    )


def grouped(
    found: Iterable[Distance], key: Callable[[ModuleAt], _Key | None]
) -> dict[_Key, Distance]:
    """Sum distances up by a key of their place; where the key is None they are left out.

    >>> w = torch.ones(1)
    >>> model = {"layers.0.q.weight": w, "layers.0.q.bias": w, "layers.1.q.weight": w, "head.w": w}
    >>> by_layer = grouped(distances(model, model), lambda at: at.layer)
    >>> {layer: distance.tensors for layer, distance in by_layer.items()}
    {0: 2, 1: 1}
    """
    members: dict[_Key, list[Distance]] = {}
    for distance in found:
        if (own := key(distance.at)) is not None:
            members.setdefault(own, []).append(distance)
    return {own: combine(held, str(own)) for own, held in members.items()}


def modules_of(names: Iterable[str]) -> dict[str, ModuleAt]:
    """Tell layer and module of every tensor of a model from its name.

    The first number in the name of a list of layers is the layer, and what follows it, without
    `weight` or `bias`, the module. A name outside the layers is a module of its own, without the
    model's name before it. In a model of several lists (encoder and decoder), the list is part of
    the module. Where no list has one of the usual names, the first number in any name is the layer.

    >>> list(modules_of(["bert.encoder.layer.3.attention.self.query.weight"]).values())
    [ModuleAt(layer=3, module='attention.self.query')]
    """
    names = list(names)
    places = {name: layer_of(name) for name in names}
    if not any(places.values()):
        places = {name: _numbered(name) for name in names}
    lists = list(dict.fromkeys(place.prefix for place in places.values() if place))
    model = _common_start(lists)
    return {name: _module_at(name, place, lists, model) for name, place in places.items()}


def _numbered(name: str) -> LayerName | None:
    words = name.split(".")
    at = next((i for i, word in enumerate(words) if word.isascii() and word.isdigit()), None)
    if at is None or at + 1 == len(words):
        return None
    return LayerName(".".join(words[:at]), int(words[at]), ".".join(words[at + 1 :]))


def _common_start(lists: list[str]) -> str:
    """Return the first word of the names of all lists, with its dot, where it is one."""
    starts = {name.partition(".")[0] for name in lists if "." in name}
    return f"{starts.pop()}." if len(starts) == 1 else ""


def _sum_of_squares(run: Tensor) -> float:
    return float(run.square().sum())


def _module_at(name: str, place: LayerName | None, lists: list[str], model: str) -> ModuleAt:
    if place is None:
        return ModuleAt(None, _bare(name.removeprefix(model)))
    own, layer, rest = place
    stack = f"{own.removeprefix(model)}: " if len(lists) > 1 else ""
    return ModuleAt(layer, stack + _bare(rest))


def _bare(name: str) -> str:
    """Take `weight` or `bias` off; a parameter of that name alone is its own module."""
    module, _, last = name.rpartition(".")
    return module if module and last in ("weight", "bias") else name


def _measured(name: str, at: ModuleAt, first: Weights, other: Weights) -> Distance:
    pairs = zip(in_pieces(first, name), in_pieces(other, name), strict=True)
    sums = Sums.over(Sums.between(a, b) for a, b in pairs)
    entries = outline(first, name).entries
    return Distance(name=name, at=at, tensors=1, entries=entries, **vars(sums))


def as_table(found: Iterable[Distance]) -> tuple[list[str], list[int], Mapping[ModuleAt, Distance]]:
    """Lay distances out as modules against layers.

    Returns:
        Modules in the order of the model, layers from the first to the last, and the distance of
        each pair that exists; modules outside the layers have the layer None.

    >>> w = torch.ones(1)
    >>> model = {"layers.0.q.weight": w, "layers.1.q.weight": w, "head.weight": w}
    >>> as_table(distances(model, model))[:2]
    (['q', 'head'], [0, 1])
    """
    cells = grouped(found, lambda at: at)
    modules = list(dict.fromkeys(at.module for at in cells))
    layers = sorted({at.layer for at in cells if at.layer is not None})
    return modules, layers, cells
