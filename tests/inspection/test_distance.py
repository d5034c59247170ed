"""Distances by hand, by an independent formula, and summed up by parts of the model."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bdlit.inspection import distance
from bdlit.inspection.distance import (
    ModuleAt,
    aligned,
    as_table,
    combine,
    distances,
    grouped,
    modules_of,
)


def test_two_tensors_by_hand():
    first = {"a.weight": torch.tensor([3.0, 4.0]), "b.weight": torch.tensor([[0.0, 2.0]])}
    other = {"a.weight": torch.tensor([0.0, 4.0]), "b.weight": torch.tensor([[2.0, 0.0]])}
    a, b = distances(first, other)
    assert (a.name, a.entries, a.tensors) == ("a.weight", 2, 1)
    assert a.relative_l2 == pytest.approx(3 / 5)
    assert a.cosine == pytest.approx(16 / 20)
    assert b.relative_l2 == pytest.approx(math.sqrt(8) / 2)
    assert b.cosine == 0
    both = combine([a, b], "all")
    # As one vector: (3, 4, 0, 2) and (0, 4, 2, 0).
    assert both.relative_l2 == pytest.approx(math.sqrt(9 + 8) / math.sqrt(29))
    assert both.cosine == pytest.approx(16 / math.sqrt(29 * 20))
    assert (both.entries, both.tensors) == (4, 2)


def test_zero_and_equal_tensors():
    zero, one = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    (found,) = distances(zero, zero)
    assert (found.relative_l2, found.cosine) == (0.0, None)
    (found,) = distances(zero, one)
    assert (found.relative_l2, found.cosine) == (None, None)
    (found,) = distances(one, zero)
    assert (found.relative_l2, found.cosine) == (1.0, None)
    (found,) = distances(one, one)
    assert (found.relative_l2, found.cosine) == (0.0, 1.0)


def test_nothing_is_hidden_by_nan():
    (found,) = distances({"w": torch.ones(2)}, {"w": torch.tensor([1.0, math.nan])})
    assert found.relative_l2 is not None
    assert math.isnan(found.relative_l2)
    assert found.cosine is not None
    assert math.isnan(found.cosine)


def test_only_shared_floats_of_one_shape_are_measured():
    first = {
        "w": torch.ones(2),
        "v": torch.ones(2),
        "ids": torch.arange(2),
        "mine": torch.ones(1),
    }
    other = {"w": torch.ones(2, dtype=torch.bfloat16), "v": torch.ones(3), "ids": torch.arange(2)}
    assert [found.name for found in distances(first, other)] == ["w"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_chunks_give_what_the_whole_gives(monkeypatch, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(37, 11, generator=generator).to(dtype)
    y = (x + 0.01 * torch.randn(37, 11, generator=generator)).to(dtype)
    monkeypatch.setattr(distance, "_RUN", 50)
    (found,) = distances({"w": x}, {"w": y})
    exact_x, exact_y = x.double().flatten(), y.double().flatten()
    assert found.relative_l2 == pytest.approx(
        float((exact_y - exact_x).norm() / exact_x.norm()), rel=1e-6
    )
    cosine = torch.nn.functional.cosine_similarity(exact_x, exact_y, dim=0)
    assert found.cosine == pytest.approx(float(cosine), rel=1e-6)


def test_long_sums_lose_nothing():
    """In float32 a sum of squares of 0.001 stands still long before its end."""
    n = 2_000_000
    (found,) = distances({"w": torch.full((n,), 1.0)}, {"w": torch.full((n,), 1.001)})
    step = float(torch.tensor(1.001)) - 1.0
    assert found.relative_l2 == pytest.approx(step, rel=1e-6)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20), st.floats(0.1, 10))
def test_laws(values, scale):
    x = torch.tensor(values, dtype=torch.float64)
    (found,) = distances({"w": x}, {"w": scale * x})
    if found.first > 1e-100:
        assert found.relative_l2 == pytest.approx(abs(scale - 1), abs=1e-9)
        assert found.cosine == pytest.approx(1.0)
        assert -1 <= found.cosine <= 1


def test_reading_is_reported():
    seen = []
    model = {"a": torch.ones(3), "b": torch.ones(5)}
    distances(model, model, lambda done, total: seen.append((done, total)))
    assert seen == [(3, 8), (8, 8)]


BERT = {
    "bert.embeddings.word_embeddings.weight": ModuleAt(None, "embeddings.word_embeddings"),
    "bert.encoder.layer.0.attention.self.query.weight": ModuleAt(0, "attention.self.query"),
    "bert.encoder.layer.0.attention.self.query.bias": ModuleAt(0, "attention.self.query"),
    "bert.encoder.layer.11.output.dense.weight": ModuleAt(11, "output.dense"),
    "bert.pooler.dense.weight": ModuleAt(None, "pooler.dense"),
    "classifier.weight": ModuleAt(None, "classifier"),
}
LLAMA = {
    "model.embed_tokens.weight": ModuleAt(None, "embed_tokens"),
    "model.layers.3.mlp.experts.7.w1.weight": ModuleAt(3, "mlp.experts.7.w1"),
    "model.norm.weight": ModuleAt(None, "norm"),
    "lm_head.weight": ModuleAt(None, "lm_head"),
}
T5 = {
    "encoder.block.0.layer.0.SelfAttention.q.weight": ModuleAt(
        0, "encoder.block: layer.0.SelfAttention.q"
    ),
    "decoder.block.0.layer.0.SelfAttention.q.weight": ModuleAt(
        0, "decoder.block: layer.0.SelfAttention.q"
    ),
    "encoder.final_layer_norm.weight": ModuleAt(None, "encoder.final_layer_norm"),
}
HEAD = {
    "h.1.attn.c_attn.weight": ModuleAt(1, "attn.c_attn"),
    "classifier.2.weight": ModuleAt(None, "classifier.2"),  # a list, but not of layers
    "scale": ModuleAt(None, "scale"),
}
ALBERT = {
    "albert.encoder.albert_layer_groups.0.ffn.weight": ModuleAt(0, "ffn"),
    "albert.pooler.weight": ModuleAt(None, "pooler"),
}


@pytest.mark.parametrize(
    "expected", [BERT, LLAMA, T5, HEAD, ALBERT, {"w": ModuleAt(None, "w")}, {}]
)
def test_parts_are_told_from_names(expected):
    assert modules_of(expected) == expected


def test_sums_over_layers_and_modules():
    first = {name: torch.full((2,), 2.0) for name in BERT}
    other = {name: torch.full((2,), 2.0 + i) for i, name in enumerate(BERT)}
    found = distances(first, other)
    modules, layers, cells = as_table(found)
    assert layers == [0, 11]
    assert modules == list(dict.fromkeys(part.module for part in BERT.values()))
    # Query: differences of 1 and of 2, two entries each, against entries of 2.
    query = cells[ModuleAt(0, "attention.self.query")]
    assert query.relative_l2 == pytest.approx(math.sqrt(2 * 1 + 2 * 4) / math.sqrt(4 * 4))
    assert query.tensors == 2
    by_layer = grouped(found, lambda part: part.layer)
    assert by_layer[11].relative_l2 == pytest.approx(3 / 2)
    total = combine(cells.values(), "all")
    assert total.difference == combine(found, "all").difference
    with pytest.raises(ValueError, match="no distances"):
        combine([], "all")


def test_old_names_of_a_bare_encoder():
    bare = {"embeddings.LayerNorm.gamma": torch.ones(1)}
    full = {"bert.embeddings.LayerNorm.weight": torch.ones(1), "classifier.weight": torch.ones(1)}
    for pair in ((full, bare), (bare, full)):
        (found,) = distances(*aligned(*pair))
        assert found.name == "bert.embeddings.LayerNorm.weight"
    assert aligned({"a": torch.ones(1)}, {"b": torch.ones(1)}) == (
        {"a": torch.ones(1)},
        {"b": torch.ones(1)},
    )
