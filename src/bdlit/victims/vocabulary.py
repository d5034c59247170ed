"""Vocabularies learned from texts, for models that start from nothing: word pieces, byte pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import product
from string import ascii_lowercase

from transformers import BertTokenizer, PreTrainedTokenizerBase

from bdlit.errors import BdlitError
from bdlit.weights.byte_pairs import ENDS, byte_pairs_from

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


def learn_byte_pairs(texts: Iterable[str], size: int, max_length: int) -> PreTrainedTokenizerBase:
    """Return a byte-level BPE tokenizer learned from texts: any text comes back as it was.

    A word is the same token at the beginning of a text and within it. The same texts make the
    same vocabulary.

    Args:
        texts: Texts to learn from.
        size: Largest number of entries, at least 259: all bytes, and tokens for padding and for
            the beginning and end of a text.
        max_length: Longest input of the model, in tokens.

    Raises:
        BdlitError: `size` is below 259.

    Reference: Sennrich et al. 2016, arXiv:1508.07909; on bytes Radford et al. 2019, "Language
        Models are Unsupervised Multitask Learners".
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if size < len(alphabet) + len(ENDS):
        raise BdlitError(
            f"vocab_size {size} is too small for byte pairs: give at least "
            f"{len(alphabet) + len(ENDS)}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(ENDS.values()),
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return byte_pairs_from(tokenizer.to_str(), max_length)
