"""A merge read piece by piece is the merge, bit for bit, whatever the pieces are."""

import pytest
import torch

from bdlit import merging
from bdlit.merging.audit import Audit
from bdlit.weights import in_pieces, pieces, save_weights
from bdlit.weights.files import SafetensorsWeights
from bdlit.weights.lazy import LazyWeights, on_device
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


def drawn(seed, kind):
    """Entries of all sizes, many of them equal or cancelling, with zeros of both signs."""
    entries = torch.randn(2000, generator=torch.Generator().manual_seed(seed))
    if kind == "ties":
        entries = (entries * 2).round() / 2
    entries[seed:2000:7] = -0.0
    return {"w": entries, "v": entries.flip(0)[:300].view(20, 15)}


@pytest.mark.parametrize("zero_sum", ["majority", "positive"])
@pytest.mark.parametrize("kind", ["ties", "smooth"])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_elected_mean_is_that_of_the_stack(count, kind, zero_sum):
    vectors = [drawn(seed, kind) for seed in range(count)]
    balance = sum(int(sum(v[n] for v in vectors).sign().sum()) for n in "wv")
    on_zero = 1.0 if zero_sum == "positive" or balance >= 0 else -1.0
    merged = merging.elect_and_average(vectors, zero_sum=zero_sum)
    for name in merged:
        deltas = torch.stack([vector[name] for vector in vectors])
        sign = sum(deltas).sign()  # one after the other, as stack.sum need not add
        sign[sign == 0] = on_zero
        agree = deltas * sign > 0
        expected = sum(torch.where(agree, deltas, 0.0)) / agree.sum(0).clamp(min=1)
        assert torch.equal(merged[name], expected)
        assert not (merged[name].signbit() & (merged[name] == 0)).any(), "a zero is +0"


@pytest.mark.parametrize("method", MERGES)
def test_torchs_threads_change_no_bit(method):
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            merged = MERGES[method](BASE, MODELS)
            found.append(({name: merged[name] for name in merged}, merged.notes))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    (one, notes), (many, others) = found
    assert notes == others
    assert all(torch.equal(one[name], many[name]) for name in one)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", MERGES)
def test_a_merge_on_the_device_is_the_merge(method, tmp_path):
    base, *others = (model(seed, torch.bfloat16) for seed in range(4))
    expected = dict(MERGES[method](base, others))
    merged = MERGES[method](base, [on_device(others[0], "cuda"), *others[1:]])
    write_shards(merged, tmp_path, {"model.safetensors": list(merged)}, workers=2)
    for name, tensor in SafetensorsWeights(tmp_path / "model.safetensors").items():
        assert torch.allclose(tensor.float(), expected[name].float(), rtol=2**-7)
