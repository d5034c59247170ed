"""A suspect that is an adapter: it stays one where that is exact, and is dense otherwise."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from bdlit.defenses import SLERP, TIES, WAG, Linear
from bdlit.errors import BdlitError
from bdlit.purification import Writing, hold, open_suspect, purify, verify
from tiny_adapters import by_peft, logits, merged_by_peft, save_base, save_lora


@pytest.fixture(scope="module", params=["bert", "llama", "llama-lm"])
def family(request, tmp_path_factory):
    """A base and three adapters of it, with the name of their task."""
    root = tmp_path_factory.mktemp("family")
    kind, _, lm = request.param.partition("-")
    task = "CAUSAL_LM" if lm else "SEQ_CLS"
    head = {"bert": None, "llama": "CAUSAL_LM"}[kind]
    base = save_base(root / "base", kind, head)
    linear = {"target_modules": "all-linear"}
    adapters = [
        save_lora(root / f"a{seed}", base, task, seed=seed, r=2 + seed, **linear)
        for seed in range(3)
    ]
    return base, adapters, task


def purified(adapters, out, defense, **options):
    address, *others = map(str, adapters)
    base, suspect = options.pop("base", None), open_suspect(address)
    held = hold(suspect, defense, others=others, base=base and str(base))
    return purify(suspect, defense, held, out=out, writing=Writing(**options)).origin


def average(states, weights):
    return {
        name: sum(w * s[name] for w, s in zip(weights, states, strict=True)) for name in states[0]
    }


def model_of(state, base, task):
    model = by_peft(*base, task).merge_and_unload()
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize(
    ("defense", "weights"),
    [(WAG(), (1 / 3, 1 / 3, 1 / 3)), (Linear(t=0.25), (0.75, 0.25))],
)
def test_averages_stay_adapters_that_peft_loads(defense, weights, family, tmp_path):
    base, adapters, task = family
    used = adapters[: len(weights)]
    origin = purified(used, tmp_path / "out", defense, check=verify)
    assert origin["notes"]["form"] == "adapter"
    assert not (tmp_path / "out" / "config.json").exists()
    states = [merged_by_peft(base, adapter, task) for adapter in used]
    expected = logits(model_of(average(states, weights), (base, used[0]), task))
    assert torch.allclose(logits(by_peft(base, tmp_path / "out", task)), expected, atol=1e-5)


@pytest.mark.parametrize("defense", [WAG(), SLERP(t=0.5)])
def test_dense_results_load_in_transformers(defense, family, tmp_path):
    base, adapters, task = family
    used = adapters if isinstance(defense, WAG) else adapters[:2]
    purified(used, tmp_path / "out", defense, dense=True, check=verify)
    cls = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
    found = cls.from_pretrained(tmp_path / "out").eval()
    if isinstance(defense, WAG):
        states = [merged_by_peft(base, adapter, task) for adapter in used]
        mean = average(states, [1 / 3] * 3)
        expected = logits(model_of(mean, (base, used[0]), task))
        assert torch.allclose(logits(found), expected, atol=1e-5)


def test_a_low_rank_stands_in_for_what_is_no_adapter(family, tmp_path):
    base, adapters, task = family
    if task == "SEQ_CLS":
        pytest.skip("the base has no head for TIES's task vectors; the language model will do")
    ties = TIES(density=0.5, head="merge")
    dense = purified(adapters, tmp_path / "dense", ties, base=base, dense=True)
    full = purified(adapters, tmp_path / "full", ties, base=base, rank=16)
    low = purified(adapters, tmp_path / "low", ties, base=base, rank=1)
    assert dense["notes"].get("form") is None
    assert full["notes"]["svd_error_max"] < 1e-5 < 0.1 < low["notes"]["svd_error_max"] < 1
    expected = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "dense").eval())
    assert torch.allclose(logits(by_peft(base, tmp_path / "full", task)), expected, atol=1e-4)
    assert json.loads((tmp_path / "low" / "adapter_config.json").read_text())["r"] == 1


def test_factors_average_is_refused_for_dense_models(family, tmp_path):
    _, adapters, _ = family
    with pytest.raises(BdlitError, match="space=factors is about LoRA adapters"):
        purified(adapters, tmp_path / "out", WAG(space="factors"), dense=True)
    with pytest.raises(BdlitError, match="same ranks"):
        purified(adapters, tmp_path / "out", WAG(space="factors"))
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_lacks_factors_is_no_whole_one(family, tmp_path):
    _, adapters, _ = family
    shutil.copytree(adapters[0], tmp_path / "torn")
    file = tmp_path / "torn" / "adapter_model.safetensors"
    tensors = load_file(file)
    (gone, *_) = {name.partition(".lora_")[0] for name in tensors if "layer" in name}
    save_file({n: t for n, t in tensors.items() if not n.startswith(gone)}, file)
    with pytest.raises(BdlitError, match="does not load whole: 2 missing keys"):
        verify(tmp_path / "torn")
