"""Layers and modules told from names, on the names that real architectures have."""

import pytest
import torch
import transformers

from bdlit.errors import BdlitError
from bdlit.weights.depth import layer_count_keys, with_depth
from bdlit.weights.layers import (
    layer_count,
    layer_lists,
    layer_modules,
    layer_of,
    module_of,
    renumbered,
)

SMALL = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "pad_token_id": 0,
}
GROUPED = {**SMALL, "num_key_value_heads": 1, "head_dim": 4}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
DISTIL = {"vocab_size": 20, "dim": 8, "n_layers": 3, "n_heads": 2, "hidden_dim": 16}
GPT2 = {"vocab_size": 20, "n_embd": 8, "n_layer": 3, "n_head": 2, "bos_token_id": 1}

ARCHITECTURES = {
    "Bert": (SMALL, "bert.encoder.layer", "attention.self.query"),
    "Roberta": (SMALL, "roberta.encoder.layer", "attention.output.dense"),
    "DistilBert": (DISTIL, "distilbert.transformer.layer", "ffn.lin2"),
    "DebertaV2": (SMALL, "deberta.encoder.layer", "attention.self.value_proj"),
    "ModernBert": ({**SMALL, **SPECIAL}, "model.layers", "attn.Wqkv"),
    "GPT2": ({**GPT2, "eos_token_id": 2}, "transformer.h", "attn.c_attn"),
    "Llama": (SMALL, "model.layers", "mlp.up_proj"),
    "Qwen2": (SMALL, "model.layers", "self_attn.k_proj"),
    "Mistral": (GROUPED, "model.layers", "mlp.down_proj"),
    "Gemma": (GROUPED, "model.layers", "self_attn.o_proj"),
}
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


def build(architecture, **changes):
    settings = ARCHITECTURES[architecture][0]
    config = getattr(transformers, f"{architecture}Config")(**{**settings, **changes})
    with torch.device("meta"):
        return getattr(transformers, f"{architecture}ForSequenceClassification")(config)


@architectures
def test_every_tensor_of_the_list_has_its_layer_and_no_other(architecture):
    _, prefix, module = ARCHITECTURES[architecture]
    names = list(build(architecture).state_dict())
    assert layer_lists(names) == {prefix: 3}
    assert layer_count(names) == 3
    for name in names:
        place = layer_of(name)
        assert (place is not None) == name.startswith(prefix)
        if place is not None:
            assert ".".join([place.prefix, str(place.layer), place.rest]) == name
            assert renumbered(renumbered(name, 41), place.layer) == name
            assert name.startswith(f"{place.prefix}.{place.layer}.{module_of(name)}.")
    assert layer_modules(names)[module] == [0, 1, 2]


@architectures
def test_a_config_of_another_depth_builds_a_model_of_that_depth(architecture):
    config = build(architecture).config
    for depth in (1, 5):
        changed = type(config).from_dict(with_depth(config.to_dict(), depth))
        with torch.device("meta"):
            model = transformers.AutoModelForSequenceClassification.from_config(changed)
        assert layer_count(model.state_dict()) == depth


def test_lists_within_a_layer_and_elsewhere_are_no_layers():
    assert layer_of("model.layers.2.mlp.experts.5.w1.weight")[1:] == (2, "mlp.experts.5.w1.weight")
    assert layer_of("encoder.block.1.layer.0.SelfAttention.q.weight")[:2] == ("encoder.block", 1)
    assert layer_of("encoder.layer.1.adapters.layers.0.down.weight")[:2] == ("encoder.layer", 1)
    assert layer_of("model.towers.1.layers.4.attn.q.weight")[:2] == ("model.towers.1.layers", 4)
    for name in ("classifier.0.weight", "classifier.layers.0.weight", "heads.3.out.dense.weight"):
        assert layer_of(name) is None
    assert layer_of("encoder.albert_layer_groups.0.albert_layers.0.ffn.weight") is None
    assert layer_of("encoder.layer.x.ffn.weight") is None
    assert layer_count(["classifier.layers.0.weight"]) == 0


def test_the_module_outside_layers_is_all_but_the_parameter():
    assert module_of("bert.embeddings.word_embeddings.weight") == "bert.embeddings.word_embeddings"
    assert module_of("weight") == ""


def test_errors_are_one_line():
    with pytest.raises(BdlitError, match=r"'score.weight' belongs to no layer"):
        renumbered("score.weight", 0)
    with pytest.raises(BdlitError, match=r"2 layers in h, but no layer 1: give all its files"):
        layer_count(["h.0.a.w", "h.2.a.w"])
    with pytest.raises(BdlitError, match=r"several lists of layers \(encoder.block, decoder.blo"):
        layer_count(["encoder.block.0.a.w", "decoder.block.0.a.w"])


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "n_layers", "num_layers"])
def test_the_number_of_layers_by_any_name(key):
    config = {key: 12, "hidden_size": 8}
    assert layer_count_keys(config) == [key]
    assert with_depth(config, 7) == {key: 7, "hidden_size": 8}
    assert config[key] == 12


def test_settings_of_single_layers_follow_the_layers():
    kinds = ["full", "sliding", "sliding", "full"]
    config = {"num_hidden_layers": 4, "layer_types": kinds, "other": [1, 2, 3, 4]}
    assert with_depth(config, 2)["layer_types"] == ["full", "sliding"]
    assert with_depth(config, 6)["layer_types"] == [*kinds, "sliding", "sliding"]  # period of 3
    followed = with_depth(config, 3, layers=[1, 2, 3])
    assert followed["layer_types"] == ["sliding", "sliding", "full"]
    assert followed["other"] == [1, 2, 3, 4]
    assert with_depth({"n_layer": 2, "layer_types": None}, 3)["layer_types"] is None


def test_with_depth_refuses_what_it_cannot_do():
    with pytest.raises(BdlitError, match=r"config.json has no number of layers \(num_hidden_lay"):
        with_depth({"hidden_size": 8}, 2)
    for depth, layers in [(0, None), (2, [0]), (1, [4]), (1, [-1])]:
        with pytest.raises(BdlitError, match="of a config with 4: give one of 0 to 3 for each"):
            with_depth({"n_layer": 4}, depth, layers)
