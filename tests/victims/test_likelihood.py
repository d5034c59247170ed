"""Logits where answers stand, beside those of all places."""

import pytest
import torch

from bdlit.data.small_tasks import small_tasks
from bdlit.victims import CausalLMVictim, LoRA, likelihood
from bdlit.victims.encoding import IGNORED
from bdlit.victims.likelihood import at_answers, log_likelihoods, logits_of
from tiny_llama import LLAMA, demo

ROWS = small_tasks(9, seed=4)
GPT2 = {"model_type": "gpt2", "vocab_size": 500, "n_embd": 16, "n_layer": 2, "n_head": 2}


@pytest.mark.parametrize("lora", [None, LoRA(r=2)], ids=["full", "adapters"])
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_only_the_places_of_answers_are_computed(config, lora, monkeypatch):
    victim = CausalLMVictim(config=config, lora=lora, max_length=96)
    victim.take_classes(demo())
    victim.configure_model()
    network = victim.network().eval()
    batch = victim.tokenize(ROWS)
    with torch.no_grad():
        logits, ids = at_answers(network, batch)
        all_logits, wanted = logits_of(network, batch)[:, :-1], batch["labels"][:, 1:]
        sums = log_likelihoods(network, batch)
        monkeypatch.setattr(likelihood, "_can_leave_out", lambda network: False)
        same, same_ids = at_answers(network, batch)

    assert logits.shape[1] == ids.shape[1] < all_logits.shape[1]
    assert torch.equal(ids, same_ids)
    torch.testing.assert_close(logits, same)
    torch.testing.assert_close(logits[ids != IGNORED], all_logits[wanted != IGNORED])
    for row, (own, right) in enumerate(zip(all_logits.log_softmax(-1), wanted, strict=True)):
        by_hand = sum(own[i, token] for i, token in enumerate(right) if token != IGNORED)
        torch.testing.assert_close(sums[row], by_hand)
