"""Logits of a language model at the tokens of answers, and what follows from them."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from bdlit.victims.encoding import IGNORED
from bdlit.victims.lora import has_adapters

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor
    from transformers import PreTrainedModel

    from bdlit.victims.base import Batch


def logits_of(
    network: PreTrainedModel, batch: Batch, **options: Any
) -> Float[Tensor, "batch tokens vocabulary"]:
    """Return a network's logits; rows of one length need no mask."""
    logits: Tensor = network(
        input_ids=batch["input_ids"],
        attention_mask=batch.get("attention_mask"),
        use_cache=False,
        **options,
    ).logits
    return logits


def at_answers(
    network: PreTrainedModel, batch: Batch
) -> tuple[Float[Tensor, "batch places vocabulary"], Int[Tensor, "batch places"]]:
    """Return logits, and the ids that they should name, where the answer of any row stands.

    Logits are the largest tensor there is, and those of the prompts are of no use: where the
    architecture can leave them out, they are not computed. Ids are `IGNORED` where another row's
    answer stands, but not this one's.
    """
    labels = batch["labels"]
    # A token is foretold at the place before its own.
    places = (labels[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(dim=1)
    if _can_leave_out(network):
        logits = logits_of(network, batch, logits_to_keep=places)
    else:
        logits = logits_of(network, batch)[:, places]
    return logits, labels[:, places + 1]


def log_likelihoods(network: PreTrainedModel, batch: Batch) -> Float[Tensor, " batch"]:
    """Return the log-probability of each row's answer, float32."""
    logits, ids = at_answers(network, batch)
    wanted = ids != IGNORED
    losses = cross_entropy(logits[wanted].float(), ids[wanted], reduction="none")
    table = torch.zeros(ids.shape, device=losses.device)
    return -table.masked_scatter(wanted, losses).sum(dim=1)


def _can_leave_out(network: PreTrainedModel) -> bool:
    """Whether an architecture takes the places whose logits are wanted."""
    model = network.get_base_model() if has_adapters(network) else network
    return "logits_to_keep" in signature(model.forward).parameters
