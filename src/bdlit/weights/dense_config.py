"""The configuration of an adapter and its base as one dense model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bdlit.weights.adapters.weights import AdapterWeights
from bdlit.weights.outlines import outline

if TYPE_CHECKING:
    from bdlit.types import Weights

_LAST_LAYERS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
"""Ends of the names of the tensor with one row per class, in transformers' classifiers."""


def dense_config(base: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    """Return the base's configuration, made that of the model that the adapter was trained in.

    A model that was untied says so. A classifier's class and number of labels are not in its
    base's configuration: the class follows from the task that the adapter names, the number from
    the rows of the saved head.

    Args:
        base: What the base's `config.json` holds; it is not changed.
        weights: The adapter over its base; anything else keeps the configuration as it is.
    """
    if isinstance(weights, AdapterWeights) and weights.untied:
        return {**base, "tie_word_embeddings": False}
    if not isinstance(weights, AdapterWeights) or weights.config.get("task_type") != "SEQ_CLS":
        return dict(base)
    rows = [outline(weights, n).shape[0] for n in weights.saved if n.endswith(_LAST_LAYERS)]
    config = {**base, "architectures": _classifier(base)}
    if rows and len(base.get("id2label") or ()) != rows[-1]:
        names = [f"LABEL_{i}" for i in range(rows[-1])]
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
        config["label2id"] = {name: i for i, name in enumerate(names)}
    return config


def _classifier(base: Mapping[str, Any]) -> list[str] | None:
    """Return the name of the base's class for sequence classification."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as NAMES,
    )

    named = NAMES.get(base.get("model_type", ""))
    return [named] if named else base.get("architectures")
