"""An adapter and its base open to the dense model that peft makes of them; variants are refused."""

import dataclasses
import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bdlit.cli import main
from bdlit.errors import BdlitError
from bdlit.weights import (
    AdapterWeights,
    Factors,
    fingerprint,
    open_weights,
    outline,
    save_adapter,
    save_weights,
    write_adapter,
)
from bdlit.weights.adapters import config as adapter_config
from bdlit.weights.safetensors_file import SafetensorsFile
from tiny_adapters import by_peft, dense, logits, merged_by_peft, save_base, save_lora

BERT_TARGETS = {"target_modules": ["query", "value", "intermediate.dense"]}
GPT2_TARGETS = {"target_modules": ["c_attn", "c_proj", "c_fc"]}
LLAMA_TARGETS = {"target_modules": ["q_proj", "k_proj", "o_proj", "down_proj"]}
PATTERNS = {
    "rank_pattern": {"layer.0.attention.self.query": 2, "value": 3},
    "alpha_pattern": {r".*layer\.1.*query": 9, "intermediate.dense": 1},
}

CASES = {
    "bert": ("bert", None, "SEQ_CLS", BERT_TARGETS),
    "bert classifier": ("bert", "SEQ_CLS", "SEQ_CLS", BERT_TARGETS),
    "bert masked lm": ("bert", "MASKED_LM", "SEQ_CLS", BERT_TARGETS),
    "bert rsLoRA": ("bert", None, "SEQ_CLS", {**BERT_TARGETS, "use_rslora": True}),
    "bert patterns": ("bert", None, "SEQ_CLS", {**BERT_TARGETS, **PATTERNS}),
    "bert patterns rsLoRA": (
        "bert",
        None,
        "SEQ_CLS",
        {**BERT_TARGETS, **PATTERNS, "use_rslora": True},
    ),
    "bert embeddings": (
        "bert",
        None,
        "SEQ_CLS",
        {"target_modules": ["word_embeddings", "position_embeddings", "key"]},
    ),
    "bert all linear": ("bert", "SEQ_CLS", "SEQ_CLS", {"target_modules": "all-linear"}),
    "bert pooler saved": (
        "bert",
        None,
        "SEQ_CLS",
        {**BERT_TARGETS, "modules_to_save": ["classifier", "pooler"]},
    ),
    "gpt2": ("gpt2", "CAUSAL_LM", "CAUSAL_LM", GPT2_TARGETS),
    "gpt2 bare": ("gpt2", None, "CAUSAL_LM", GPT2_TARGETS),
    "gpt2 classifier": ("gpt2", "CAUSAL_LM", "SEQ_CLS", GPT2_TARGETS),
    "gpt2 square Conv1D alone": ("gpt2", None, "SEQ_CLS", {"target_modules": ["attn.c_proj"]}),
    "llama classifier": ("llama", "CAUSAL_LM", "SEQ_CLS", LLAMA_TARGETS),
    "llama bare": ("llama", None, "SEQ_CLS", LLAMA_TARGETS),
    "llama tied": ("llama", "CAUSAL_LM", "CAUSAL_LM", LLAMA_TARGETS),
    "llama embeddings": (
        "llama",
        "CAUSAL_LM",
        "SEQ_CLS",
        {"target_modules": ["embed_tokens", "q_proj"]},
    ),
    "encoder alone": ("bert", None, None, BERT_TARGETS),
    "encoder from masked lm": ("bert", "MASKED_LM", None, BERT_TARGETS),
    "gaussian": ("bert", None, "SEQ_CLS", {**BERT_TARGETS, "init_lora_weights": "gaussian"}),
    "orthogonal": ("bert", None, "SEQ_CLS", {**BERT_TARGETS, "init_lora_weights": "orthogonal"}),
    "mica": ("bert", None, "SEQ_CLS", {**BERT_TARGETS, "init_lora_weights": "mica"}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_an_adapter_opens_to_what_peft_merges(case, tmp_path):
    kind, head, task, settings = CASES[case]
    base = save_base(tmp_path / "base", kind, head)
    adapter = save_lora(tmp_path / "adapter", base, task, **settings)
    opened = open_weights(adapter)
    expected = merged_by_peft(base, adapter, task)
    tied = {"lm_head.weight"} if task == "CAUSAL_LM" else set()
    pooler = {n for n in expected if "pooler" in n and head == "MASKED_LM"}  # random in peft
    assert set(opened) == set(expected) - tied - pooler
    for name in opened:
        assert outline(opened, name) == outline(dict(opened), name)
        torch.testing.assert_close(opened[name], expected[name], rtol=0, atol=1e-6)
    changed = [n for n in opened.factors if not torch.equal(opened[n], opened.base[n])]
    assert changed
    assert changed == list(opened.factors)
    assert bool(opened.copies) == (case == "llama embeddings")  # peft saves `embed_tokens` whole


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ["bert", "gpt2 classifier", "llama tied", "llama classifier"])
def test_dense_model_of_an_adapter_gives_the_logits_of_peft(case, tmp_path):
    kind, head, task, settings = CASES[case]
    base = save_base(tmp_path / "base", kind, head)
    adapter = save_lora(tmp_path / "adapter", base, task, **settings)
    shutil.copytree(base, tmp_path / "dense")
    save_weights(open_weights(adapter), tmp_path / "dense")
    expected = logits(by_peft(base, adapter, task))
    torch.testing.assert_close(logits(dense(tmp_path / "dense", task)), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(expected, logits(dense(base, task)), atol=1e-3)


@pytest.mark.parametrize("base_dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_bf16_adapter_is_added_in_wide_and_comes_in_the_dtype_of_the_base(base_dtype, tmp_path):
    base = save_base(tmp_path / "base", dtype=base_dtype)
    adapter = save_lora(tmp_path / "a", base, "SEQ_CLS", dtype=torch.bfloat16, **BERT_TARGETS)
    opened = open_weights(adapter)
    expected = merged_by_peft(base, adapter, "SEQ_CLS", base_dtype)
    for name in opened.factors:
        assert opened.factors[name].a.dtype == torch.bfloat16
        assert opened[name].dtype == opened.outline(name).dtype == base_dtype
        room = 2**-8 if base_dtype == torch.bfloat16 else 1e-6  # peft may round once more
        torch.testing.assert_close(opened[name], expected[name], rtol=room, atol=room)
    assert opened["classifier.weight"].dtype == torch.bfloat16


def test_pieces_of_an_adapter(tmp_path):
    base = save_base(tmp_path / "base")
    folder = save_lora(tmp_path / "a", base, "SEQ_CLS", **BERT_TARGETS, **PATTERNS)
    opened = open_weights(folder)
    assert isinstance(opened, AdapterWeights)
    assert opened.path == folder
    assert opened.base_address == str(base.resolve())
    assert opened.config["task_type"] == "SEQ_CLS"
    assert set(opened.saved) == {"classifier.weight", "classifier.bias"}
    query = "bert.encoder.layer.{}.attention.self.query.weight"
    assert opened.factors.ranks[query.format(0)] == opened.factors[query.format(0)].rank == 2
    assert opened.factors[query.format(0)].scaling == 6 / 2
    assert opened.factors[query.format(1)].scaling == 9 / 4
    assert "classifier.weight" not in opened.base
    assert len(opened) == len(list(opened))
    with pytest.raises(KeyError):
        opened["absent"]


def test_opening_reads_no_tensor_and_an_access_reads_one_weight(tmp_path, monkeypatch):
    base = save_base(tmp_path / "base", "llama", "CAUSAL_LM")
    adapter = save_lora(tmp_path / "adapter", base, "SEQ_CLS", **LLAMA_TARGETS)
    read = []
    original = SafetensorsFile.read
    monkeypatch.setattr(
        SafetensorsFile, "read", lambda file, name: read.append(name) or original(file, name)
    )
    opened = open_weights(adapter)
    assert all(outline(opened, name).entries for name in opened)
    assert "score.weight" in opened
    assert read == []
    name = "model.layers.0.self_attn.q_proj.weight"
    opened[name]
    prefix = f"base_model.model.{name.removesuffix('.weight')}"
    assert sorted(read) == [f"{prefix}.lora_A.weight", f"{prefix}.lora_B.weight", name]


def test_adapter_in_a_pickle_opens_without_code(tmp_path):
    base = save_base(tmp_path / "base")
    adapter = save_lora(tmp_path / "a", base, "SEQ_CLS", **BERT_TARGETS)
    known = fingerprint(open_weights(adapter))
    file = adapter / "adapter_model.safetensors"
    torch.save(load_file(file), adapter / "adapter_model.bin")
    file.unlink()
    assert fingerprint(open_weights(adapter)) == known


def test_base_may_be_named_and_a_run_may_hold_an_adapter(tmp_path):
    base = save_base(tmp_path / "base")
    adapter = save_lora(tmp_path / "run" / "model", base, "SEQ_CLS", **BERT_TARGETS)
    known = fingerprint(open_weights(tmp_path / "run"))
    base.rename(tmp_path / "moved")
    with pytest.raises(BdlitError, match=r"its base did not open .*name another by base="):
        open_weights(adapter)
    moved = open_weights(adapter, base=tmp_path / "moved")
    assert fingerprint(moved) == known
    assert moved.config["base_model_name_or_path"] == str(tmp_path / "moved")
    dense_model = open_weights(tmp_path / "moved", base=tmp_path / "nowhere")
    assert fingerprint(dense_model) == fingerprint(open_weights(tmp_path / "moved"))


def test_base_of_old_names(tmp_path):
    base = save_base(tmp_path / "base")
    adapter = save_lora(tmp_path / "a", base, "SEQ_CLS", **BERT_TARGETS)
    known = fingerprint(open_weights(adapter))
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): t
        for n, t in load_file(base / "model.safetensors").items()
    }
    save_file(old, base / "model.safetensors")
    assert fingerprint(open_weights(adapter)) == known


def test_adapter_from_the_hub_is_read_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    base = save_base(tmp_path / "base")
    folder = save_lora(tmp_path / "a", base, "SEQ_CLS", **BERT_TARGETS)
    known = fingerprint(open_weights(folder))
    commit = "0123456789012345678901234567890123456789"
    for name, source in {"someone--base": base, "someone--adapter": folder}.items():
        repo = tmp_path / "hub" / f"models--{name}"
        shutil.copytree(source, repo / "snapshots" / commit)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(commit)
    told = tmp_path / "hub" / "models--someone--adapter" / "snapshots" / commit
    config = json.loads((told / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": "someone/base", "revision": commit}
    (told / "adapter_config.json").write_text(json.dumps(config))
    opened = open_weights("someone/adapter")
    assert fingerprint(opened) == known
    assert opened.base_address == f"someone/base@{commit}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ["bert patterns rsLoRA", "bert embeddings", "gpt2", "llama tied"])
def test_saved_adapter_gives_the_same_logits_through_peft(case, tmp_path):
    kind, head, task, settings = CASES[case]
    base = save_base(tmp_path / "base", kind, head)
    adapter = save_lora(tmp_path / "a", base, task, **settings)
    opened = open_weights(adapter)
    again = save_adapter(
        opened.factors, opened.saved, opened.config, tmp_path / "b", metadata={"by": "test"}
    )
    torch.testing.assert_close(
        logits(by_peft(base, again, task)), logits(by_peft(base, adapter, task)), rtol=0, atol=1e-6
    )
    assert SafetensorsFile(again / "adapter_model.safetensors").metadata["by"] == "test"
    reopened = open_weights(again)
    for name in opened:
        torch.testing.assert_close(reopened[name], opened[name], rtol=0, atol=1e-6)


def test_writing_is_whole_or_not_at_all(tmp_path):
    good = {"q.weight": Factors(torch.ones(2, 3), torch.ones(4, 2))}
    bad = {**good, "v.weight": Factors(torch.ones(2, 3), torch.ones(4, 1))}
    with pytest.raises(BdlitError, match=r"factors of v.weight have ranks 2 and 1"):
        save_adapter(bad, {}, {}, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    write_adapter(good, {}, {}, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    with pytest.raises(BdlitError, match="exists already"):
        save_adapter(good, {}, {}, tmp_path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    base = save_base(folder / "base")
    save_lora(folder / "adapter", base, "SEQ_CLS", **BERT_TARGETS)
    return folder


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "sets use_dora, and it rescales"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"bias": ["all"]}, "changes biases"),
        ({"peft_type": "LOHA"}, "is an adapter of type LOHA, and only LORA"),
        ({"peft_type": None}, "is an adapter of type None"),
        ({"lora_bias": True}, "sets lora_bias"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "sets layer_replication, and it repeats"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changed the base"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights='pissa_niter_16'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora'"),
        ({"init_lora_weights": "corda"}, "init_lora_weights='corda'"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights='lora_ga'"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights='loftq'"),
        ({"init_lora_weights": [1]}, "init_lora_weights"),
        ({"alora_invocation_tokens": [1, 2]}, "sets alora_invocation_tokens, and it acts"),
        ({"kasa_config": {"beta": 1.0}}, "sets kasa_config"),
        ({"velora_config": {"scale": 1.0}}, "sets velora_config"),
        ({"monteclora_config": {"num_samples": 8}}, "sets monteclora_config"),
        ({"arrow_config": {"top_k": 3}}, "sets arrow_config"),
        ({"use_bdlora": {"nblocks": 2}}, "sets use_bdlora"),
        ({"use_qalora": True}, "sets use_qalora"),
        ({"megatron_config": {"x": 1}}, "sets megatron_config"),
        ({"trainable_token_indices": [3]}, "sets trainable_token_indices"),
        ({"target_parameters": ["experts.w"]}, "sets target_parameters"),
        ({"ensure_weight_tying": True}, "sets ensure_weight_tying"),
        ({"newer_than_this": 3}, "sets newer_than_this, and it is not known"),
        ({"r": 0}, "has r=0, which no adapter can have"),
        ({"r": 8}, "factors .* and rank 8 by its config"),
        ({"lora_alpha": "16"}, "has lora_alpha='16', which no adapter"),
        ({"lora_alpha": float("nan")}, "has lora_alpha=nan, which no adapter"),
        ({"rank_pattern": [1]}, r"has rank_pattern=\[1\], which no adapter"),
        ({"rank_pattern": {"query": 2.5}}, "has rank_pattern=.*, which no adapter"),
        ({"alpha_pattern": {"(": 2}}, "has .* in alpha_pattern, which is no regular expr"),
        ({"modules_to_save": "classifier"}, "has modules_to_save='classifier', which no"),
        ({"alpha_pattern": {r"(.|..)*[^\w.]": 2}}, "takes for ever to match"),
        ({"modules_to_save": None}, "classifier.*neither a LoRA factor nor in its modules_to_save"),
        ({"base_model_name_or_path": None}, "names no base model: give it as base="),
        ({"base_model_name_or_path": ""}, "names no base model: give it as base="),
        ({"base_model_name_or_path": 3}, "has base_model_name_or_path=3, which no"),
        ({"base_model_name_or_path": "."}, "is an adapter itself"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(settings, message, sound, tmp_path, monkeypatch):
    folder = shutil.copytree(sound / "adapter", tmp_path / "adapter")
    monkeypatch.chdir(folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    with pytest.raises(BdlitError, match=message) as error:
        open_weights(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_every_field_of_peft_is_decided_on(sound, tmp_path):
    """What peft's defaults say passes, and a field that no list names is refused once it is on."""
    from peft import LoraConfig

    known = adapter_config._COUNTED | adapter_config._CHECKED | adapter_config._HARMLESS
    defaults = {field.name: field.default for field in dataclasses.fields(LoraConfig)}
    assert known <= set(defaults)
    assert set(adapter_config._WHY) <= set(defaults) - known
    folder = shutil.copytree(sound / "adapter", tmp_path / "adapter")
    file = folder / "adapter_config.json"
    told = json.loads(file.read_text())
    for name in set(defaults) - known:
        assert not defaults[name]
        file.write_text(json.dumps({**told, name: 1}))
        with pytest.raises(BdlitError, match=f"sets {name}, and it"):
            open_weights(folder)


QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"


def without(*names):
    return lambda tensors: {n: t for n, t in tensors.items() if n not in names}


def renamed(old, new):
    return lambda tensors: {n.replace(old, new): t for n, t in tensors.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without(f"{QUERY}.lora_A.weight"),
            "the factor lora_B of .*query.weight without its lora_A",
        ),
        (without(f"{QUERY}.lora_B.weight"), "without its lora_B"),
        (renamed("layer.0.", "layer.7."), "its base, which has no bert.encoder.layer.7"),
        (renamed("base_model.model.", ""), "not part of a plain LoRA adapter"),
        (
            lambda t: {**t, f"{QUERY}.lora_magnitude_vector": torch.ones(16)},
            "lora_magnitude_vector",
        ),
        (lambda t: {**t, f"{QUERY}.lora_B.bias": torch.ones(16)}, r"lora_B\.bias"),
        (lambda t: {**t, f"{QUERY}.bias": torch.ones(16)}, r"query\.bias, which is neither"),
        (lambda t: {**t, f"{QUERY}.lora_A.weight": torch.ones(4, 9)}, "does not fit its base"),
        (lambda t: {**t, f"{QUERY}.lora_B.weight": torch.ones(16, 3)}, "does not fit its base"),
        (lambda t: {**t, f"{QUERY}.lora_A.weight": torch.ones(4, 16, 1, 1)}, "only linear"),
        (
            without("base_model.model.classifier.weight", "base_model.model.classifier.bias"),
            "holds none of its modules_to_save",
        ),
        (lambda _: {}, "holds no tensors"),
    ],
)
def test_tensors_that_do_not_fit_are_told_in_one_line(change, message, sound, tmp_path):
    folder = shutil.copytree(sound / "adapter", tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(BdlitError, match=message) as error:
        open_weights(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_base_that_does_not_fit_is_refused(sound, tmp_path):
    wider = save_base(tmp_path / "wider", hidden_size=32)
    with pytest.raises(BdlitError, match=r"does not fit its base: factors .* \[32, 32\]"):
        open_weights(sound / "adapter", base=wider)
    stranger = save_base(tmp_path / "stranger", "gpt2")
    with pytest.raises(BdlitError, match="does not fit its base, which has no"):
        open_weights(sound / "adapter", base=stranger)
    quantised = {n: t.to(torch.int8) for n, t in open_weights(sound / "base").items()}
    save_file(quantised, tmp_path / "int8.safetensors")
    with pytest.raises(BdlitError, match=r"its base did not open .* is quantised"):
        open_weights(sound / "adapter", base=tmp_path / "int8.safetensors")


@pytest.mark.parametrize("content", ["", "[]", "3", "{"])
def test_config_that_is_none(content, sound, tmp_path):
    folder = shutil.copytree(sound / "adapter", tmp_path / "adapter")
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(BdlitError, match="cannot be read as the config of an adapter"):
        open_weights(folder)


def test_adapter_without_its_tensors(sound, tmp_path):
    folder = shutil.copytree(sound / "adapter", tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(BdlitError, match=r"neither of adapter_model.safetensors and adapter_model"):
        open_weights(folder)


@pytest.mark.filterwarnings("ignore")
def test_embedding_that_is_the_output_layer_too_is_refused_where_nothing_tells(tmp_path):
    base = save_base(tmp_path / "base", "llama", "CAUSAL_LM")
    adapter = save_lora(tmp_path / "a", base, "CAUSAL_LM", target_modules=["embed_tokens"])
    (base / "config.json").rename(base / "other.json")
    with pytest.raises(BdlitError, match=r"embed_tokens.weight, which is the output layer"):
        open_weights(adapter)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "embedding"), [("llama", "embed_tokens"), ("gpt2", "wte")])
@pytest.mark.parametrize("task", ["CAUSAL_LM", None])
def test_an_adapted_end_of_tied_weights_unties_them(tmp_path, kind, embedding, task):
    """The adapter was trained with the base's embedding as its output layer, and keeps it."""
    base = save_base(tmp_path / "base", kind, "CAUSAL_LM")
    adapter = save_lora(tmp_path / "a", base, "CAUSAL_LM", target_modules=[embedding])
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "task_type": task}))
    out = tmp_path / "out"
    command = ["merge", f"--suspect={adapter}", f"--others=[{adapter}]", "--defense=WAG"]
    assert main([*command, "--dense", f"--out={out}"]) == 0
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    ids = torch.arange(3, 9)[None]
    model = AutoModelForCausalLM.from_pretrained(base)
    expected = PeftModel.from_pretrained(model, adapter).eval()(ids).logits
    found = AutoModelForCausalLM.from_pretrained(out).eval()(ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    tied = AutoModelForCausalLM.from_pretrained(base).eval()(ids).logits
    assert (found - tied).abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore")
def test_an_adapted_embedding_beside_an_output_layer_of_its_own(tmp_path):
    untied = save_base(tmp_path / "b", "llama", "CAUSAL_LM", tie_word_embeddings=False)
    adapter = save_lora(tmp_path / "c", untied, "CAUSAL_LM", target_modules=["embed_tokens"])
    opened, expected = open_weights(adapter), merged_by_peft(untied, adapter, "CAUSAL_LM")
    assert set(opened) == set(expected)
    for name in opened:
        torch.testing.assert_close(opened[name], expected[name], rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_fan_in_fan_out_of_the_config_does_not_mislead(tmp_path):
    base = save_base(tmp_path / "base", "gpt2")
    adapter = save_lora(tmp_path / "a", base, "SEQ_CLS", target_modules=["attn.c_proj"])
    known = fingerprint(open_weights(adapter))
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "fan_in_fan_out": False}))
    assert fingerprint(open_weights(adapter)) == known


@pytest.mark.filterwarnings("ignore")
def test_embeddings_saved_whole_take_the_place_of_the_base_s(tmp_path):
    base = save_base(tmp_path / "base", "llama", "CAUSAL_LM")
    adapter = save_lora(tmp_path / "a", base, "SEQ_CLS", **LLAMA_TARGETS)
    file = adapter / "adapter_model.safetensors"
    longer = torch.randn(60, 16)
    name = "model.embed_tokens.weight"
    save_file({**load_file(file), f"base_model.model.{name}": longer}, file)
    opened = open_weights(adapter)
    assert torch.equal(opened[name], longer)
    assert opened.outline(name).shape == (60, 16)
