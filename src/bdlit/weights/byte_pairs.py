"""A learned byte-pair tokenizer from its content, as a checkpoint of a victim keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENDS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
"""The tokens that are no words, in the order of their ids."""


def byte_pairs_from(content: str, max_length: int | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer whose `tokenizer.json` this is.

    Args:
        content: The content of the file.
        max_length: Longest input of its model, in tokens, where that is known.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    length = {} if max_length is None else {"model_max_length": max_length}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(content), **length, **ENDS)
