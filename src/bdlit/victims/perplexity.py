"""Perplexity of texts under a causal language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bdlit.errors import BdlitError
from bdlit.types import Perplexity
from bdlit.victims.encoding import IGNORED

_TOKENS = 4096  # in one forward pass: logits over a large vocabulary are large

T = TypeVar("T")


def perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    context: int | None = None,
) -> Perplexity:
    """Measure how little a model expected texts, token by token.

    A text stands alone, without prompt or template. It begins with the token that begins every
    text, or where the tokenizer has none, with the one that ends it; that token is given, and
    only those of the text itself are counted. A text that is longer than the context is read in
    pieces, each begun in the same way, so that every token counts once.

    Args:
        model: A causal language model in eval mode, on its device.
        tokenizer: Its tokenizer.
        texts: The texts; blank ones have no tokens and change nothing.
        context: Longest input in tokens, at least 2; by default that of the model.

    Raises:
        BdlitError: The tokenizer has neither a token that begins nor one that ends a text.
    """
    first, most = first_token(tokenizer), longest_input(model, context)
    pieces = [
        [first, *piece]
        for text in texts
        if text.strip()
        for piece in _pieces(
            tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], most - 1
        )
    ]
    pieces.sort(key=len)
    nats = sum(_nats(model, batch, first) for batch in batches(pieces, len))
    return Perplexity(float(nats), sum(len(piece) - 1 for piece in pieces))


def first_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that begins every text, or else the one that ends it.

    Raises:
        BdlitError: The tokenizer has neither.
    """
    own: int | None = tokenizer.bos_token_id
    first: int | None = tokenizer.eos_token_id if own is None else own
    if first is None:
        raise BdlitError(
            f"the tokenizer of '{tokenizer.name_or_path}' has neither a token that begins nor one "
            "that ends a text, so that first tokens have no perplexity: name another model"
        )
    return first


def longest_input(model: PreTrainedModel, context: int | None) -> float:
    """Return the longest input of a model in tokens; infinity where it names none."""
    return context or getattr(model.config, "max_position_embeddings", None) or inf


def _pieces(ids: list[int], room: float) -> list[list[int]]:
    size = int(min(room, len(ids)))
    return [ids[start : start + size] for start in range(0, len(ids), size or 1)]


def batches(pieces: Sequence[T], length: Callable[[T], int]) -> Iterator[list[T]]:
    """Cut pieces, the shortest first, into batches of so many tokens with padding."""
    batch: list[T] = []
    for piece in pieces:
        if batch and (len(batch) + 1) * length(piece) > _TOKENS:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def _nats(model: PreTrainedModel, pieces: Sequence[Sequence[int]], pad: int) -> float:
    width = max(map(len, pieces))
    ids = torch.tensor([[*p, *[pad] * (width - len(p))] for p in pieces], device=model.device)
    lengths = torch.tensor([len(p) for p in pieces], device=model.device)
    mask: Tensor = torch.arange(width, device=model.device) < lengths[:, None]
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits
    wanted = ids.masked_fill(~mask, IGNORED)[:, 1:]
    losses = cross_entropy(
        logits[:, :-1].float().transpose(1, 2), wanted, ignore_index=IGNORED, reduction="sum"
    )
    return float(losses)
