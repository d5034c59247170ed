"""Low-rank adapters: put on a model to train them, merged into a copy to run without them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from bdlit.errors import BdlitError, did_you_mean

_LINEAR = ("Linear", "Conv1D")  # GPT-2's own linear module is called by the latter


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank adaptation (Hu et al., arXiv 2106.09685) through peft; a head stays trainable.

    Attributes:
        r: Rank of the update.
        alpha: The update is scaled by alpha / r.
        dropout: Share of the adapter's inputs dropped in training, in [0, 1).
        target_modules: Names of the linear modules that get an adapter; None is all of them.
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: Sequence[str] | None = None


def with_adapters(model: PreTrainedModel, lora: LoRA, *, task: str, seed: int) -> PreTrainedModel:
    """Put fresh adapters on a model, and freeze all else but a new head.

    Args:
        model: The model; it is changed.
        lora: Settings of the adapters.
        task: Task as peft calls it: `SEQ_CLS`, whose head is trained too, or `CAUSAL_LM`.
        seed: Seed of the adapters' first values; the caller's random state stays as it was.

    Raises:
        BdlitError: The model has no linear module of a name in `target_modules`.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    _require_modules(model, lora.target_modules or ())
    settings = LoraConfig(
        task_type=TaskType[task],
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules or []) or "all-linear",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*is_gradient_checkpointing.*"
        )  # of peft to transformers
        torch.manual_seed(seed)
        return get_peft_model(model, settings)


def _require_modules(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """Refuse names of modules that a model lacks; peft would leave out one among several."""
    names = [name for name, _ in model.named_modules()]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            linear = (n for n, m in model.named_modules() if type(m).__name__ in _LINEAR)
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise BdlitError(
                f"lora.target_modules: {type(model).__name__} has no module '{target}' to adapt; "
                f"null adapts all linear ones; {did_you_mean(target, known)}"
            )


def has_adapters(model: PreTrainedModel) -> bool:
    """Return whether adapters are on a model, not merged into it."""
    return hasattr(model, "merge_and_unload")


def merged_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a plain model with the adapters merged into its weights; the model stays as it is."""
    return copy.deepcopy(model).merge_and_unload()
