"""Saved models are merged as the same models in memory are, and what comes out is whole."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from bdlit import merging
from bdlit.defenses import DARE, SLERP, TIES, WAG
from bdlit.defenses.base import Defended, Defense
from bdlit.errors import BdlitError
from bdlit.purification import Matching, Writing, hold, open_suspect, purify, verify
from bdlit.purification.label_order import in_label_order
from bdlit.weights import open_weights
from bdlit.weights.checkpoint import open_checkpoint
from conftest import TINY

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"good bad film the was a".split()]


def saved_model(folder, seed, *, labels=("negative", "positive"), words=WORDS, **options):
    """A tiny BERT classifier with a tokenizer, as a Hugging Face directory."""
    torch.manual_seed(seed)
    names = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
    config = AutoConfig.for_model(**{**TINY, "vocab_size": len(words), **names})
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder, **options)
    from transformers import BertTokenizer

    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return [saved_model(root / f"m{seed}", seed, max_shard_size="20KB") for seed in range(3)]


def purified(models, out, defense=None, writing=None, base=None, **matching):
    address, *others = map(str, models)
    suspect, defense = open_suspect(address), defense or WAG()
    held = hold(suspect, defense, others=others, base=base, matching=Matching(**matching))
    return purify(suspect, defense, held, out=out, writing=writing).origin


def test_the_result_is_the_merge_in_memory_in_the_suspects_form(models, tmp_path):
    before = {path: path.read_bytes() for path in models[0].iterdir()}
    origin = purified(models, tmp_path / "out", writing=Writing(workers=3, check=verify))
    expected = merging.average([dict(open_weights(m)) for m in models])
    found = open_weights(tmp_path / "out")
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)

    written = {path.name for path in (tmp_path / "out").iterdir()}
    carried = {path.name for path in models[0].iterdir()}
    assert len([name for name in written if name.endswith(".safetensors")]) > 1
    assert written == carried | {"provenance.json", "README.md"}
    assert before == {path: path.read_bytes() for path in models[0].iterdir()}

    assert json.loads((tmp_path / "out" / "provenance.json").read_text()) == origin
    assert origin["given"]["others"][0]["name"] == str(models[1])
    own = open_weights(models[0])
    assert origin["notes"]["changed"] == sum(not torch.equal(found[n], own[n]) for n in found)
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nbase_model:\n")
    assert "Nothing: no data was given" in card


def test_one_file_stays_one_file(tmp_path):
    models = [saved_model(tmp_path / f"m{i}", i) for i in range(2)]
    purified(models, tmp_path / "out", SLERP())
    names = [path.name for path in (tmp_path / "out").glob("*.safetensors*")]
    assert names == ["model.safetensors"]


def test_nothing_that_runs_code_is_carried_along(tmp_path):
    models = [saved_model(tmp_path / f"m{i}", i) for i in range(2)]
    config = json.loads((models[0] / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Evil"}
    (models[0] / "config.json").write_text(json.dumps(config))
    (models[0] / "evil.py").write_text("raise SystemExit")
    origin = purified(models, tmp_path / "out")
    assert origin["left_behind"] == ["auto_map of config.json", "evil.py"]
    assert not (tmp_path / "out" / "evil.py").exists()
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_bare_weights_are_merged_without_a_config(tmp_path):
    for i in range(2):
        save_file({"w": torch.full((2,), float(i))}, tmp_path / f"m{i}.safetensors")
    files = [tmp_path / "m0.safetensors", tmp_path / "m1.safetensors"]
    purified(files, tmp_path / "out")
    assert open_weights(tmp_path / "out")["w"].tolist() == [0.5, 0.5]


def test_tied_tensors_of_a_state_dict_are_one_again(tmp_path):
    for i in range(3):
        tensor = torch.randn(50, generator=torch.Generator().manual_seed(i))
        torch.save({"embed.weight": tensor, "lm_head.weight": tensor}, tmp_path / f"m{i}.bin")
    suspect, other, base = (tmp_path / f"m{i}.bin" for i in range(3))
    purified([suspect, other], tmp_path / "out", DARE(drop=0.5), base=str(base))
    found = open_weights(tmp_path / "out")
    assert torch.equal(found["embed.weight"], found["lm_head.weight"])


def test_permuted_labels_are_refused_or_brought_into_order(tmp_path):
    suspect = saved_model(tmp_path / "s", 0)
    other = saved_model(tmp_path / "o", 1, labels=("Positive", "Negative"))
    with pytest.raises(BdlitError, match=r"order.*labels=permute"):
        purified([suspect, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    opened = [open_checkpoint(folder) for folder in (suspect, other)]
    ordered = in_label_order(opened[0].labels, opened[1], "permute")
    own = opened[1].weights
    for name in own:
        flipped = own[name].flip(0) if name.startswith("classifier.") else own[name]
        assert torch.equal(ordered[name], flipped)
    assert in_label_order(opened[0].labels, opened[1], "ignore") is own


def test_other_labels_are_refused(tmp_path):
    models = [saved_model(tmp_path / "s", 0), saved_model(tmp_path / "o", 1, labels=("rude", "ok"))]
    with pytest.raises(BdlitError, match=r"has classes .*rude.*labels=ignore"):
        purified(models, tmp_path / "out")
    purified(models, tmp_path / "out", labels="ignore")


def test_another_vocabulary_is_refused(tmp_path):
    words = [*WORDS[:-1], "an"]
    models = [saved_model(tmp_path / "s", 0), saved_model(tmp_path / "o", 1, words=words)]
    with pytest.raises(BdlitError, match=r"another vocabulary.*token 10 is 'an' there, 'a' here"):
        purified(models, tmp_path / "out")


def test_heads_of_other_sizes_are_kept_on_request(tmp_path):
    suspect = saved_model(tmp_path / "s", 0)
    other = saved_model(tmp_path / "o", 1, labels=("world", "sport", "business"))
    with pytest.raises(BdlitError, match="of another shape"):
        purified([suspect, other], tmp_path / "no")
    origin = purified([suspect, other], tmp_path / "out", differences="keep_suspect")
    assert set(origin["copied"]) == {"classifier.weight", "classifier.bias"}
    found, own = open_weights(tmp_path / "out"), open_weights(suspect)
    assert torch.equal(found["classifier.weight"], own["classifier.weight"])
    name = "bert.pooler.dense.weight"
    assert torch.allclose(found[name], (own[name] + open_weights(other)[name]) / 2)


def test_a_broken_parent_leaves_nothing(models, tmp_path):
    broken = dict(open_weights(models[1]))
    broken["bert.pooler.dense.bias"] = torch.full_like(broken["bert.pooler.dense.bias"], torch.nan)
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(BdlitError, match=r"NaN or infinity in 1 tensors, first bert\.pooler"):
        purified([models[0], tmp_path / "broken.safetensors"], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.safetensors"]


@dataclass(frozen=True, kw_only=True)
class Untouched(Defense):
    """Change nothing."""

    def apply(self, suspect, *, others):
        return Defended(weights=suspect, merged=[], copied=list(suspect))


def test_a_defense_that_changed_nothing_says_so(models, tmp_path, capsys):
    from bdlit.cli.writing import show_written

    origin = purified(models, tmp_path / "out", Untouched())
    assert origin["notes"]["changed"] == 0
    show_written(tmp_path / "out", origin)
    assert "nothing changed" in capsys.readouterr().out


KILLED = """
import sys, time
from pathlib import Path
from bdlit import WAG, hold, open_suspect, purify
from bdlit.purification import write

address, other, out = sys.argv[1:]
written = write._replace
def slow(path, text):
    written(path, text)
    print("shard", flush=True)
    time.sleep(60)
write._replace = slow
suspect = open_suspect(address)
purify(suspect, WAG(), hold(suspect, WAG(), others=[other]), out=Path(out))
"""


def test_a_killed_run_leaves_nothing_under_the_name_and_is_continued(models, tmp_path):
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", KILLED, str(models[0]), str(models[1]), str(out)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "shard\n"
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    (first,) = (tmp_path / ".out.part").glob("*.safetensors")
    inode, content = first.stat().st_ino, first.read_bytes()

    purified(models[:2], out)
    assert (out / first.name).stat().st_ino == inode
    assert (out / first.name).read_bytes() == content
    purified(models[:2], tmp_path / "whole")
    notes = [
        json.loads((f / "provenance.json").read_text())["notes"] for f in (out, tmp_path / "whole")
    ]
    assert notes[0] == notes[1]
    for file in (tmp_path / "whole").glob("*.safetensors"):
        assert file.read_bytes() == (out / file.name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_what_another_run_left_is_not_taken_up(models, tmp_path):
    interrupted = tmp_path / ".out.part"
    interrupted.mkdir()
    (interrupted / ".identity.json").write_text("{}")
    (interrupted / "model-00001-of-00009.safetensors").write_bytes(b"old")
    purified(models, tmp_path / "out")
    assert not (tmp_path / "out" / "model-00001-of-00009.safetensors").exists()


def test_two_runs_do_not_write_one_folder(models, tmp_path):
    from bdlit.atomic import resumable_directory

    with (
        resumable_directory(tmp_path / "out", {}),
        pytest.raises(BdlitError, match="being written by another process"),
    ):
        purified(models, tmp_path / "out")


def test_needed_resources_and_folders_are_told(models, tmp_path):
    other = str(saved_model(tmp_path / "base", 9, words=[*WORDS, "more"]))
    with pytest.raises(BdlitError, match=r"base has another vocabulary .*token 11 is 'more' there"):
        purified(models, tmp_path / "out", TIES(), base=other)
    shallow = {"bert.pooler.dense.bias": torch.zeros(32)}
    save_file(shallow, tmp_path / "bare.safetensors")
    with pytest.raises(BdlitError, match="the base does not fit the suspect"):
        purified(models, tmp_path / "out", TIES(), base=str(tmp_path / "bare.safetensors"))
    (tmp_path / "full").mkdir()
    with pytest.raises(BdlitError, match="full exists already"):
        purified(models, tmp_path / "full")
