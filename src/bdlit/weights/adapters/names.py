"""Names in an adapter's file, and the base under the names of the model that it was made for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.errors import BdlitError
from bdlit.weights.lazy import LazyWeights, renamed

if TYPE_CHECKING:
    from bdlit.types import Weights

PREFIX = "base_model.model."
"""What peft puts before the model's names."""

_FACTOR = re.compile(
    r"(?P<module>.+)\.(lora_(?P<side>[AB])\.weight|lora_embedding_(?P<row_side>[AB]))"
)
_EMBEDDINGS = ("embed_tokens", "lm_head")  # saved whole by peft where they were resized

WITHOUT_LM_HEAD = {"SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"}
_LM_HEADS = (
    "lm_head.",  # RoBERTa, and decoders
    "cls.",  # BERT
    "predictions.",  # ALBERT
    "lm_predictions.",  # DeBERTa
    "vocab_transform.",  # DistilBERT, with the two that follow
    "vocab_layer_norm.",
    "vocab_projector.",
    "generator_predictions.",  # ELECTRA, with the two that follow
    "generator_lm_head.",
    "discriminator_predictions.",
    "lm_loss.",  # XLNet
)
"""Beginnings of the names of language-modelling heads, which classifiers do not have."""


@dataclass
class Keys:
    """What the tensors of an adapter's file are.

    Attributes:
        a: Key of the factor A, by the model's name of the weight that it changes.
        b: Key of the factor B.
        embeddings: Names of those weights that are embeddings.
        saved: Key of each tensor that replaces the base's or comes to it.
        copies: Key of each copy of a base's tensor that an adapter changes.
    """

    a: dict[str, str] = field(default_factory=dict)
    b: dict[str, str] = field(default_factory=dict)
    embeddings: set[str] = field(default_factory=set)
    saved: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)


def read_keys(names: Iterable[str], modules_to_save: Collection[str], path: Path) -> Keys:
    """Tell factors, saved modules and copies of base tensors apart by their names.

    Raises:
        BdlitError: A name is not one that peft gives to a plain LoRA adapter, or a factor has no
            partner.

    >>> keys = read_keys(["base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight",
    ...                   "base_model.model.score.weight"], ["score"], Path("adapter"))
    >>> keys.a, keys.saved
    ({'q.weight': 'base_model.model.q.lora_A.weight'}, \
{'score.weight': 'base_model.model.score.weight'})
    """
    keys = Keys()
    for key in names:
        _sort_key(key, keys, modules_to_save, path)
    for name in sorted(set(keys.a) ^ set(keys.b)):
        have, lack = ("A", "B") if name in keys.a else ("B", "A")
        raise BdlitError(
            f"{path} has the factor lora_{have} of {name} without its lora_{lack}: copy or "
            "download the adapter again"
        )
    twice = set(keys.a) & set(keys.saved)
    if twice:
        raise BdlitError(
            f"{path} both adapts and replaces {min(twice)}: merge it with peft (merge_and_unload) "
            "and save that"
        )
    return keys


def _sort_key(key: str, keys: Keys, modules_to_save: Collection[str], path: Path) -> None:
    own = key.removeprefix(PREFIX)
    factor = _FACTOR.fullmatch(own)
    if own == key or (".lora_" in own and not factor):
        raise BdlitError(
            f"{path} holds {key}, which is not part of a plain LoRA adapter of peft: merge it with "
            "the library that made it and save that"
        )
    if factor:
        name = f"{factor['module']}.weight"
        side = factor["side"] or factor["row_side"]
        (keys.a if side == "A" else keys.b)[name] = key
        if factor["row_side"]:
            keys.embeddings.add(name)
    elif own.endswith(".base_layer.weight"):
        keys.copies[own.replace(".base_layer.weight", ".weight")] = key
    elif any(f"{module}." in own for module in (*modules_to_save, *_EMBEDDINGS)):
        keys.saved[own] = key
    else:
        raise BdlitError(
            f"{path} holds {key}, which is neither a LoRA factor nor in its modules_to_save: "
            "merge it with peft (merge_and_unload) and save that"
        )


def under_model_names(
    base: Weights, targets: Collection[str], own: Collection[str], config: Mapping[str, Any]
) -> LazyWeights:
    """Return the base under the names of the model that an adapter was made for.

    A bare encoder gets the prefix that the adapter's names have; a base with a prefix that they
    do not have loses it, and then its tensors outside that prefix stay out. A classifier
    (`task_type` of SEQ_CLS, TOKEN_CLS, QUESTION_ANS or FEATURE_EXTRACTION) has no
    language-modelling head, so the base's stays out. All else stays in, such as a pooler that
    the classifier may or may not have: names alone do not tell.

    Args:
        base: The base as it was saved.
        targets: Names of weights that the adapter changes.
        own: Names of all tensors that the adapter is about; they stay in.
        config: The adapter's config.

    >>> import torch
    >>> base = {"h.0.w": torch.ones(1), "lm_head.weight": torch.ones(1)}
    >>> list(under_model_names(base, ["transformer.h.0.w"], [], {"task_type": "SEQ_CLS"}))
    ['transformer.h.0.w']
    """
    spelled = {_modern(name): name for name in base}
    found = _renamed(spelled, targets)
    if config.get("task_type") in WITHOUT_LM_HEAD:
        heads = [n for n in spelled if n.startswith(_LM_HEADS)]
        out = set(heads) - set(own)
        found = {n: s for n, s in found.items() if _modern(s) not in out}
    return renamed(base, found)


def _renamed(spelled: Mapping[str, str], targets: Collection[str]) -> dict[str, str]:
    """Return the base's name for each name of the model, by the prefix that finds most targets."""
    added = sorted({t.partition(".")[0] + "." for t in targets})
    dropped = sorted({n.removesuffix(t) for t in targets for n in spelled if n.endswith("." + t)})
    forms = [
        dict(spelled),
        *({prefix + n: s for n, s in spelled.items()} for prefix in added),
        *(
            {n.removeprefix(prefix): s for n, s in spelled.items() if n.startswith(prefix)}
            for prefix in dropped
        ),
    ]
    return max(forms, key=lambda form: sum(t in form for t in targets))


def _modern(name: str) -> str:
    """Return what the models of today call a tensor of an old BERT checkpoint."""
    for old, new in (("gamma", "weight"), ("beta", "bias")):
        if name.endswith(f"LayerNorm.{old}"):
            return name.removesuffix(old) + new
    return name
