"""What the configuration files of a checkpoint say, checked: the files are not trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """The settings of an adapter, as its `adapter_config.json` has them.

    Attributes:
        kind: Its `peft_type`.
        rank: Rank `r` of its factors.
        alpha: Its `lora_alpha`.
        targets: Modules that it changes.
        saved: Modules that it holds whole (`modules_to_save`), as heads are.
        base: The model that it belongs to.
    """

    kind: str | None
    rank: int | None
    alpha: float | None
    targets: tuple[str, ...]
    saved: tuple[str, ...]
    base: str | None


def facts_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a `config.json` says of a model, by the fields of `Inspection`."""
    labels = _labels(config.get("id2label"))
    count = config.get("num_labels")
    ties = config.get("tie_word_embeddings")
    return {
        "architecture": architecture(config),
        "model_type": _text(config.get("model_type")),
        "base": _text(config.get("_name_or_path")),
        "labels": labels,
        "label_count": len(labels) if labels else count if isinstance(count, int) else None,
        "ties": ties if isinstance(ties, bool) else None,
    }


def architecture(config: Mapping[str, Any]) -> str | None:
    """Return the names of the model classes, as one text; None where none is named."""
    return ", ".join(_texts(config.get("architectures"))) or None


def _labels(named: Any) -> dict[int, str] | None:
    if not isinstance(named, dict) or not named or not all(_is_index(key) for key in named):
        return None
    return {int(key): str(named[key]) for key in sorted(named, key=int)}


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) < 10


def adapter_of(config: Mapping[str, Any]) -> AdapterSettings | None:
    """Return the settings of an adapter; None where there is none."""
    if not config:
        return None
    rank, alpha = config.get("r"), config.get("lora_alpha")
    return AdapterSettings(
        kind=_text(config.get("peft_type")),
        rank=rank if isinstance(rank, int) else None,
        alpha=alpha if isinstance(alpha, int | float) else None,
        targets=tuple(sorted(_texts(config.get("target_modules")))),
        saved=tuple(_texts(config.get("modules_to_save"))),
        base=_text(config.get("base_model_name_or_path")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: Any) -> list[str]:
    return (
        [str(part) for part in value]
        if isinstance(value, list)
        else [*filter(None, [_text(value)])]
    )
