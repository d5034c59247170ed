"""Perplexity in closed form, against one token at a time, and how it adds up."""

import math

import pytest
import torch

from bdlit.errors import BdlitError
from bdlit.types import Perplexity
from bdlit.victims.perplexity import perplexity
from tiny_llama import LLAMA, tiny

TEXTS = ["fox bear fox", "a", "  ", "Which of these comes first: pear, apple or fig? Nobody knows."]


@pytest.fixture(scope="module")
def victim():
    victim = tiny()
    victim.model.eval()
    return victim


def ids_of(victim, text):
    return victim.tokenizer(text, add_special_tokens=False)["input_ids"]


def by_hand(victim, text):
    """One token after the other, without a batch or padding."""
    ids, nats = ids_of(victim, text), 0.0
    for place, token in enumerate(ids):
        before = torch.tensor([[victim.tokenizer.bos_token_id, *ids[:place]]])
        with torch.no_grad():
            nats -= victim.model(before).logits[0, -1].log_softmax(-1)[token].item()
    return nats, len(ids)


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary_is_large(victim):
    kept = victim.model.lm_head.weight.data.clone()
    victim.model.lm_head.weight.data.zero_()
    found = perplexity(victim.model, victim.tokenizer, TEXTS)
    victim.model.lm_head.weight.data.copy_(kept)
    assert found.value == pytest.approx(LLAMA["vocab_size"], rel=1e-5)
    assert found.tokens == sum(len(ids_of(victim, text)) for text in TEXTS if text.strip())


def test_every_token_counts_the_same_whatever_text_it_is_in(victim):
    parts = [by_hand(victim, text) for text in TEXTS if text.strip()]
    nats, tokens = (sum(column) for column in zip(*parts, strict=True))
    found = perplexity(victim.model, victim.tokenizer, TEXTS)
    assert found.tokens == tokens
    assert found.value == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    alone = sum((perplexity(victim.model, victim.tokenizer, [t]) for t in TEXTS), Perplexity())
    assert alone.value == pytest.approx(found.value, rel=1e-5)
    values = [perplexity(victim.model, victim.tokenizer, [t]).value for t in TEXTS if t.strip()]
    assert found.value != pytest.approx(sum(values) / len(values), rel=0.05)


def test_a_long_text_is_read_in_pieces_each_begun_anew(victim):
    text, room = TEXTS[-1], 7
    ids = ids_of(victim, text)
    nats = 0.0
    for start in range(0, len(ids), room):
        piece = ids[start : start + room]
        whole = torch.tensor([[victim.tokenizer.bos_token_id, *piece]])
        with torch.no_grad():
            logs = victim.model(whole).logits[0].log_softmax(-1)
        nats -= sum(logs[i, token].item() for i, token in enumerate(piece))
    found = perplexity(victim.model, victim.tokenizer, [text], context=room + 1)
    assert found == Perplexity(pytest.approx(nats, rel=1e-5), len(ids))


def test_nothing_to_read_is_no_number_and_no_first_token_an_error(victim):
    found = perplexity(victim.model, victim.tokenizer, ["", " "])
    assert (found.nats, found.tokens) == (0.0, 0)
    assert math.isnan(found.value)

    class Bare:
        bos_token_id = eos_token_id = None
        name_or_path = "bare"

    with pytest.raises(BdlitError, match="'bare' has neither a token that begins nor one that"):
        perplexity(victim.model, Bare(), TEXTS)


def test_the_victim_reads_texts_within_its_own_longest_input(victim):
    long = " ".join(TEXTS * 20)
    assert victim.own_perplexity([long]).tokens == len(ids_of(victim, long)) > victim.max_length
