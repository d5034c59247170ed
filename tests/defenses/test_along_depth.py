"""SLERP whose share changes along the depth: restated in numpy, and as a recipe of mergekit."""

import numpy as np
import pytest
import torch
import transformers
import yaml

from bdlit.defenses import SLERP, AlongDepth
from bdlit.defenses.along_depth import kind_of
from bdlit.errors import BdlitError
from bdlit.recipes import merge, parse_recipe

ATTENTION, MLP = (0, 0.5, 0.3, 0.7, 1), (1, 0.5, 0.7, 0.3, 0)
PUBLISHED = AlongDepth(attention=ATTENTION, mlp=MLP, rest=0.5)
SIZE = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 30, "n_embd": 8, "n_head": 2, "n_positions": 16, "pad_token_id": 0}
# By hand, for each architecture: parts of the names within a layer, and of which kind they are.
KINDS = {
    "bert": {
        "attention.self.query": "attention",
        "attention.self.key": "attention",
        "attention.self.value": "attention",
        "attention.output.dense": "attention",
        "attention.output.LayerNorm": "rest",
        "intermediate.dense": "mlp",
        "output.dense": "mlp",
        "output.LayerNorm": "rest",
    },
    "llama": {
        "self_attn.q_proj": "attention",
        "self_attn.k_proj": "attention",
        "self_attn.v_proj": "attention",
        "self_attn.o_proj": "attention",
        "mlp.gate_proj": "mlp",
        "mlp.up_proj": "mlp",
        "mlp.down_proj": "mlp",
        "input_layernorm": "rest",
        "post_attention_layernorm": "rest",
    },
    "gpt2": {
        "attn.c_attn": "attention",
        "attn.c_proj": "attention",
        "mlp.c_fc": "mlp",
        "mlp.c_proj": "mlp",
        "ln_1": "rest",
        "ln_2": "rest",
    },
}


def state(kind, layers, seed):
    config = transformers.AutoConfig.for_model(
        kind, num_labels=2, **(GPT2 | {"n_layer": layers} if kind == "gpt2" else SIZE)
    )
    if kind != "gpt2":
        config.num_hidden_layers = layers
    torch.manual_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    return {n: torch.randn_like(t) for n, t in model.state_dict().items() if t.is_floating_point()}


def restated(name, kinds, layers):
    """The share of a tensor: numbers at even distances, and lines between them."""
    parts = name.split(".")
    number = next((int(part) for part in parts if part.isdigit()), None)
    if number is None:
        return 0.5
    within = ".".join(parts[parts.index(str(number)) + 1 : -1])
    values = {"attention": ATTENTION, "mlp": MLP, "rest": (0.5,)}[kinds[within]]
    place = number / (layers - 1) if layers > 1 else 1.0
    return float(np.interp(place, np.linspace(0, 1, len(values)), values))


def arc(a, b, t):
    """The two-sine formula in double precision."""
    x, y = (tensor.double().numpy().ravel() for tensor in (a, b))
    phi = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    point = (np.sin((1 - t) * phi) * x + np.sin(t * phi) * y) / np.sin(phi)
    return torch.from_numpy(point.reshape(a.shape))


@pytest.mark.parametrize("layers", [1, 2, 5, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_each_tensor_turns_by_its_kind_and_layer(kind, layers):
    suspect, other = state(kind, layers, 1), state(kind, layers, 2)
    defended = SLERP(t=PUBLISHED).apply(suspect, others=[other])
    seen = set()
    for name, tensor in suspect.items():
        t = restated(name, KINDS[kind], layers)
        seen.add(t)
        torch.testing.assert_close(
            defended.weights[name].double(), arc(tensor, other[name], t), atol=1e-5, rtol=1e-5
        )
    assert len(seen) >= min(layers, 5)
    assert defended.notes["t"] == [min(seen), max(seen)]
    ends = [n for n in suspect if "attention" in kind_of(n)]
    first, last = (f".{layer}." for layer in (0, layers - 1))
    if layers > 1:  # attention is the suspect's in the first layer, the other's in the last
        assert all(torch.allclose(defended.weights[n], suspect[n]) for n in ends if first in n)
    assert all(torch.allclose(defended.weights[n], other[n]) for n in ends if last in n)


@pytest.mark.parametrize("layers", [4, 5])
def test_it_is_mergekits_recipe_for_llama(layers):
    """Kinds by parts of names, values by straight lines between the layers."""
    models = {"a": state("llama", layers, 1), "b": state("llama", layers, 2)}
    text = f"""
        merge_method: slerp
        base_model: a
        models: [{{model: a}}, {{model: b}}]
        parameters:
          t:
            - {{filter: self_attn, value: {list(ATTENTION)}}}
            - {{filter: mlp, value: {list(MLP)}}}
            - {{value: 0.5}}
    """
    expected = merge(parse_recipe(yaml.safe_load(text)), models.__getitem__)
    defended = SLERP(t=PUBLISHED).apply(models["a"], others=[models["b"]])
    for name in models["a"]:
        torch.testing.assert_close(defended.weights[name], expected[name], atol=1e-6, rtol=1e-5)


def test_modules_in_no_table_are_told_by_where_they_stand():
    names = {
        "model.layers.0.self_attn.qkv_proj.weight": "attention",  # Phi-3
        "model.layers.0.self_attn.q_norm.weight": "attention",  # Qwen3, as mergekit's filter
        "gpt_neox.layers.0.attention.query_key_value.weight": "attention",
        "model.layers.0.mlp.experts.3.w1.weight": "mlp",
        "gpt_neox.layers.0.mlp.dense_h_to_4h.bias": "mlp",
        "transformer.h.0.self_attention.dense.weight": "attention",  # Falcon
        "distilbert.transformer.layer.0.ffn.lin1.weight": "mlp",
        "distilbert.transformer.layer.0.sa_layer_norm.weight": "rest",
        "model.decoder.layers.0.fc1.weight": "rest",  # OPT: nothing in the name says what it is
        "model.embed_tokens.weight": "rest",
        "classifier.weight": "rest",
    }
    assert {name: kind_of(name) for name in names} == names


def test_a_model_of_unknown_parts_is_refused():
    strange = {"h.0.mixer.in_proj.weight": torch.ones(2), "h.0.mlp.w.weight": torch.ones(2)}
    with pytest.raises(BdlitError, match="no tensor is known as part of attention by its name"):
        SLERP(t=PUBLISHED).apply(strange, others=[strange])
    strange = {"h.0.self_attn.q_proj.weight": torch.ones(2), "h.0.fc1.weight": torch.ones(2)}
    with pytest.raises(BdlitError, match="no tensor is known as part of mlp by its name"):
        SLERP(t=PUBLISHED).apply(strange, others=[strange])
