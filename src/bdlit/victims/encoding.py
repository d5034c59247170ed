"""From rows to the tensors that a language model is trained on, within its longest input."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from lightning.pytorch.utilities import rank_zero_warn
from transformers import PreTrainedTokenizerBase

from bdlit.errors import BdlitError
from bdlit.types import Example
from bdlit.victims.base import Batch
from bdlit.victims.prompts import Frame, cut, encode_answers, encode_prompts, frame_of

IGNORED = -100
"""The label of a token that enters no loss."""

_NONE = Frame("", ())


class Encoder:
    """Writes rows as token ids: prompts that may lose their beginning, answers that are kept.

    Args:
        tokenizer: A tokenizer with a chat template, and tokens for padding and for the end.
        max_length: Longest input of the model, in tokens.
        stops: Token ids that end an answer.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_length: int, stops: tuple[int, ...]
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.stops = stops
        self._warned = False

    @cached_property
    def frame(self) -> Frame:
        """What the template puts around an answer."""
        return frame_of(self.tokenizer, self.stops)

    def batch(self, rows: Sequence[Example]) -> Batch:
        """Return `input_ids`, `attention_mask` and `labels`, shape [rows, tokens].

        Rows are padded on the right. Labels are the ids of the answer, and -100 elsewhere. A
        plain text is all answer, without an end, and is cut to `max_length`.
        `cut_prompts`, shape [rows], says whose prompt lost its beginning.

        Raises:
            BdlitError: A row has no answer, or one that does not fit.
        """
        answers = self._answers(rows)
        prompts = encode_prompts(self.tokenizer, rows)
        kept = [
            self._fitted(prompt, self.max_length - len(answer))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        width = max(len(p) + len(a) for p, a in zip(kept, answers, strict=True))
        ids, mask, labels = [], [], []
        for prompt, answer in zip(kept, answers, strict=True):
            rest = width - len(prompt) - len(answer)
            ids.append([*prompt, *answer, *[self.tokenizer.pad_token_id] * rest])
            mask.append([1] * (width - rest) + [0] * rest)
            labels.append([IGNORED] * len(prompt) + answer + [IGNORED] * rest)
        shorter = [len(p) < len(whole) for p, whole in zip(kept, prompts, strict=True)]
        found = {"input_ids": ids, "attention_mask": mask, "labels": labels, "cut_prompts": shorter}
        return {name: torch.tensor(values) for name, values in found.items()}

    def prompts(self, rows: Sequence[Example], room: int) -> list[list[int]]:
        """Return the ids of the prompts of rows, each of at most `room` tokens."""
        return [self._fitted(prompt, room) for prompt in encode_prompts(self.tokenizer, rows)]

    def texts(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """Return generated answers as texts, without what the template puts before them."""
        found = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        before = self.frame.before.strip()
        return [text.strip().removeprefix(before).strip() for text in found]

    def require_answers(self, rows: Sequence[Example]) -> None:
        """Refuse rows without an answer, and those whose answer leaves no room for a prompt.

        Raises:
            BdlitError: There is such a row.
        """
        for number, row in enumerate(rows, 1):
            # A token holds a byte at least: only long answers have to be looked at as tokens.
            if not row.response or len(row.response.encode()) >= self.max_length // 2:
                self._answers([row], first=number)

    def _answers(self, rows: Sequence[Example], first: int = 1) -> list[list[int]]:
        for number, row in enumerate(rows, first):
            if not row.response:
                raise BdlitError(
                    f"row {number} ('{row.text[:40]}') has no answer to learn: a language model "
                    "needs instruction data, or PromptedClassification over data with classes"
                )
        texts = [str(row.response) for row in rows]
        frames = [_NONE if row.plain else self.frame for row in rows]
        answers = encode_answers(self.tokenizer, texts, frames)
        answers = [
            answer[: self.max_length - 1] if row.plain else answer
            for row, answer in zip(rows, answers, strict=True)
        ]
        for number, (row, answer) in enumerate(zip(rows, answers, strict=True), first):
            if len(answer) >= self.max_length:
                raise BdlitError(
                    f"the answer of row {number} ('{row.text[:40]}') has {len(answer)} tokens and "
                    f"leaves no room for a prompt in max_length {self.max_length}: raise it, or "
                    "leave the row out"
                )
        return answers

    def _fitted(self, prompt: list[int], room: int) -> list[int]:
        if len(prompt) > room and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"a prompt of {len(prompt)} tokens does not fit into max_length "
                f"{self.max_length} with its answer: this and other such prompts lose their "
                "beginning"
            )
        return cut(prompt, room, self.tokenizer.bos_token_id)
