"""Every architecture: saved, merged, loaded again by transformers, with its tied weights tied."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from bdlit.defenses import WAG
from bdlit.purification import Matching, Writing, hold, open_suspect, purify, verify

SIZE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
GROUPED = {**SIZE, "num_key_value_heads": 1, "head_dim": 8}
ENCODERS = {
    "bert": SIZE,
    "roberta": SIZE,
    "distilbert": {
        **{"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
        **{"max_position_embeddings": 40, "pad_token_id": 0},
    },
    "deberta-v2": {**SIZE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "modernbert": {**SIZE, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1},
}
DECODERS = {
    "gpt2": {
        **{"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    },
    "llama": GROUPED,
    "qwen2": {**SIZE, "num_key_value_heads": 1},
    "mistral": {**GROUPED, "sliding_window": None},
    "gemma": GROUPED,
}
CASES = [
    *((kind, AutoModelForSequenceClassification) for kind in (*ENCODERS, *DECODERS)),
    *((kind, AutoModelForMaskedLM) for kind in ("bert", "roberta", "modernbert")),
    *((kind, AutoModelForCausalLM) for kind in DECODERS),
]


def saved(folder, kind, auto, seed, classes=2, tied=True):
    settings = {**(ENCODERS | DECODERS)[kind], "tie_word_embeddings": tied}
    torch.manual_seed(seed)
    model = auto.from_config(AutoConfig.for_model(kind, num_labels=classes, **settings)).eval()
    for parameter in model.parameters():  # biases and norms start alike, and would show nothing
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder, max_shard_size="8KB")
    return model


def merged(tmp_path, **options):
    suspect, out = open_suspect(str(tmp_path / "a")), tmp_path / "out"
    others = [str(tmp_path / "b")]
    held = hold(suspect, WAG(), others=others, matching=Matching(**options))
    return out, purify(suspect, WAG(), held, out=out, writing=Writing(check=verify)).origin


def logits(model):
    tokens = torch.randint(3, 40, (2, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits


@pytest.mark.parametrize(
    ("kind", "auto"), CASES, ids=[f"{kind}-{auto.__name__[12:]}" for kind, auto in CASES]
)
def test_the_average_runs_as_the_average_of_the_modules(kind, auto, tmp_path):
    models = [saved(tmp_path / name, kind, auto, seed) for seed, name in enumerate("ab")]
    out, origin = merged(tmp_path)
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 1
    assert {f.name for f in (tmp_path / "a").glob("*.safetensors*")} == {
        f.name for f in out.glob("*.safetensors*")
    }
    first, second = (model.state_dict() for model in models)
    models[0].load_state_dict(
        {n: (t + second[n]) / 2 if t.is_floating_point() else t for n, t in first.items()}
    )
    found = auto.from_pretrained(out).eval()
    assert torch.allclose(logits(found), logits(models[0]), atol=1e-5)
    assert origin["notes"]["changed"] == len(origin["merged"])
    if auto is not AutoModelForSequenceClassification:
        assert found.get_output_embeddings().weight is found.get_input_embeddings().weight


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_untied_weights_stay_apart(kind, tmp_path):
    for seed, name in enumerate("ab"):
        saved(tmp_path / name, kind, AutoModelForCausalLM, seed, tied=False)
    out, _ = merged(tmp_path)
    found = AutoModelForCausalLM.from_pretrained(out)
    ends = [found.get_output_embeddings().weight, found.get_input_embeddings().weight]
    assert not torch.equal(*ends)


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_heads_of_unequal_size_are_the_suspects_on_request(kind, tmp_path):
    auto = AutoModelForSequenceClassification
    suspect = saved(tmp_path / "a", kind, auto, 0)
    saved(tmp_path / "b", kind, auto, 1, classes=3)
    out, origin = merged(tmp_path, differences="keep_suspect")
    found = auto.from_pretrained(out).state_dict()
    assert origin["copied"]
    for name, own in suspect.state_dict().items():
        if found[name].shape[:1] == (2,) and name.startswith(("classifier", "score")):
            assert torch.equal(found[name], own), name
