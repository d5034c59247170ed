"""State dicts of wrapped models open under the model's own names, in every form."""

import json

import pytest
import torch
from safetensors.torch import save_file

from bdlit.errors import BdlitError
from bdlit.inspection import inspect
from bdlit.weights import open_weights
from bdlit.weights.wrappers import model_names

MODEL = {
    "model.embed.weight": torch.randn(4, 2),
    "model.module_list.0.weight": torch.randn(2, 2),
    "score.weight": torch.randn(2, 2),
}
WRAPPED = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "DDP": lambda name: f"module.{name}",
    "DDP of compiled": lambda name: f"module._orig_mod.{name}",
    "compiled DDP": lambda name: f"_orig_mod.module.{name}",
    "FSDP": lambda name: f"_fsdp_wrapped_module.{name}".replace(
        "list.0.", "list.0._fsdp_wrapped_module."
    ),
    "compiled layers": lambda name: name.replace("list.0.", "list.0._orig_mod."),
    "checkpointed layers": lambda name: name.replace(
        "list.0.", "list.0._checkpoint_wrapped_module."
    ),
}
CONTENT = {
    "state dict": lambda state: state,
    "under model": lambda state: {"model": state, "epoch": 3},
    "under model_state_dict": lambda state: {
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {}},
    },
    "under module": lambda state: {"module": state, "global_step": 7},
}


def require_model(found):
    assert set(found) == set(MODEL)
    for name, tensor in MODEL.items():
        assert found[name].equal(tensor)


def wrapped(how):
    return {WRAPPED[how](name): tensor for name, tensor in MODEL.items()}


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.parametrize("content", CONTENT)
@pytest.mark.parametrize("suffix", [".pt", ".bin", ".pth"])
def test_pickles(tmp_path, how, content, suffix):
    torch.save(CONTENT[content](wrapped(how)), tmp_path / f"model{suffix}")
    require_model(open_weights(tmp_path / f"model{suffix}"))


@pytest.mark.parametrize("how", WRAPPED)
def test_lightning_checkpoints(tmp_path, how):
    state = {f"model.{name}": tensor for name, tensor in wrapped(how).items()}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "last.ckpt")
    require_model(open_weights(tmp_path / "last.ckpt"))


@pytest.mark.parametrize("how", WRAPPED)
def test_folders_and_files_of_safetensors(tmp_path, how):
    save_file(wrapped(how), tmp_path / "model.safetensors")
    require_model(open_weights(tmp_path))
    require_model(open_weights(tmp_path / "model.safetensors"))
    found = inspect(tmp_path)
    assert set(found.outlines) == set(MODEL)
    assert found.wrappers


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.parametrize("indexed", [True, False])
def test_pickled_shards(tmp_path, how, indexed):
    names = list(MODEL)
    files = {}
    for i, part in enumerate((names[:2], names[2:]), 1):
        file = f"pytorch_model-0000{i}-of-00002.bin"
        state = {WRAPPED[how](name): MODEL[name] for name in part}
        torch.save(state, tmp_path / file)
        files |= dict.fromkeys(state, file)
    if indexed:
        index = tmp_path / "pytorch_model.bin.index.json"
        index.write_text(json.dumps({"weight_map": files}))
        require_model(open_weights(index))
    require_model(open_weights(tmp_path))
    assert set(inspect(tmp_path).outlines) == set(MODEL)


def test_a_shard_that_is_missing_or_lists_too_much_is_told(tmp_path):
    index = tmp_path / "pytorch_model.bin.index.json"
    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    listed = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    index.write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(BdlitError, match=r"needs pytorch_model-00002-of-00002\.bin, which is miss"):
        open_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": dict.fromkeys("ab", listed["a"])}))
    with pytest.raises(BdlitError, match="lists 1 tensors that no shard holds, first b"):
        open_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../outside.bin"}}))
    with pytest.raises(BdlitError, match="points outside its folder"):
        open_weights(tmp_path)


def test_a_models_own_names_stay():
    """`model.` begins the names of decoders, and `module` may be a word of a name."""
    for name in MODEL:
        assert model_names(MODEL)[name] == name
    assert model_names(["module.a", "head"]) == {"module.a": "module.a", "head": "head"}


def test_names_that_become_one_are_told(tmp_path):
    torch.save({"_orig_mod.w": torch.ones(1), "w": torch.ones(1)}, tmp_path / "m.pt")
    with pytest.raises(BdlitError, match="two tensors are called w without"):
        open_weights(tmp_path / "m.pt")
