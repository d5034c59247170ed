"""A merge read piece by piece is the merge, bit for bit, whatever the pieces are."""

import pytest
import torch

from bdlit import merging
from bdlit.merging.audit import Audit
from bdlit.weights import in_pieces, pieces, save_weights
from bdlit.weights.files import SafetensorsWeights
from bdlit.weights.lazy import LazyWeights
from bdlit.weights.streaming import write_shards


def model(seed, dtype=torch.float32):
    drawn = torch.Generator().manual_seed(seed)
    shapes = {"embed": (37, 11), "layers.0.q.weight": (16, 9), "layers.1.q.weight": (16, 9)}
    weights = {name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()}
    weights = {name: (tensor * 4).round() / 4 for name, tensor in weights.items()}  # with ties
    weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    return {**weights, "scale": torch.tensor(2.0 + seed), "ids": torch.arange(50)}


BASE, *MODELS = (model(seed) for seed in range(4))
MERGES = {
    "average": lambda base, models: merging.average(models, [1.0, 2.0, 0.5]),
    "task arithmetic": lambda base, models: merging.task_arithmetic(base, models, 0.3),
    "TIES, model": lambda base, models: merging.ties(base, models, density=0.3),
    "TIES, tensor": lambda base, models: merging.ties(base, models, density=0.3, trim="tensor"),
    "DARE": lambda base, models: merging.dare(base, models, drop=0.6, seed=3),
    "DARE-TIES": lambda base, models: merging.dare(base, models, drop=0.6, seed=3, merge="ties"),
    "SLERP": lambda base, models: merging.slerp(*models[:2], t=0.3),
    "Fisher": lambda base, models: merging.fisher_average(
        models, [{n: t.abs().float() for n, t in m.items()} for m in models]
    ),
    "passthrough": lambda base, models: merging.passthrough(models, [(1, 1), (0, 0), (2, 1)]),
    "substitution": lambda base, models: merging.substitute(
        models[0], models[1], merging.grid(["q"], [1])
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", MERGES)
def test_pieces_of_a_merge_are_the_merge(method, dtype, tmp_path, monkeypatch):
    models = [model(seed, dtype) for seed in range(4)]
    before = [{name: tensor.clone() for name, tensor in each.items()} for each in models]
    base, *others = models
    expected = dict(MERGES[method](base, others))
    files = []
    for i, each in enumerate(models):
        files.append(SafetensorsWeights(save_weights(each, tmp_path / f"{i}.safetensors")))
    monkeypatch.setattr("bdlit.weights.reading.PIECE", 48)
    for sources in (models, files):
        merged = MERGES[method](sources[0], sources[1:])
        for name, whole in expected.items():
            flat = torch.cat(list(in_pieces(merged, name)))
            assert flat.dtype == whole.dtype
            assert torch.equal(flat, whole.reshape(-1)), name
    for left, right in zip(models, before, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in left), "a model was changed"


def test_what_is_written_piece_by_piece_is_the_merge(tmp_path, monkeypatch):
    expected = dict(merging.average(MODELS))
    monkeypatch.setattr("bdlit.weights.reading.PIECE", 48)
    audit = Audit(MODELS[0], {"two": MODELS[1]})
    layout = {"model.safetensors": list(expected)}
    write_shards(merging.average(MODELS), tmp_path, layout, workers=3, seen=audit)
    written = SafetensorsWeights(tmp_path / "model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())
    whole = Audit(MODELS[0], {"two": MODELS[1]})
    for name, tensor in expected.items():
        whole(name, tensor)
    assert audit.report()["changed"] == whole.report()["changed"]
    for parent, distance in whole.report()["distance"].items():
        assert audit.report()["distance"][parent] == pytest.approx(distance, rel=1e-6)


def test_a_tensor_that_cannot_be_cut_is_computed_once(monkeypatch):
    asked = []
    lazy = LazyWeights({"w": lambda: asked.append("w") or torch.arange(10.0)})
    waited = []
    monkeypatch.setattr("bdlit.weights.reading.PIECE", 4)
    merged = merging.average([lazy, {"w": torch.zeros(10)}])
    asked.clear()  # shapes were looked at
    cut = [read(merged, "w") for read in pieces(10, lambda: waited.append("w"))]
    assert torch.equal(torch.cat(cut), torch.arange(10.0) / 2)
    assert asked == ["w"]
    assert waited == ["w"]


def test_a_file_is_read_where_the_piece_is(tmp_path):
    path = save_weights({"a": torch.arange(3), "w": torch.arange(12.0).view(3, 4)}, tmp_path)
    file = SafetensorsWeights(path)
    assert file.piece("w", 5, 9).tolist() == [5, 6, 7, 8]
    assert file.piece("w", 12, 12).tolist() == []
