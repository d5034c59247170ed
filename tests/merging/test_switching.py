"""Switching: every cell is the named model's, everything else the rest's."""

import pytest
import torch

from bdlit.errors import BdlitError
from bdlit.merging import average, switch, switched_names
from bdlit.weights import LazyWeights

MODULES = ("attn.c_attn", "mlp.c_fc")


def model(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    state = {"wte.weight": drawn(5, 4), "steps": torch.tensor([seed])}
    for layer in range(3):
        state[f"h.{layer}.ln_1.weight"] = drawn(4)
        state[f"h.{layer}.attn.c_attn.weight"] = drawn(4, 12)
        state[f"h.{layer}.attn.c_attn.bias"] = drawn(12)
        state[f"h.{layer}.mlp.c_fc.weight"] = drawn(4, 16)
    return {**state, "score.weight": drawn(2, 4)}


def test_it_is_the_plain_statement():
    models = [model(seed) for seed in range(3)]
    parts = [f"attn.c_attn[{part}/3]" for part in range(3)]
    roles = torch.randint(3, (3, 4), generator=torch.Generator().manual_seed(9)).tolist()
    sources = {
        (module, layer): roles[layer][column]
        for layer in range(3)
        for column, module in enumerate([*parts, "mlp.c_fc"])
    }
    rest = average(models)
    result = switch(rest, models, sources)
    for name in models[0]:
        if "attn.c_attn" in name or "c_fc" in name:
            layer = int(name.split(".")[1])
            expected = torch.empty_like(models[0][name])
            if "c_fc" in name:
                expected.copy_(models[roles[layer][3]][name])
            else:
                for part in range(3):
                    where = slice(4 * part, 4 * part + 4)
                    expected[..., where] = models[roles[layer][part]][name][..., where]
        else:
            expected = rest[name]
        assert torch.equal(result[name], expected), name
    assert result["steps"] == models[0]["steps"]
    assert result.notes["switched"]["mlp.c_fc"] == {layer: roles[layer][3] for layer in range(3)}


def test_names_of_what_is_not_the_suspects():
    sources = {("attn.c_attn[0/3]", 0): 1, ("attn.c_attn[1/3]", 0): 0, ("mlp.c_fc", 1): 0}
    assert switched_names(model(0), sources, but=0) == [
        "h.0.attn.c_attn.weight",
        "h.0.attn.c_attn.bias",
    ]
    assert "h.1.mlp.c_fc.weight" in switched_names(model(0), sources, but=-1)


def test_it_is_lazy_and_of_the_rests_dtype():
    read = []
    donor = model(1, torch.bfloat16)

    def reading(name):
        read.append(name)
        return donor[name]

    lazy = LazyWeights({name: lambda name=name: reading(name) for name in donor})
    result = switch(model(0), [model(0), lazy], {("mlp.c_fc", 2): 1, ("mlp.c_fc", 0): 0})
    read.clear()
    assert result["h.2.mlp.c_fc.weight"].dtype == torch.float32
    assert torch.equal(result["h.2.mlp.c_fc.weight"], donor["h.2.mlp.c_fc.weight"].float())
    assert torch.equal(dict(result)["h.0.mlp.c_fc.weight"], model(0)["h.0.mlp.c_fc.weight"])
    assert set(read) == {"h.2.mlp.c_fc.weight"}


def test_one_model_in_every_role_is_that_model():
    models = [model(0)] * 2
    sources = {(module, layer): layer % 2 for module in MODULES for layer in range(3)}
    result = switch(average(models), models, sources)
    assert all(torch.equal(result[name], tensor) for name, tensor in models[0].items())


def test_bad_input():
    with pytest.raises(BdlitError, match="come from model 2, but there are models 0 to 1"):
        switch(model(0), [model(0), model(1)], {("mlp.c_fc", 0): 2})
    with pytest.raises(BdlitError, match="did you mean layer 2"):
        switch(model(0), [model(0), model(1)], {("mlp.c_fc", 3): 1})
    narrow = {**model(1), "h.0.mlp.c_fc.weight": torch.ones(2, 16)}
    with pytest.raises(BdlitError, match="does not fit"):
        switch(model(0), [model(0), narrow], {("mlp.c_fc", 0): 1})
