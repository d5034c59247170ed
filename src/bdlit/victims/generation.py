"""Answers from a language model: batched, padded on the left, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from bdlit.errors import BdlitError, did_you_mean
from bdlit.seeds import seed_of

DecodingMethod: TypeAlias = Literal["greedy", "beam", "nucleus"]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How an answer is made from a model's probabilities; a part of every result.

    Attributes:
        method: The likeliest next token (`greedy`), the likeliest of several whole answers
            (`beam`), or a draw from the likeliest tokens (`nucleus`).
        max_new_tokens: Longest answer in tokens, its end included.
        beams: Answers kept at a time, for `beam`.
        temperature: Logits are divided by it, for `nucleus`; > 0.
        top_p: Probability that the tokens to draw from have together, for `nucleus`; in (0, 1].
        seed: Seed of the draws. A draw depends on the seed and the prompt alone: not on the batch
            that the prompt is in, and two equal prompts get one answer.

    Reference: beam 4 and nucleus with temperature 0.9 and p 0.9 are those of Arora et al. 2024,
        arXiv:2402.19334, Table 11; nucleus sampling is Holtzman et al. 2020, arXiv:1904.09751.
    """

    method: DecodingMethod = "greedy"
    max_new_tokens: int = 32
    beams: int = 4
    temperature: float = 0.9
    top_p: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(DecodingMethod):
            raise BdlitError(
                f"unknown decoding method '{self.method}': "
                f"{did_you_mean(self.method, get_args(DecodingMethod))}"
            )
        for name, value, fits, wanted in (
            ("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "at least 1"),
            ("beams", self.beams, self.beams >= 1, "at least 1"),
            ("temperature", self.temperature, self.temperature > 0, "a number > 0"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "a share in (0, 1]"),
        ):
            if not fits:
                raise BdlitError(f"decoding.{name} {value} is out of range: give {wanted}")

    @property
    def settings(self) -> dict[str, int | float | str]:
        """The settings that matter to the method, for the record."""
        found: dict[str, int | float | str] = {
            "method": self.method,
            "max_new_tokens": self.max_new_tokens,
        }
        match self.method:
            case "beam":
                found["beams"] = self.beams
            case "nucleus":
                found |= {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        return found


@dataclass(frozen=True)
class Marks:
    """The token ids that are no words.

    Attributes:
        pad: Fills up a batch.
        stops: End an answer.
    """

    pad: int
    stops: tuple[int, ...]


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    marks: Marks,
    *,
    batch_size: int = 64,
) -> list[list[int]]:
    """Return the token ids of the answers to prompts, without prompts and ends.

    Prompts of like length share a batch, so that little is padded; the answers come back in the
    order of the prompts. What the checkpoint says about generation is not looked at.

    Args:
        model: A causal language model in eval mode, on its device.
        prompts: Token ids, at least one each.
        decoding: How to decode.
        marks: Ids that are no words.
        batch_size: Prompts that are answered together.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with _own_settings(model, marks):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            found = _answer(model, [prompts[i] for i in rows], decoding, marks)
            for i, ids in zip(rows, found, strict=True):
                answers[i] = ids
    return answers


def _answer(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], decoding: Decoding, marks: Marks
) -> list[list[int]]:
    ids, mask = _padded_left(prompts, marks.pad, model.device)
    greedy = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        num_beams=decoding.beams if decoding.method == "beam" else 1,
        do_sample=False,
        use_cache=True,
        pad_token_id=marks.pad,
        eos_token_id=list(marks.stops),
    )
    processors = _drawing(prompts, decoding) if decoding.method == "nucleus" else []
    with torch.inference_mode():
        whole = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=greedy,
            logits_processor=LogitsProcessorList(processors),
        )
    return [_until_end(row, marks.stops) for row in whole[:, ids.shape[1] :].tolist()]


def _padded_left(
    prompts: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return ids and mask, shape [prompts, tokens]; every prompt ends in the last column."""
    width = max(map(len, prompts))
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _until_end(ids: list[int], stops: Collection[int]) -> list[int]:
    end = next((i for i, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]


@contextmanager
def _own_settings(model: PreTrainedModel, marks: Marks) -> Iterator[None]:
    """Hide what the checkpoint says about generation: it would fill in what we leave open."""
    kept = model.generation_config
    model.generation_config = GenerationConfig(
        pad_token_id=marks.pad, eos_token_id=list(marks.stops)
    )
    try:
        yield
    finally:
        model.generation_config = kept


def _drawing(prompts: Sequence[Sequence[int]], decoding: Decoding) -> list[LogitsProcessor]:
    return [
        TemperatureLogitsWarper(decoding.temperature),
        TopPLogitsWarper(decoding.top_p),
        _Draw(prompts, decoding.seed),
    ]


class _Draw(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Noise that turns the choice of the largest logit into a draw from the softmax.

    The largest of logits plus independent standard Gumbel noise is distributed as a draw from
    their softmax. Each row has random numbers of its own, so a draw does not depend on the batch.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], seed: int) -> None:
        self._generators = [
            torch.Generator().manual_seed(seed_of(f"{seed} {list(prompt)}")) for prompt in prompts
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        noise = [
            -torch.empty(scores.shape[1]).exponential_(generator=generator).log()
            for generator in self._generators
        ]
        return scores.float() + torch.stack(noise).to(scores.device)
