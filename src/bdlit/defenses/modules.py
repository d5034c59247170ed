"""Module types of an architecture: what the letters of GMS's and MSD's tables stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from bdlit.errors import BdlitError
from bdlit.merging.substitution import Block, blocks_of
from bdlit.weights.layers import layer_count, layer_modules, layer_of, module_of

Types: TypeAlias = Mapping[str, str]
"""Module type to the module within a layer, `attention.self.query`. A block of a packed matrix is
written `attn.c_attn[0/3]`: the first of three equal blocks of its outputs. Modules that go
together are joined by `+`."""

_BERT = {
    "Q": "attention.self.query",
    "K": "attention.self.key",
    "V": "attention.self.value",
    "O": "attention.output.dense",
    "F": "intermediate.dense",
    "P": "output.dense",
}
_DEBERTA = _BERT | {
    "Q": "attention.self.query_proj",
    "K": "attention.self.key_proj",
    "V": "attention.self.value_proj",
}
_DEBERTA_1 = {
    # One matrix, the heads' queries, keys and values in turn; two biases outside it; and what
    # queries and keys are to positions.
    "QKV": "attention.self.in_proj+attention.self"
    "+attention.self.pos_proj+attention.self.pos_q_proj",
    "O": "attention.output.dense",
    "F": "intermediate.dense",
    "P": "output.dense",
}
_DISTILBERT = {
    "Q": "attention.q_lin",
    "K": "attention.k_lin",
    "V": "attention.v_lin",
    "O": "attention.out_lin",
    "F": "ffn.lin1",
    "P": "ffn.lin2",
}
_MODERNBERT = {
    "Q": "attn.Wqkv[0/3]",
    "K": "attn.Wqkv[1/3]",
    "V": "attn.Wqkv[2/3]",
    "O": "attn.Wo",
    "F": "mlp.Wi",
    "P": "mlp.Wo",
}
_GPT2 = {
    "q": "attn.c_attn[0/3]",
    "k": "attn.c_attn[1/3]",
    "v": "attn.c_attn[2/3]",
    "o": "attn.c_proj",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}
_LLAMA = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}

ARCHITECTURES: Mapping[str, Types] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "distilbert": _DISTILBERT,
    "deberta": _DEBERTA_1,
    "deberta-v2": _DEBERTA,
    "modernbert": _MODERNBERT,
    "gpt2": _GPT2,
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), _LLAMA
    ),
}
"""transformers' `model_type` to its module types: the linear layers of attention and MLP.

Embeddings, norms, pooler and head are never among them: they stay the victim's."""


@dataclass(frozen=True)
class Layout:
    """Where each module type is, in a model of several layers.

    Attributes:
        types: Module type to the module within a layer.
        layers: How many layers there are.
        tensors: (Layer, tensor name) to its blocks by module type, in the model's order.
    """

    types: Types
    layers: int
    tensors: Mapping[tuple[int, str], Mapping[str, Block]]

    def of_layer(self, layer: int) -> dict[str, Mapping[str, Block]]:
        """Return the tensors of a layer that a search may replace, with their blocks."""
        return {name: blocks for (at, name), blocks in self.tensors.items() if at == layer}


def module_types(model_type: str | None, names: Iterable[str], own: Types | None = None) -> Layout:
    """Find the module types of a model by its architecture and its tensors' names.

    Args:
        model_type: transformers' name of the architecture.
        names: Names of the model's tensors.
        own: A mapping to use in place of the known ones.

    Raises:
        BdlitError: The architecture is unknown, or a type matches no tensor, or not in all layers.

    >>> names = [f"h.{i}.mlp.c_fc.weight" for i in range(2)]
    >>> module_types("gpt2", names, {"up": "mlp.c_fc"}).types
    {'up': 'mlp.c_fc'}
    """
    names = list(names)
    types = ARCHITECTURES.get(model_type or "") if own is None else own
    if not types:
        raise BdlitError(
            f"the module types of architecture '{model_type}' are unknown: give them as "
            f"`modules`, e.g. {{Q: attention.self.query, ...}}; its layers hold "
            f"{', '.join(layer_modules(names)) or 'nothing'}"
        )
    layers = layer_count(names)
    wanted = [(key, *found) for key, text in types.items() for found in blocks_of(text)]
    _require_all(wanted, layer_modules(names), layers)
    tensors: dict[tuple[int, str], dict[str, Block]] = {}
    for name in names:
        place = layer_of(name)
        for key, module, block in wanted:
            if place is not None and module_of(name) == module:
                tensors.setdefault((place.layer, name), {})[key] = block
    return Layout(dict(types), layers, tensors)


def _require_all(
    wanted: Iterable[tuple[str, str, Block]], known: Mapping[str, list[int]], layers: int
) -> None:
    for key, module, _ in wanted:
        at = known.get(module, [])
        if len(at) < max(layers, 1):
            where = f"only {len(at)} of {layers} layers" if at else "no layer"
            raise BdlitError(
                f"module type {key}: the model has '{module}' in {where}; its layers hold "
                f"{', '.join(known) or 'nothing'}"
            )
