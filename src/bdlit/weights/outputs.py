"""Output layers: which models write text, and what stands for a layer that is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bdlit.weights.lazy import renamed
from bdlit.weights.outlines import outline

if TYPE_CHECKING:
    from bdlit.types import Weights

OUTPUT = "lm_head.weight"
"""Name of the output layer of models that can do with or without one of their own."""

TOKEN_ROWS = ("embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in", "shared")
"""Last parts of the names of input embeddings, without `.weight`."""


def writes_text(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of a language model that answers, and of no T5.

    >>> writes_text({"architectures": ["LlamaForCausalLM"]}), writes_text({})
    (True, False)
    """
    named = [str(name) for name in config.get("architectures") or ()]
    return bool(named) and named[0].endswith(("ForCausalLM", "LMHeadModel"))


def with_output(weights: Weights, config: Mapping[str, Any], like: Weights) -> Weights:
    """Return weights with an output layer, where another model has one and these are tied.

    A model whose output layer is its embedding is saved without one; it is the same model with
    the embedding under both names.

    Args:
        weights: The model.
        config: What its `config.json` says.
        like: The model that it is to be merged with.

    >>> import torch
    >>> tied, own = {"wte.weight": torch.ones(2, 1)}, {"lm_head.weight": torch.zeros(2, 1)}
    >>> list(with_output(tied, {"tie_word_embeddings": True}, own))
    ['wte.weight', 'lm_head.weight']
    """
    if OUTPUT not in like or OUTPUT in weights or config.get("tie_word_embeddings") is False:
        return weights
    wanted = outline(like, OUTPUT).shape
    ends = tuple(f"{name}.weight" for name in TOKEN_ROWS)
    found = [n for n in weights if n.endswith(ends) and outline(weights, n).shape == wanted]
    if len(found) != 1:
        return weights
    return renamed(weights, {**{name: name for name in weights}, OUTPUT: found[0]})
