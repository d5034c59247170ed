"""Tiny models and LoRA adapters of them, made and saved by transformers and peft themselves."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
)

VOCABULARY = 50
BERT = BertConfig(
    vocab_size=VOCABULARY,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=32,
    num_labels=3,
)
GPT2 = GPT2Config(
    vocab_size=VOCABULARY,
    n_embd=16,
    n_layer=2,
    n_head=2,
    n_positions=32,
    num_labels=3,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
LLAMA = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_labels=3,
    tie_word_embeddings=True,
    pad_token_id=0,
)
CONFIGS = {"bert": BERT, "gpt2": GPT2, "llama": LLAMA}
HEADS = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "CAUSAL_LM": AutoModelForCausalLM,
    "MASKED_LM": AutoModelForMaskedLM,
    None: AutoModel,
}


def save_base(folder, kind="bert", head=None, dtype=torch.float32, **changes):
    """Save a random model with the given head, and return its folder."""
    config = CONFIGS[kind].__class__(**{**CONFIGS[kind].to_dict(), **changes})
    torch.manual_seed(7)
    HEADS[head].from_config(config).to(dtype).save_pretrained(folder)
    return folder


def dense(base, task, dtype=torch.float32):
    """Load the model of a task; a head that the base lacks is random, the same each time."""
    torch.manual_seed(11)
    return HEADS[task].from_pretrained(base, dtype=dtype).eval()


def save_lora(folder, base, task, *, seed=0, dtype=torch.float32, base_dtype=None, **settings):
    """Save an adapter whose every tensor is random, and return its folder."""
    lora = LoraConfig(task_type=task, **{"r": 4, "lora_alpha": 6, **settings})
    model = get_peft_model(dense(base, task, base_dtype or torch.float32), lora)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            drawn = torch.randn(parameter.shape, generator=generator) * 0.2
            parameter.data = drawn.to(parameter.dtype)
    model.save_pretrained(folder)
    if dtype != torch.float32:
        file = folder / "adapter_model.safetensors"
        save_file({n: t.to(dtype) for n, t in load_file(file).items()}, file)
    return folder


def by_peft(base, adapter, task, dtype=torch.float32):
    """Load base and adapter as peft does."""
    return PeftModel.from_pretrained(dense(base, task, dtype), adapter).eval()


def merged_by_peft(base, adapter, task, dtype=torch.float32):
    """Return the state dict of what peft makes of base and adapter."""
    return by_peft(base, adapter, task, dtype).merge_and_unload().state_dict()


def logits(model):
    """Return what a model says of a few fixed token ids."""
    tokens = torch.randint(3, VOCABULARY, (3, 8), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
