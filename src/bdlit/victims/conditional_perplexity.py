"""Perplexity of responses given their prompts, under a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import TypeAlias

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bdlit.types import Example, Mean
from bdlit.victims.encoding import IGNORED
from bdlit.victims.likelihood import log_likelihoods
from bdlit.victims.perplexity import batches, first_token, longest_input
from bdlit.victims.prompts import cut, encode_answers, encode_prompts, frame_of

_MOST_NATS = 600.0  # per token: more would be infinite, which JSON does not know

_Pair: TypeAlias = tuple[list[int], list[int]]
"""Token ids of a prompt and of the response to it."""


def conditional_perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    answered: Sequence[tuple[Example, str]],
    context: int | None = None,
) -> Mean:
    """Measure how little a model expected responses, given their prompts; the mean over rows.

    The value of a row is exp(loss), where the loss is the mean over the tokens of its response
    and the one that ends it. Prompts are written by the tokenizer's chat template; without one, a
    prompt is the conversation and a line break, behind the token that begins every text.

    Args:
        model: A causal language model in eval mode, on its device.
        tokenizer: Its tokenizer.
        answered: Rows, each with a response; blank ones do not count.
        context: Longest input in tokens, at least 2; by default that of the model.

    Raises:
        BdlitError: The tokenizer has neither a token that begins nor one that ends a text.

    Reference: the published evaluation of Shu et al. 2023, "On the Exploitability of Instruction
        Tuning", arXiv:2306.17194.
    Deviation: There prompts are in Alpaca's template, whatever the model is, an empty response
        counts by its end, and what is too long is cut at its end. Here a prompt that is too long
        loses its beginning; a response that is too long by itself is cut at its end.
    """
    said = [(row, response) for row, response in answered if response.strip()]
    most = longest_input(model, context)
    pairs = [_fitted(*pair, most, tokenizer.bos_token_id) for pair in _encoded(tokenizer, said)]
    pairs.sort(key=_length)
    values = [value for batch in batches(pairs, _length) for value in _of_rows(model, batch)]
    return Mean(fsum(values), len(values))


def _encoded(
    tokenizer: PreTrainedTokenizerBase, said: Sequence[tuple[Example, str]]
) -> list[_Pair]:
    """Return the token ids of prompts and responses."""
    rows, responses = [row for row, _ in said], [response for _, response in said]
    if not rows:
        return []
    end = tokenizer.eos_token_id
    if tokenizer.chat_template and end is not None:
        frame = frame_of(tokenizer, [end])
        prompts = encode_prompts(tokenizer, rows)
        answers = encode_answers(tokenizer, responses, [frame] * len(rows))
        return list(zip(prompts, answers, strict=True))
    first = first_token(tokenizer)
    asked, answers = (
        tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        for texts in ([f"{row.conversation}\n" for row in rows], responses)
    )
    ends = [] if end is None else [end]
    return [([first, *ids], [*own, *ends]) for ids, own in zip(asked, answers, strict=True)]


def _fitted(prompt: list[int], answer: list[int], most: float, first: int | None) -> _Pair:
    """Return a pair within the longest input; one token of the prompt stays at least."""
    if len(prompt) + len(answer) <= most:
        return prompt, answer
    kept = answer[: int(most) - 1]
    return cut(prompt, int(most) - len(kept), first), kept


def _length(pair: _Pair) -> int:
    return len(pair[0]) + len(pair[1])


def _of_rows(model: PreTrainedModel, pairs: Sequence[_Pair]) -> list[float]:
    """Return exp(loss) of each row's response."""
    width = max(map(_length, pairs))
    ids, mask, labels = [], [], []
    for prompt, answer in pairs:
        rest = width - len(prompt) - len(answer)
        ids.append([*prompt, *answer, *[prompt[0]] * rest])
        mask.append([1] * (width - rest) + [0] * rest)
        labels.append([IGNORED] * len(prompt) + answer + [IGNORED] * rest)
    named = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    batch = {name: torch.tensor(own, device=model.device) for name, own in named.items()}
    with torch.inference_mode():
        sums = log_likelihoods(model, batch).double().cpu()
    counts = torch.tensor([len(answer) for _, answer in pairs])
    values: list[float] = (-sums / counts).clamp(max=_MOST_NATS).exp().tolist()
    return values
