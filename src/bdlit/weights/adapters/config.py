"""What `adapter_config.json` says: refused where it is more than a low-rank change of weights."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError

CONFIG_NAME = "adapter_config.json"

_INITS = {True, False, None, "gaussian", "eva", "orthogonal", "mica"}
"""Starts of the factors that left the base as it was."""

_COUNTED = frozenset("r lora_alpha use_rslora rank_pattern alpha_pattern".split())
_CHECKED = frozenset("peft_type bias init_lora_weights".split())
_HARMLESS = frozenset(
    # Where the factors are, which their names say, and how weights are laid out, where shapes
    # do not tell.
    "target_modules exclude_modules layers_to_transform layers_pattern modules_to_save "
    "fan_in_fan_out base_model_name_or_path revision task_type "
    # Training alone.
    "lora_dropout inference_mode auto_mapping peft_version runtime_config "
    # Settings of a start or variant that `init_lora_weights` or a switch of its own turns on.
    "eva_config corda_config loftq_config lora_ga_config qalora_group_size megatron_core".split()
)
_WHY = {
    "use_dora": "it rescales the rows of the weights",
    "lora_bias": "it changes biases",
    "layer_replication": "it repeats layers",
    "trainable_token_indices": "it replaces rows of the embedding",
    "target_parameters": "it adapts parameters without a module of their own",
    "alora_invocation_tokens": "it acts on some tokens only",
    "kasa_config": "it cuts the base's weights",
    "ensure_weight_tying": "it ties factors of two layers",
}
_PATTERNS = ("rank_pattern", "alpha_pattern")
_PATIENCE = 0.2  # seconds for a pattern and a name; honest ones take microseconds
_SHOWN = 60  # characters of a value in a message
_MERGE = "merge it with peft (merge_and_unload) and save that"


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read the config of a LoRA adapter, and refuse what its factors alone do not tell.

    Any setting that is not known to leave `scaling * B @ A` as it is counts as a variant, unless
    it is off, so an adapter of a newer peft is refused rather than misread.

    Args:
        folder: The adapter's directory.

    Raises:
        BdlitError: The file is missing or broken, the adapter is not a LoRA adapter, it changed its
            base, or it is of a variant; the message names the setting.

    >>> read_adapter_config(Path("no/such"))
    Traceback (most recent call last):
    bdlit.errors.BdlitError: no/such/adapter_config.json cannot be read as the config of an \
adapter: copy or download it again
    """
    try:
        config = json.loads((folder / CONFIG_NAME).read_bytes())
    except (OSError, ValueError) as error:
        raise _unreadable(folder) from error
    if not isinstance(config, dict):
        raise _unreadable(folder)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise BdlitError(
            f"{folder} is an adapter of type {kind}, and only LORA is a low-rank change of "
            f"weights: {_MERGE}"
        )
    _require_plain(config, folder)
    require_settings(config, folder)
    return config


def rank_and_scaling(config: Mapping[str, Any], module: str) -> tuple[int, float]:
    """Return the rank of a module's factors and the scaling of their product.

    A pattern counts where it matches the end of the module's name, from a dot on, as in peft;
    the first that matches wins.

    Args:
        config: The adapter's config.
        module: The module's name in the model.

    Raises:
        BdlitError: A pattern takes for ever to match.

    Reference: Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with
        LoRA", arXiv:2312.03732, for `use_rslora`.

    >>> rank_and_scaling({"r": 4, "lora_alpha": 8, "rank_pattern": {"query": 2}}, "layer.0.query")
    (2, 4.0)
    """
    rank = _matched(config.get("rank_pattern"), module, config["r"])
    alpha = _matched(config.get("alpha_pattern"), module, config["lora_alpha"])
    return rank, alpha / (sqrt(rank) if config.get("use_rslora") else rank)


def config_for(
    config: Mapping[str, Any], ranks: Mapping[str, int], scalings: Mapping[str, float]
) -> dict[str, Any]:
    """Return a config that gives each module the rank and the scaling that it has.

    Args:
        config: Where everything else comes from: the base, the task, the modules to save.
        ranks: Rank by module, at least one.
        scalings: Scaling by module.

    >>> new = config_for({}, {"a": 2, "b": 3, "c": 2}, dict.fromkeys("abc", 1))
    >>> new["r"], new["lora_alpha"], new["rank_pattern"], new["alpha_pattern"]
    (2, 2, {'^b$': 3}, {'^b$': 3})
    """
    alphas = {module: _tidy(scalings[module] * rank) for module, rank in ranks.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    kept = {k: v for k, v in config.items() if not re.match("(eva|corda|loftq|lora_ga)_config", k)}
    return {
        **kept,
        "peft_type": "LORA",
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": False,
        "rank_pattern": {_exactly(m): r for m, r in ranks.items() if r != rank},
        "alpha_pattern": {_exactly(m): a for m, a in alphas.items() if a != alpha},
        "target_modules": sorted(ranks),
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
    }


def _require_plain(config: Mapping[str, Any], folder: Path) -> None:
    bias, init = config.get("bias"), config.get("init_lora_weights")
    if bias not in (None, "none"):
        raise BdlitError(f"{folder} has bias={bias!r}, so it changes biases too: {_MERGE}")
    if not isinstance(init, bool | str | None) or init not in _INITS:
        raise BdlitError(
            f"{folder} has init_lora_weights={init!r}, which changed the base's weights: let peft "
            "convert it (save_pretrained with path_initial_model_for_weight_conversion)"
        )
    for name, value in config.items():
        if name not in _COUNTED | _CHECKED | _HARMLESS and value:
            why = _WHY.get(name, "it is not known to be a low-rank change of weights alone")
            raise BdlitError(f"{folder} sets {name}, and {why}: {_MERGE}")


def require_settings(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse settings of a wrong type or out of range, by their names.

    Raises:
        BdlitError: There are some.
    """
    for name, right in _SETTINGS.items():
        value = config.get(name)
        if not right(value):
            raise BdlitError(
                f"{folder / CONFIG_NAME} has {name}={_short(value)}, which no adapter can have: "
                "copy or download it again"
            )
    for name in _PATTERNS:
        for pattern in config.get(name) or {}:
            _require_expression(pattern, name, folder)


def _require_expression(pattern: str, name: str, folder: Path) -> None:
    import regex

    try:
        regex.compile(f"({pattern})$")
    except (regex.error, RecursionError) as error:
        raise BdlitError(
            f"{folder / CONFIG_NAME} has {_short(pattern)} in {name}, which is no regular "
            f"expression ({error}): copy or download it again"
        ) from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _texts(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(v, str) for v in value))


def _text(value: object) -> bool:
    return isinstance(value, str | None)


def _table_of(right: Callable[[object], bool]) -> Callable[[object], bool]:
    def is_table(value: object) -> bool:
        return value is None or (
            isinstance(value, dict)
            and all(isinstance(key, str) for key in value)
            and all(map(right, value.values()))
        )

    return is_table


def _unreadable(folder: Path) -> BdlitError:
    return BdlitError(
        f"{folder / CONFIG_NAME} cannot be read as the config of an adapter: copy or download it "
        "again"
    )


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and isfinite(value)


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _matched(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    import regex  # unlike `re`, it can be told to give up: patterns come from strangers

    for pattern, value in (patterns or {}).items():
        try:
            found = regex.match(rf"(.*\.)?({pattern})$", module, timeout=_PATIENCE)
        except TimeoutError as error:
            raise BdlitError(
                f"the pattern {_short(pattern)} of an adapter's config takes for ever to match "
                f"{module}: do not trust it"
            ) from error
        if found:
            return value
    return default


_SETTINGS: dict[str, Callable[[object], bool]] = {
    "r": _is_rank,
    "lora_alpha": _is_number,
    "rank_pattern": _table_of(_is_rank),
    "alpha_pattern": _table_of(_is_number),
    "modules_to_save": _texts,
    "base_model_name_or_path": _text,
    "revision": _text,
    "task_type": _text,
}
"""Settings that are counted with, and what each may be."""


def _exactly(module: str) -> str:
    return f"^{re.escape(module)}$"


def _tidy(number: float) -> float:
    """Return 16 for 16.000000000000004, which is alpha / r * r."""
    near = round(number)
    return near if abs(number - near) < 1e-12 * abs(number) else number
