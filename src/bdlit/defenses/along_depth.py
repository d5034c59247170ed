"""Shares that change along the depth of a model, for attention and MLP apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

from bdlit.errors import BdlitError
from bdlit.merging.settings import require_share
from bdlit.recipes.settings import Case

Kind: TypeAlias = Literal["attention", "mlp", "rest"]
"""What a tensor belongs to: attention or MLP of a layer, or neither (norms, embeddings, head)."""

_ATTENTION = frozenset({"Q", "K", "V", "QKV", "O", "q", "k", "v", "o"})
_CONTAINERS: dict[str, Kind] = {
    **dict.fromkeys(("self_attn", "attn", "self_attention", "attention"), "attention"),
    **dict.fromkeys(("mlp", "ffn", "feed_forward"), "mlp"),
}
"""First parts of names within a layer, for architectures whose modules are in no table."""


@dataclass(frozen=True, kw_only=True)
class AlongDepth:
    """A share for each tensor by its kind and layer.

    A list stands at even distances from the first layer to the last, with straight lines between
    its entries: layer l of L is at `l / (L - 1)`, and the only layer of a model at the end.

    Attention and MLP are told by the tables of module types (`bdlit.defenses.modules`), and where a
    module is in none by the first part of its name in the layer (`self_attn`, `mlp`). All other
    tensors take `rest`: norms, embeddings, the head, and modules whose kind cannot be told.

    Attributes:
        attention: Shares of the other model in attention, each in [0, 1], at least one.
        mlp: Shares of the other model in the MLP.
        rest: Its share in all else.

    Raises:
        BdlitError: A share is outside [0, 1], or a list is empty.

    Reference: Goddard et al. 2024, "Arcee's MergeKit: A Toolkit for Merging Large Language
        Models", arXiv:2403.13257: gradients of parameters.
    Deviation: MergeKit tells kinds by a part of the name that the user gives, such as `self_attn`.
    """

    attention: Sequence[float]
    mlp: Sequence[float]
    rest: float = 0.5

    def __post_init__(self) -> None:
        for name in ("attention", "mlp"):
            values = tuple(getattr(self, name))
            if not values:
                raise BdlitError(f"{name} of t is empty: give at least one share, in [0, 1]")
            for value in values:
                require_share(f"{name} of t", value)
            object.__setattr__(self, name, values)
        require_share("rest of t", self.rest)

    def shares(self, names: Iterable[str]) -> dict[str, float]:
        """Return the share for each tensor.

        Args:
            names: Names of all tensors of a model.

        Raises:
            BdlitError: No tensor is of attention, or none of an MLP: the lists would do nothing.

        >>> names = [f"h.{i}.{part}.weight" for i in range(3) for part in ("attn.c_proj", "ln_1")]
        >>> t = AlongDepth(attention=[0, 1], mlp=[1, 0])
        >>> list(t.shares([*names, "h.2.mlp.c_fc.weight"]).values())
        [0.0, 0.5, 0.5, 0.5, 1.0, 0.5, 0.0]
        """
        from bdlit.weights.layers import layer_lists, layer_of

        names = list(names)
        depths, shares, found = layer_lists(names), {}, set()
        for name in names:
            kind, place = kind_of(name), layer_of(name)
            found.add(kind)
            if place is None or kind == "rest":
                shares[name] = float(self.rest)
            else:
                values = tuple(self.attention if kind == "attention" else self.mlp)
                shares[name] = float(Case(values).at(position(place.layer, depths[place.prefix])))
        for kind in ("attention", "mlp"):
            if kind not in found:
                raise BdlitError(
                    f"no tensor is known as part of {kind} by its name, so t cannot change along "
                    "the depth: give one number as t"
                )
        return shares


def kind_of(name: str) -> Kind:
    """Return what a tensor belongs to, by its name alone.

    >>> [kind_of(f"bert.encoder.layer.0.{rest}.weight") for rest in
    ...  ("attention.output.dense", "attention.output.LayerNorm", "output.dense")]
    ['attention', 'rest', 'mlp']
    """
    from bdlit.weights.layers import layer_of, module_of

    place = layer_of(name)
    if place is None:
        return "rest"
    module = module_of(name)
    if module in _kinds():
        return _kinds()[module]
    container = place.rest.partition(".")[0]
    # BERT and its kin keep the norm behind attention in there, which is no part of it.
    outside = container == "attention" and "norm" in module.lower()
    return "rest" if outside else _CONTAINERS.get(container, "rest")


def position(layer: int, layers: int) -> float:
    """Return where a layer stands, from 0 to 1; the only one stands at the end.

    >>> position(1, 5), position(0, 1)
    (0.25, 1.0)
    """
    return layer / (layers - 1) if layers > 1 else 1.0


@cache
def _kinds() -> dict[str, Kind]:
    """Return the kind of every module that a table of module types names."""
    from bdlit.defenses.modules import ARCHITECTURES
    from bdlit.merging.substitution import blocks_of

    return {
        module: "attention" if key in _ATTENTION else "mlp"
        for types in ARCHITECTURES.values()
        for key, text in types.items()
        for module, _ in blocks_of(text)
    }
