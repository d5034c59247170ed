"""What goes along with a purified model: plain files by their names, and nothing that runs code."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from bdlit.attacks import BadNet
from bdlit.cli import main
from bdlit.data.demo import DemoReviews
from bdlit.errors import BdlitError
from bdlit.victims import ClassifierVictim
from bdlit.weights.checkpoint import open_checkpoint
from conftest import tiny_trainer

EVIL = {"AutoModel": "evil.Evil"}


def checkpoint(folder, config=None, **files):
    folder.mkdir()
    save_file({"w": torch.ones(2)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "bert"}))
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def carried(address, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    left = open_checkpoint(address).carry(out)
    return left, {path.name: path.read_text() for path in out.iterdir()}


def test_only_files_of_known_names_go_along(tmp_path):
    names = {"vocab.txt": "a", "tokenizer.json": "{}", "notes.txt": "mine", "passwords.json": "{}"}
    left, found = carried(checkpoint(tmp_path / "m", **names), tmp_path)
    assert set(found) == {"config.json", "vocab.txt", "tokenizer.json"}
    assert left == ["notes.txt", "passwords.json"]


@pytest.mark.parametrize("in_folder", [False, True])
def test_links_are_not_followed(tmp_path, in_folder):
    secret = tmp_path / "secret"
    secret.write_text('{"token": "mine"}')
    folder = checkpoint(tmp_path / "m")
    if in_folder:
        secret_folder = tmp_path / "elsewhere"
        secret_folder.mkdir()
        (secret_folder / "vocab.json").write_text('{"token": "mine"}')
        (folder / "vocab.json").symlink_to(secret_folder / "vocab.json")
    else:
        (folder / "vocab.json").symlink_to(secret)
    left, found = carried(folder, tmp_path)
    assert left == ["vocab.json, a link"]
    assert "mine" not in str(found)


def test_links_of_the_hubs_cache_are_its_own_files(tmp_path):
    repository = tmp_path / "models--owner--name"
    (repository / "blobs").mkdir(parents=True)
    (repository / "snapshots").mkdir()
    folder = checkpoint(repository / "snapshots" / "abc")
    (repository / "blobs" / "1234").write_text("word")
    (folder / "vocab.txt").symlink_to(os.path.join("..", "..", "blobs", "1234"))
    left, found = carried(folder, tmp_path)
    assert left == []
    assert found["vocab.txt"] == "word"


@pytest.mark.parametrize(
    ("settings", "told", "kept"),
    [
        ({"auto_map": EVIL}, "auto_map", {}),
        ({"text_config": {"auto_map": EVIL, "a": 1}}, "auto_map", {"text_config": {"a": 1}}),
        ({"towers": [{"auto_map": EVIL}]}, "auto_map", {"towers": [{}]}),
        ({"trust_remote_code": True}, "trust_remote_code", {}),
        ({"x": {"y": [{"trust_remote_code": 1}]}}, "trust_remote_code", {"x": {"y": [{}]}}),
        ({"custom_pipelines": {"p": {"impl": "evil.P"}}}, "custom_pipelines", {}),
        ({"attn_implementation": "evil/kernel"}, "attn_implementation", {}),
        ({"vision": {"_attn_implementation": "a/b"}}, "_attn_implementation", {"vision": {}}),
    ],
)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_settings_that_run_code_are_left_behind_at_any_depth(tmp_path, settings, told, kept, file):
    folder = checkpoint(tmp_path / "m")
    (folder / file).write_text(json.dumps({"model_type": "bert", **settings}))
    left, found = carried(folder, tmp_path)
    assert left == [f"{told} of {file}"]
    assert json.loads(found[file]) == {"model_type": "bert", **kept}


def test_what_lies_deeper_than_anyone_looks_is_left_behind(tmp_path):
    settings = {"auto_map": EVIL}
    for _ in range(60):
        settings = {"auto": settings, "auto_map": EVIL}
    folder = checkpoint(tmp_path / "m", config=settings)
    _, found = carried(folder, tmp_path)
    assert "evil" not in found["config.json"]


def test_harmless_settings_stay_byte_for_byte(tmp_path):
    text = '{"model_type":   "bert", "trust_remote_code": false,\n "attn_implementation": "sdpa"}'
    folder = checkpoint(tmp_path / "m")
    (folder / "config.json").write_text(text)
    left, found = carried(folder, tmp_path)
    assert (left, found["config.json"]) == ([], text)


def lightning(folder, **said):
    path = folder / "last.ckpt"
    config = json.dumps({"model_type": "bert", "nested": {"auto_map": EVIL}})
    torch.save(
        {"state_dict": {"model.w": torch.ones(1)}, "bdlit_config": config, **said},
        path,
    )
    return path


def test_a_path_that_a_checkpoint_names_is_not_followed(tmp_path):
    private = checkpoint(tmp_path / "private", **{"vocab.txt": "mine", "tokenizer.json": "{}"})
    path = lightning(tmp_path, bdlit_tokenizer=str(private))
    left, found = carried(path, tmp_path)
    assert set(found) == {"config.json"}
    assert json.loads(found["config.json"]) == {"model_type": "bert", "nested": {}}
    assert left[0] == "auto_map of the checkpoint's config"
    assert f"its tokenizer, which it names by a path ({private})" in left[1]


def test_files_that_a_checkpoint_brings_have_names_of_a_tokenizer(tmp_path):
    brought = {"vocab.txt": "a", "../evil.txt": "x", "evil.py": "x", "config.json": "{}"}
    _, found = carried(lightning(tmp_path, bdlit_tokenizer_files=brought), tmp_path)
    assert set(found) == {"config.json", "vocab.txt"}
    assert not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize(
    "said",
    [{"bdlit_config": "[1]"}, {"bdlit_config": 3}, {"bdlit_config": "{"}, {"bdlit_tokenizer": [1]}],
)
def test_a_checkpoint_that_says_something_else_is_refused(tmp_path, said):
    with pytest.raises(BdlitError, match="in a form that bdlit never writes"):
        open_checkpoint(lightning(tmp_path, **said))


def test_a_checkpoint_of_ours_brings_its_tokenizer(tiny_start, tmp_path):
    victim = ClassifierVictim(str(tiny_start), max_length=64)
    data = DemoReviews(train_size=32, validation_size=0, test_size=8, attack=BadNet())
    trainer = tiny_trainer(tmp_path, max_steps=1)
    trainer.fit(victim, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    command = ["merge", f"--suspect={tmp_path / 'last.ckpt'}", f"--others=[{tiny_start}]"]
    assert main([*command, "--defense=WAG", f"--out={tmp_path / 'out'}"]) == 0
    again = ClassifierVictim(str(tmp_path / "out"), max_length=64)
    own = again.load_tokenizer()
    assert own("a fine film")["input_ids"] == victim.tokenizer("a fine film")["input_ids"]
