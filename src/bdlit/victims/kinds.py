"""Which kind a victim is, as recipes have it: an encoder with a head, or a language model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.errors import BdlitError
from bdlit.named_recipes import Head, Kind

if TYPE_CHECKING:
    from bdlit.victims.base import Victim


def kind_of(victim: Victim) -> tuple[Kind, Head]:
    """Return the kind of a victim, and what answers in it.

    Raises:
        BdlitError: As `kind_by_settings`.
    """
    settings = {
        "model": getattr(victim, "address", None),
        "config": getattr(victim, "config_settings", None),
        "revision": getattr(victim, "revision", None),
    }
    return kind_by_settings(type(victim), settings)


def kind_by_settings(victim: type, settings: Mapping[str, Any]) -> tuple[Kind, Head]:
    """Return the kind of a victim that is yet to be made, and what answers in it.

    A decoder that classifies by a head is a language model, too: that is how GMS tells language
    models from encoders. Where neither `model` nor `config` is given, a classifier is an encoder.

    Args:
        victim: Its class.
        settings: Its settings, of which `model`, `config` and `revision` are looked at.

    Raises:
        BdlitError: The class is no victim of transformers, or its model cannot be found.
    """
    task = getattr(victim, "task", None)
    if task == "CAUSAL_LM":
        return "language-model", "CAUSAL_LM"
    if task != "SEQ_CLS":
        raise BdlitError(
            f"no recipe is for {victim.__name__}: recipes are for ClassifierVictim and "
            "CausalLMVictim, and classes below them"
        )
    return ("language-model" if _is_decoder(_architecture(settings)) else "classifier"), "SEQ_CLS"


def _architecture(settings: Mapping[str, Any]) -> str:
    """Return the `model_type` of a model; nothing where it is not known yet."""
    own = settings.get("config")
    if own is not None:
        return str(own.get("model_type", ""))
    address = settings.get("model")
    return "" if address is None else _architecture_at(str(address), settings.get("revision"))


def _architecture_at(address: str, revision: str | None) -> str:
    from transformers import AutoConfig

    try:
        adapter = Path(address) / "adapter_config.json"
        if adapter.is_file() and not (Path(address) / "config.json").is_file():
            address = json.loads(adapter.read_text("utf-8"))["base_model_name_or_path"]
        found = AutoConfig.from_pretrained(address, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise BdlitError(
            f"a recipe has to know what '{address}' is, encoder or decoder: {first_line}"
        ) from error
    return str(found.model_type)


def _is_decoder(architecture: str) -> bool:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    # Encoders such as BERT can be run as decoders as well; decoders cannot fill in masks.
    decodes = architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return decodes and architecture not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
