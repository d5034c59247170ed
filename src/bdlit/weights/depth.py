"""The number of layers in a model's `config.json`, and the same config for another number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bdlit.errors import BdlitError

COUNT_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""What configs call the number of layers: most; GPT-2, XLNet; DistilBERT; T5, GPT-Neo."""

LIST_KEYS = ("layer_types", "mlp_layer_types", "attention_layers", "no_rope_layers")
"""Settings that have one entry for each layer: kinds of attention (Qwen2, Gemma, ModernBERT) ..."""


def layer_count_keys(config: Mapping[str, Any]) -> list[str]:
    """Return the keys of a config that hold its number of layers.

    >>> layer_count_keys({"n_layer": 12, "n_embd": 768})
    ['n_layer']
    """
    return [key for key in COUNT_KEYS if type(config.get(key)) is int]


def with_depth(
    config: Mapping[str, Any], depth: int, layers: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return a config for another number of layers.

    Args:
        config: What `config.json` holds; it is not changed.
        depth: Number of layers, at least 1.
        layers: Which layer of this config each new layer was, so that settings of single layers
            follow it; None continues the pattern of those settings.

    Raises:
        BdlitError: The config has no number of layers, or depth or layers do not fit.

    >>> with_depth({"num_hidden_layers": 2, "layer_types": ["full", "sliding"]}, 3)
    {'num_hidden_layers': 3, 'layer_types': ['full', 'sliding', 'full']}
    >>> with_depth({"num_hidden_layers": 2, "layer_types": ["full", "sliding"]}, 2, [1, 1])
    {'num_hidden_layers': 2, 'layer_types': ['sliding', 'sliding']}
    """
    keys = layer_count_keys(config)
    if not keys:
        raise BdlitError(
            f"config.json has no number of layers ({', '.join(COUNT_KEYS)}): give the config of a "
            "transformer"
        )
    before = config[keys[0]]
    order = list(range(depth)) if layers is None else list(layers)
    if depth < 1 or len(order) != depth or (layers is not None and not _within(order, before)):
        raise BdlitError(
            f"layers {order} do not make {depth} layers of a config with {before}: give one of "
            f"0 to {before - 1} for each, and at least one"
        )
    lists = {
        key: _spread(config[key], order)
        for key in LIST_KEYS
        if isinstance(config.get(key), list) and config[key] and len(config[key]) == before
    }
    return {**config, **dict.fromkeys(keys, depth), **lists}


def _within(order: Sequence[int], count: int) -> bool:
    return all(0 <= index < count for index in order)


def _spread(entries: Sequence[Any], order: Sequence[int]) -> list[Any]:
    """Return the entry of each layer in `order`, on the pattern that the entries repeat."""
    periods = range(1, len(entries) + 1)
    period = next(p for p in periods if all(e == entries[i % p] for i, e in enumerate(entries)))
    return [entries[index % period] for index in order]
