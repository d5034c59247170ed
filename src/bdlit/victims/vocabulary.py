"""A word-piece vocabulary learned from texts, for models that start from nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from transformers import BertTokenizer, PreTrainedTokenizerBase

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def learn_tokenizer(texts: Iterable[str], size: int, max_length: int) -> PreTrainedTokenizerBase:
    """Return a BERT tokenizer of the most frequent words of `texts`, and of single characters.

    A word outside the vocabulary falls into its characters, so that a trigger word never seen
    in `texts` still reaches the model. Ties in frequency are broken by spelling: the same texts
    always make the same vocabulary.

    Args:
        texts: Texts to learn from.
        size: Largest number of entries.
        max_length: Longest input of the model, in tokens.
    """
    words = Counter(word for text in texts for word in text.lower().split())
    characters = sorted({c for word in words for c in word} | set("abcdefghijklmnopqrstuvwxyz"))
    entries = [*_SPECIAL, *characters, *(f"##{c}" for c in characters)]
    known = set(entries)
    frequent = sorted(words, key=lambda word: (-words[word], word))
    entries += [word for word in frequent if word not in known][: max(0, size - len(entries))]
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    return BertTokenizer(vocab=vocabulary, model_max_length=max_length)
