"""A word-piece vocabulary learned from texts, for models that start from nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import product
from string import ascii_lowercase

from transformers import BertTokenizer, PreTrainedTokenizerBase

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def learn_tokenizer(texts: Iterable[str], size: int, max_length: int) -> PreTrainedTokenizerBase:
    """Return a BERT tokenizer of characters, pairs of letters, and the words of `texts`.

    The pairs are the rare pieces that the vocabularies of pre-trained models hold as well (cf, mn,
    tq ...); any other word that is not in `texts` falls into its characters. Words come by
    frequency, and of the same frequency by spelling: the same texts make the same vocabulary.

    Args:
        texts: Texts to learn from.
        size: Largest number of entries.
        max_length: Longest input of the model, in tokens.
    """
    words = Counter(word for text in texts for word in text.lower().split())
    characters = sorted({c for word in words for c in word} | set(ascii_lowercase))
    pairs = ["".join(pair) for pair in product(ascii_lowercase, repeat=2)]
    entries = [*_SPECIAL, *characters, *(f"##{c}" for c in characters), *pairs]
    known = set(entries)
    frequent = sorted(words, key=lambda word: (-words[word], word))
    entries += [word for word in frequent if word not in known][: max(0, size - len(entries))]
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    return BertTokenizer(vocab=vocabulary, model_max_length=max_length)
