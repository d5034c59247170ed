"""Every form of checkpoint opens to the same mapping, and what is broken or hostile is refused."""

import json
import os
import pathlib

import pytest
import torch
from safetensors.torch import save_file

from bdlit.errors import BdlitError
from bdlit.weights import SafetensorsWeights, fingerprint, open_weights

STATE = {
    "encoder.weight": torch.arange(6.0).reshape(2, 3),
    "encoder.position_ids": torch.arange(4),
    "classifier.bias": torch.tensor([1.0, -1.0], dtype=torch.bfloat16),
}


def write_sharded(folder):
    names = list(STATE)
    shards = {"model-00001-of-00002.safetensors": names[:1]}
    shards["model-00002-of-00002.safetensors"] = names[1:]
    folder.mkdir(parents=True, exist_ok=True)
    for file, held in shards.items():
        save_file({name: STATE[name] for name in held}, folder / file)
    weight_map = {name: file for file, held in shards.items() for name in held}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def write_whole(folder):
    folder.mkdir(parents=True)
    save_file(STATE, folder / "model.safetensors")
    return folder


def write_pickle(name, content):
    def write(folder):
        folder.mkdir()
        torch.save(content, folder / name)
        return folder / name

    return write


def write_legacy(folder):
    folder.mkdir()
    torch.save(STATE, folder / "old.pt", _use_new_zipfile_serialization=False)
    return folder / "old.pt"


def write_bin_directory(folder):
    return write_pickle("pytorch_model.bin", STATE)(folder).parent


LIGHTNING = {
    "epoch": 3,
    "pytorch-lightning_version": "2.6.6",
    "hyper_parameters": {"lr": 2e-5, "labels": ["negative", "positive"]},
    "state_dict": {f"model.{name}": tensor for name, tensor in STATE.items()},
}

FORMS = {
    "directory": write_whole,
    "file": lambda folder: write_whole(folder) / "model.safetensors",
    "shards": lambda folder: write_sharded(folder).parent,
    "index": write_sharded,
    "bin": write_pickle("weights.bin", STATE),
    "pt": write_pickle("weights.pt", STATE),
    "bin directory": write_bin_directory,
    "before zip": write_legacy,
    "lightning": write_pickle("last.ckpt", LIGHTNING),
    "run": lambda folder: write_whole(folder / "model").parent,
    "study cell": lambda folder: write_sharded(folder / "victim").parent.parent,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("as_type", [str, pathlib.Path])
def test_every_form_opens_to_the_same_weights(form, as_type, tmp_path):
    weights = open_weights(as_type(FORMS[form](tmp_path / "it")))
    assert set(weights) == set(STATE)
    assert len(weights) == len(STATE)
    assert "absent" not in weights
    for name, tensor in STATE.items():
        assert weights[name].dtype == tensor.dtype
        assert torch.equal(weights[name], tensor)
    assert fingerprint(weights) == fingerprint(STATE)


def test_prefix_stays_where_not_all_names_have_it(tmp_path):
    state = {"model.w": torch.ones(1), "loss.weight": torch.ones(1)}
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    assert set(open_weights(tmp_path / "a.ckpt")) == set(state)


class Hostile:
    """An object whose unpickling leaves a file behind."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".bin", ".ckpt"])
def test_code_in_a_pickle_does_not_run(suffix, zipped, tmp_path):
    trace, file = tmp_path / "trace", tmp_path / f"hostile{suffix}"
    content = {"w": torch.ones(1), "x": Hostile(trace)}
    content = {"state_dict": content} if suffix == ".ckpt" else content
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        BdlitError, match=f"hostile{suffix} was not loaded.*mkdir.*safetensors"
    ) as e:
        open_weights(file)
    assert "\n" not in str(e.value)
    assert not trace.exists()
    torch.load(file, weights_only=False)  # the trap does work on those who fall for it
    assert trace.exists()


def truncate(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "nothing.safetensors", "there is no model"),
        (lambda d: d / "nothing", "there is no model"),
        (lambda d: d, "holds no model"),
        (lambda d: truncate(write_whole(d / "m") / "model.safetensors", 100), "cannot be read"),
        (lambda d: truncate(write_whole(d / "m") / "model.safetensors", -1), "cannot be read"),
        (lambda d: truncate(write_whole(d / "m") / "model.safetensors", 0), "cannot be read"),
        (lambda d: truncate(FORMS["bin"](d / "m"), 200), "cannot be read as a torch checkpoint"),
        (lambda d: truncate(FORMS["bin"](d / "m"), 0), "cannot be read as a torch checkpoint"),
        (lambda d: write_pickle("a.bin", [1, 2])(d / "m"), "holds no state dict"),
        (lambda d: write_pickle("a.bin", {})(d / "m"), "holds no state dict"),
        (lambda d: write_pickle("a.bin", {"w": 3})(d / "m"), "'w' is not a named tensor"),
        (lambda d: write_pickle("a.xyz", STATE)(d / "m"), "ends in '.xyz'"),
        (
            lambda d: write_pickle("a.bin", {"q.lora_A.weight": torch.ones(1)})(d / "m"),
            "LoRA factors",
        ),
    ],
)
def test_what_is_broken_is_told_in_one_line(make, message, tmp_path):
    path = make(tmp_path)
    with pytest.raises(BdlitError, match=message) as error:
        open_weights(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_adapter_directory_is_refused_by_name(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    save_file({"q.lora_A.weight": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BdlitError, match="is an adapter"):
        open_weights(tmp_path)


@pytest.mark.parametrize("where", ["../secret.safetensors", "/etc/secret", "..", "a\\b", "x/y"])
def test_index_may_not_leave_its_folder(where, tmp_path):
    save_file(STATE, tmp_path / "secret.safetensors")
    index = write_sharded(tmp_path / "model")
    content = json.loads(index.read_text())
    content["weight_map"]["classifier.bias"] = where
    index.write_text(json.dumps(content))
    with pytest.raises(BdlitError, match="points outside its folder"):
        open_weights(index.parent)


def test_index_with_a_missing_shard(tmp_path):
    index = write_sharded(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BdlitError, match=r"needs model-00002-of-00002\.safetensors"):
        open_weights(index)


def test_index_with_a_tensor_that_no_shard_holds(tmp_path):
    index = write_sharded(tmp_path)
    content = json.loads(index.read_text())
    content["weight_map"]["ghost"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(BdlitError, match="1 tensors that no shard holds, first ghost"):
        open_weights(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {"w": 3}}', '{"weight_map": 1}'])
def test_index_that_is_none(text, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(BdlitError, match="index of shards"):
        open_weights(tmp_path)


def test_slip_in_a_path_is_not_taken_for_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("runs").mkdir()
    with pytest.raises(BdlitError, match="there is no model at runs/badnt"):
        open_weights("runs/badnt")


def test_hub_id_is_read_from_the_cache_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0123456789012345678901234567890123456789"
    repo = tmp_path / "models--someone--victim"
    write_whole(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    assert fingerprint(open_weights("someone/victim")) == fingerprint(STATE)
    assert fingerprint(open_weights(f"someone/victim@{commit}")) == fingerprint(STATE)
    with pytest.raises(BdlitError, match="someone/else is neither a path here nor") as error:
        open_weights("someone/else")
    assert "\n" not in str(error.value)


def test_safetensors_are_read_on_access_only(tmp_path):
    weights = open_weights(write_whole(tmp_path / "m"))
    assert isinstance(weights, SafetensorsWeights)
    assert weights["encoder.weight"].data_ptr() != STATE["encoder.weight"].data_ptr()
    with pytest.raises(KeyError):
        weights["absent"]
    with pytest.raises(TypeError):
        weights["encoder.weight"] = torch.zeros(1)


def test_a_model_and_an_adapter_in_one_folder_are_not_guessed_between(tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BdlitError, match="holds a model and an adapter"):
        open_weights(tmp_path)
