"""Which layer a tensor belongs to, and which module of it, told from its name alone.

A transformer is a list of layers of one form: `bert.encoder.layer.3.attention.self.query.weight` is
a tensor of layer 3, of its module `attention.self.query`. Code that moves layers between
models, or replaces one kind of module in some of them, needs both, without building the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from bdlit.errors import BdlitError

LIST_NAMES = frozenset({"layer", "layers", "h", "block", "blocks"})
"""What the list of layers is called: BERT and its kin; decoders, ModernBERT; GPT-2; T5."""


class LayerName(NamedTuple):
    """The name of a tensor of a layer, split at the number of the layer.

    Attributes:
        prefix: Name of the list of layers.
        layer: Number of the layer in that list, from 0.
        rest: Name within the layer.
    """

    prefix: str
    layer: int
    rest: str


def layer_of(name: str) -> LayerName | None:
    """Split the name of a tensor of a layer; None for a tensor outside the layers.

    The first numbered part behind one of `LIST_NAMES` is the layer: lists inside a layer (experts,
    adapters) come later in the name. A list of bare parameters is a head of a few linear steps,
    not a list of layers, and numbered parts of another name are not layers either.

    >>> layer_of("bert.encoder.layer.3.attention.self.query.weight")
    LayerName(prefix='bert.encoder.layer', layer=3, rest='attention.self.query.weight')
    >>> layer_of("model.layers.0.mlp.experts.7.w1.weight").rest
    'mlp.experts.7.w1.weight'
    >>> layer_of("classifier.layers.0.weight") is None
    True
    """
    parts = name.split(".")
    for i, (part, following) in enumerate(pairwise(parts), start=1):
        if part in LIST_NAMES and following.isascii() and following.isdigit():
            rest = parts[i + 1 :]
            return (
                LayerName(".".join(parts[:i]), int(following), ".".join(rest)) if rest[1:] else None
            )
    return None


def module_of(name: str) -> str:
    """Return the module that a tensor is a parameter of; within a layer, its name there.

    Query, key and value are one module where the architecture packs them into one matrix (GPT-2's
    `attn.c_attn`, ModernBERT's `attn.Wqkv`).

    >>> module_of("transformer.h.1.attn.c_attn.weight"), module_of("score.weight")
    ('attn.c_attn', 'score')
    """
    place = layer_of(name)
    return (place.rest if place else name).rpartition(".")[0]


def renumbered(name: str, index: int) -> str:
    """Return the name that a tensor has in another layer.

    Raises:
        BdlitError: The tensor belongs to no layer.

    >>> renumbered("model.layers.0.mlp.up_proj.weight", 5)
    'model.layers.5.mlp.up_proj.weight'
    """
    place = layer_of(name)
    if place is None:
        raise BdlitError(f"'{name}' belongs to no layer: only tensors of layers have a number")
    return f"{place.prefix}.{index}.{place.rest}"


def layer_lists(names: Iterable[str]) -> dict[str, int]:
    """Return the number of layers of each list of layers; encoder-decoders have two lists.

    Raises:
        BdlitError: A list has a gap, so that the model is not whole.

    >>> layer_lists(["encoder.block.0.a.w", "encoder.block.1.a.w", "decoder.block.0.a.w"])
    {'encoder.block': 2, 'decoder.block': 1}
    """
    found: dict[str, set[int]] = {}
    for place in filter(None, map(layer_of, names)):
        found.setdefault(place.prefix, set()).add(place.layer)
    for prefix, indices in found.items():
        missing = next(i for i in range(len(indices) + 1) if i not in indices)
        if missing < len(indices):
            raise BdlitError(
                f"the model has {len(indices)} layers in {prefix}, but no layer {missing}: "
                "give all its files"
            )
    return {prefix: len(indices) for prefix, indices in found.items()}


def layer_count(names: Iterable[str]) -> int:
    """Return how many layers a model has; 0 where it has none, or none that can be told.

    Raises:
        BdlitError: It has several lists of layers, or a list with a gap.

    >>> layer_count(["h.0.attn.c_attn.weight", "h.1.attn.c_attn.weight", "score.weight"])
    2
    """
    lists = layer_lists(names)
    if len(lists) > 1:
        raise BdlitError(
            f"the model has several lists of layers ({', '.join(lists)}): give an encoder or a "
            "decoder, not both in one"
        )
    return sum(lists.values())


def layer_modules(names: Iterable[str]) -> dict[str, list[int]]:
    """Return the modules within layers, in order, and the layers that have each of them.

    >>> layer_modules(["wte.weight", "h.0.mlp.c_fc.weight", "h.1.mlp.c_fc.weight"])
    {'mlp.c_fc': [0, 1]}
    """
    found: dict[str, set[int]] = {}
    for name in names:
        place = layer_of(name)
        if place is not None:
            found.setdefault(module_of(name), set()).add(place.layer)
    return {module: sorted(layers) for module, layers in found.items()}
