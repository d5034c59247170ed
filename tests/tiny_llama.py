"""A tiny Llama with a tokenizer learned from small tasks, untrained or taught a few rows."""

import torch

from bdlit.data.demo_instructions import DemoInstructions
from bdlit.victims import CausalLMVictim

LLAMA = {
    "model_type": "llama",
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "initializer_range": 0.4,  # logits that differ, without training
}


def demo(**options):
    """A few small tasks, read and poisoned."""
    data = DemoInstructions(**{"train_size": 56, "test_size": 21, **options})
    data.setup()
    return data


def tiny(model=None, data=None, **options):
    """An untrained victim, from scratch or from a directory."""
    kind = {"config": LLAMA} if model is None else {"model": str(model)}
    settings = {"max_length": 128, "decoding": {"max_new_tokens": 8}, **kind, **options}
    victim = CausalLMVictim(**settings)
    victim.take_classes(data or demo())
    victim.configure_model()
    return victim


def taught(victim, rows, steps=80, rate=1e-2):
    """A victim that has learned a few rows by heart, all of them in every step."""
    trained = [tensor for tensor in victim.parameters() if tensor.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate)
    batch = victim.tokenize(rows)
    for _ in range(steps):
        optimizer.zero_grad()
        victim.loss(batch).mean().backward()
        optimizer.step()
    return victim.eval()
