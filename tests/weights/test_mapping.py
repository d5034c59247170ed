"""Saving, hashing, composing and comparing weights."""

import resource

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from bdlit.errors import BdlitError
from bdlit.weights import (
    LazyWeights,
    align_names,
    fingerprint,
    open_weights,
    overlay,
    require_compatible,
    save_weights,
    select,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool]


@st.composite
def states(draw):
    names = draw(st.lists(st.text("abc.", min_size=1, max_size=5), min_size=1, unique=True))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    return {
        name: (
            torch.randn(draw(st.lists(st.integers(0, 3), max_size=3)), generator=generator) * 9
        ).to(draw(st.sampled_from(DTYPES)))
        for name in names
    }


@settings(deadline=None, max_examples=50)
@given(states())
def test_saved_weights_come_back_bit_for_bit(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("saved")
    lazy = LazyWeights({name: (lambda t=tensor: t) for name, tensor in state.items()})
    save_weights(lazy, folder)
    back = open_weights(folder)
    assert set(back) == set(state)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        assert torch.equal(back[name], tensor)
    assert fingerprint(back) == fingerprint(state)


def test_metadata_and_target_file(tmp_path):
    path = save_weights({"w": torch.ones(2)}, tmp_path / "x.safetensors", metadata={"by": "WAG"})
    assert path == tmp_path / "x.safetensors"
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "by": "WAG"}


def test_tied_sliced_and_transposed_tensors_are_saved(tmp_path):
    w = torch.arange(6.0).reshape(2, 3)
    state = {"w": w, "tied": w, "slice": w[:, 1], "transposed": w.T}
    saved = load_file(save_weights(state, tmp_path))
    assert all(torch.equal(saved[name], tensor) for name, tensor in state.items())


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    save_weights({"w": torch.ones(2)}, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(BdlitError, match=r"cannot write .*model\.safetensors"):
            save_weights({"w": torch.zeros(100_000)}, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert torch.equal(open_weights(tmp_path)["w"], torch.ones(2))


def test_failure_while_computing_leaves_nothing(tmp_path):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_weights(LazyWeights({"w": fail}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_can_be_saved_over_the_file_it_is_read_from(tmp_path):
    save_weights({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path)
    save_weights(open_weights(tmp_path), tmp_path)
    assert torch.equal(open_weights(tmp_path)["b"], torch.ones(2))


def test_fingerprint_sees_content_and_not_order():
    state = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}
    same = fingerprint(state)
    assert fingerprint(dict(reversed(state.items()))) == same
    assert fingerprint({**state, "a": torch.tensor([1.0, 2.0], requires_grad=True)}) == same
    others = [
        {**state, "a": torch.tensor([1.0, -2.0])},
        {**state, "a": torch.tensor([[1.0, 2.0]])},
        {**state, "a": torch.tensor([1.0, 2.0]).view(torch.int32)},
        {"b": state["a"], "a": state["b"]},
        {"a": state["a"]},
    ]
    assert len({same, *map(fingerprint, others)}) == 6


def test_lazy_weights_compute_on_access_and_keep_nothing():
    calls = []
    weights = LazyWeights({"a": lambda: calls.append("a") or torch.ones(1)})
    assert "a" in weights
    assert list(weights) == ["a"]
    assert not calls
    assert weights["a"] is not weights["a"]
    assert calls == ["a", "a"]


def test_select_and_overlay_are_lazy_and_keep_order():
    under = {"a": torch.zeros(1), "b": torch.zeros(1)}
    over = LazyWeights({"b": lambda: torch.ones(1), "c": lambda: pytest.fail("was computed")})
    both = overlay(under, over)
    assert list(both) == ["a", "b"]
    assert [both[name].item() for name in both] == [0.0, 1.0]
    assert list(select(under, ["b", "a"])) == ["b", "a"]


def test_align_names_finds_bare_and_old_spellings():
    suspect = dict.fromkeys(
        ["bert.layer.weight", "bert.LayerNorm.weight", "bert.LayerNorm.bias", "classifier.weight"],
        torch.zeros(1),
    )
    base = {
        "layer.weight": torch.tensor([1.0]),
        "LayerNorm.gamma": torch.tensor([2.0]),
        "bert.LayerNorm.beta": torch.tensor([3.0]),
        "cls.predictions.bias": torch.tensor([4.0]),
    }
    aligned = align_names(base, suspect)
    assert {name: tensor.item() for name, tensor in aligned.items()} == {
        "bert.layer.weight": 1.0,
        "bert.LayerNorm.weight": 2.0,
        "bert.LayerNorm.bias": 3.0,
    }


SUSPECT = {
    "bert.embeddings.word_embeddings.weight": torch.zeros(5, 2),
    "layer.weight": torch.zeros(2, 2),
    "position_ids": torch.arange(3),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"bert.embeddings.word_embeddings.weight": torch.zeros(6, 2)},
            r"other 2 .*word_embeddings.weight \[6, 2\], not \[5, 2\].*another vocabulary",
        ),
        ({"layer.weight": torch.zeros(2, 3)}, r"1 of another shape .*one architecture"),
        ({"layer.weight": torch.zeros(2, 2, dtype=torch.int8)}, "1 not floating point"),
        ({"extra.weight": torch.zeros(1)}, r"1 too many \(extra.weight\)"),
        ({f"extra.{i}": torch.zeros(1) for i in range(9)}, r"9 too many \(.*, \.\.\.\)"),
        ({"layer.weight": None}, r"1 missing \(layer.weight\)"),
    ],
)
def test_models_that_do_not_fit_are_refused(change, message):
    other = {name: tensor for name, tensor in {**SUSPECT, **change}.items() if tensor is not None}
    with pytest.raises(BdlitError, match=message) as error:
        require_compatible(SUSPECT, [SUSPECT, other])
    assert "\n" not in str(error.value)


def test_integer_buffers_may_come_and_go():
    other = {name: SUSPECT[name] for name in list(SUSPECT)[:2]}
    require_compatible(SUSPECT, [other])
    require_compatible(other, [SUSPECT])


def test_only_the_named_tensors_need_to_agree():
    other = {**SUSPECT, "layer.weight": torch.zeros(3), "more": torch.zeros(1)}
    require_compatible(SUSPECT, [other], ["bert.embeddings.word_embeddings.weight"])
    with pytest.raises(BdlitError, match="the base does not fit"):
        require_compatible(SUSPECT, [other], ["layer.weight"], labels=["the base"])
