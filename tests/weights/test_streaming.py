"""Shards hold what the library would have written, whole or not at all, however they are made."""

import contextlib
import json
import threading

import pytest
import torch
from safetensors.torch import load_file

from bdlit.weights import LazyWeights, open_weights
from bdlit.weights.streaming import INDEX, shard_layout, write_shards

WEIGHTS = {
    "flags": torch.tensor([True, False, True]),
    "embeddings.weight": torch.randn(7, 3, generator=torch.Generator().manual_seed(0)),
    "count": torch.tensor(5),
    "half": torch.arange(5, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
    "double": torch.arange(3, dtype=torch.float64),
}
LAYOUT = {"b.safetensors": ["half", "flags", "count"], "a.safetensors": ["embeddings.weight"]}
LAYOUT["c.safetensors"] = ["empty", "double"]


def same(left, right):
    return list(sorted(left)) == sorted(right) and all(
        left[n].dtype == right[n].dtype and torch.equal(left[n], right[n]) for n in left
    )


def test_one_file_is_read_by_the_library(tmp_path):
    write_shards(WEIGHTS, tmp_path, shard_layout(WEIGHTS))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert same(load_file(tmp_path / "model.safetensors"), WEIGHTS)


def test_shards_hold_what_the_layout_says_and_open_as_one(tmp_path):
    write_shards(WEIGHTS, tmp_path, LAYOUT)
    for file, names in LAYOUT.items():
        assert set(load_file(tmp_path / file)) == set(names)
    assert same(dict(open_weights(tmp_path / INDEX)), WEIGHTS)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in WEIGHTS.values())
    assert index["weight_map"]["double"] == "c.safetensors"


@pytest.mark.parametrize("workers", [2, 5])
def test_threads_change_no_byte(workers, tmp_path):
    for count in (1, workers):
        (tmp_path / str(count)).mkdir()
        write_shards(WEIGHTS, tmp_path / str(count), LAYOUT, workers=count)
    for file in [*LAYOUT, INDEX]:
        one, many = (tmp_path / str(count) / file for count in (1, workers))
        assert one.read_bytes() == many.read_bytes()


def test_shards_that_stand_are_not_computed_again(tmp_path):
    write_shards(WEIGHTS, tmp_path, LAYOUT)
    (tmp_path / "a.safetensors").unlink()
    asked = []

    def counted(name):
        asked.append(name)
        return WEIGHTS[name]

    lazy = LazyWeights(
        {name: lambda name=name: counted(name) for name in WEIGHTS},
        outline=lambda name: shape_of(WEIGHTS[name]),
    )
    stood = []
    write_shards(lazy, tmp_path, LAYOUT, finished=stood.append)
    assert asked == ["embeddings.weight"]
    assert stood == list(LAYOUT)
    assert same(dict(open_weights(tmp_path / INDEX)), WEIGHTS)


def shape_of(tensor):
    from bdlit.weights import Outline

    return Outline(tensor.shape, tensor.dtype)


def test_an_error_leaves_no_part_of_a_shard(tmp_path):
    def broken():
        raise ValueError("no tensor")

    lazy = LazyWeights(
        {"half": lambda: WEIGHTS["half"], "flags": broken},
        outline=lambda name: shape_of(WEIGHTS[name]),
    )
    with pytest.raises(ValueError, match="no tensor"):
        write_shards(lazy, tmp_path, {"one.safetensors": ["half"], "two.safetensors": ["flags"]})
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]


def test_no_more_is_at_work_than_the_largest_tensor(tmp_path, monkeypatch):
    """With eight threads and no allowance, two large tensors are never computed together."""
    monkeypatch.setattr("bdlit.weights.threads._LEAST_AT_WORK", 0)
    at_work, most, lock = [0], [0], threading.Lock()
    meeting = threading.Barrier(2)

    def large():
        with lock:
            at_work[0] += 100
            most[0] = max(most[0], at_work[0])
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(timeout=0.1)  # whoever meets another here is one too many
        with lock:
            at_work[0] -= 100
        return torch.zeros(100)

    lazy = LazyWeights(
        {f"w{i}": large for i in range(4)}, outline=lambda name: shape_of(torch.zeros(100))
    )
    write_shards(lazy, tmp_path, {"model.safetensors": list(lazy)}, workers=8)
    assert most[0] == 100


def test_layout_cuts_at_the_limit():
    layout = shard_layout({f"w{i}": torch.zeros(3) for i in range(5)}, limit=24)
    assert list(layout.values()) == [["w0", "w1"], ["w2", "w3"], ["w4"]]
    assert list(layout)[-1] == "model-00003-of-00003.safetensors"
