"""Substitution: exactly the named modules of the named layers are the donor's."""

import pytest
import torch

from bdlit.errors import BdlitError
from bdlit.merging import grid, substitute
from bdlit.weights import LazyWeights, outline

MODULES = ("attention.self.query", "attention.self.key", "output.dense", "output.LayerNorm")


def model(value, dtype=torch.float32):
    state = {"bert.embeddings.word_embeddings.weight": torch.full((2,), value, dtype=dtype)}
    for layer in range(3):
        for module in MODULES:
            for kind in ("weight", "bias"):
                name = f"bert.encoder.layer.{layer}.{module}.{kind}"
                state[name] = torch.full((2,), value, dtype=dtype)
    return {**state, "classifier.weight": torch.full((2,), value, dtype=dtype)}


def given(weights):
    return {name for name, tensor in weights.items() if tensor[0] == 2}


def test_weight_and_bias_of_the_cells_and_nothing_else():
    result = substitute(model(1.0), model(2.0), {("attention.self.query", 0), ("output.dense", 2)})
    assert given(result) == {
        f"bert.encoder.layer.{cell}.{kind}"
        for cell in ("0.attention.self.query", "2.output.dense")
        for kind in ("weight", "bias")
    }
    assert result.notes == {
        "substituted": {"attention.self.query": [0], "output.dense": [2]},
        "tensors": 4,
    }
    assert list(result) == list(model(1.0))


def test_a_grid_is_every_module_in_every_layer():
    cells = grid(MODULES[:2], iter([0, 2]))
    assert len(cells) == 4
    assert len(given(substitute(model(1.0), model(2.0), cells))) == 8


def test_no_cells_give_the_suspect():
    result = substitute(model(1.0), model(2.0), set())
    assert not given(result)
    assert result.notes == {"substituted": {}, "tensors": 0}


def test_it_is_lazy_and_of_the_suspects_dtype():
    donor = model(2.0, torch.bfloat16)
    read = []

    def reading(name):
        read.append(name)
        return donor[name]

    lazy = LazyWeights(
        {name: lambda name=name: reading(name) for name in donor},
        outline=lambda name: outline(donor, name),
    )
    result = substitute(model(1.0), lazy, grid(["output.dense"], [1]))
    assert not read
    assert result["bert.encoder.layer.1.output.dense.weight"].dtype == torch.float32
    assert dict(result)["classifier.weight"][0] == 1
    assert set(read) == {f"bert.encoder.layer.1.output.dense.{kind}" for kind in ("weight", "bias")}


def test_only_what_is_substituted_must_fit():
    donor = {**model(2.0), "classifier.weight": torch.ones(5)}
    assert len(given(substitute(model(1.0), donor, grid(["output.dense"], [1])))) == 2
    donor["bert.encoder.layer.1.output.dense.weight"] = torch.ones(5)
    with pytest.raises(BdlitError, match="the donor does not fit the suspect: 1 of another shape"):
        substitute(model(1.0), donor, grid(["output.dense"], [1]))


def test_unknown_modules_and_layers_are_told_with_the_nearest():
    with pytest.raises(BdlitError, match=r"module 'output.dens' in its layers: did you mean 'outp"):
        substitute(model(1.0), model(2.0), [("output.dens", 0)])
    with pytest.raises(
        BdlitError, match=r"'output.dense' in layer 3: did you mean layer 2\? \(0 t"
    ):
        substitute(model(1.0), model(2.0), [("output.dense", 3)])
    with pytest.raises(BdlitError, match="the suspect has no layers"):
        substitute({"w": torch.ones(1)}, {"w": torch.ones(1)}, [("output.dense", 3)])
