from __future__ import annotations

import gzip
import hashlib
import importlib
import json
import os

import pytest

from bdlit.attacks import BadNet, InsertSent, Mixture, ParaphraseTable, Syntactic
from bdlit.data.poisoned_file import manifest_of, manifest_path, read_poisoned, save_poisoned
from bdlit.errors import BdlitError
from bdlit.tables import read_rows
from bdlit.types import Example

LABELS = ["bad", "good"]
ROWS = [Example(f"text {i}", i % 2, text_pair="pair" if i < 5 else None) for i in range(20)]


def poison(attack, seed=3, source="twenty rows"):
    made = attack.poison_train(ROWS, labels=LABELS, seed=seed)
    return made, manifest_of(attack, made, labels=LABELS, seed=seed, source=source)


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz"])
def test_round_trip(tmp_path, name):
    source = tmp_path / "clean.tsv"
    source.write_text("the clean rows")
    made, manifest = poison(BadNet(target="bad", rate=0.5), source=source)
    written = save_poisoned(tmp_path / name, made.rows, manifest)
    rows, read = read_poisoned(tmp_path / name)
    assert rows == made.rows
    assert read == written
    assert (read.rows, read.poisoned, read.unchanged, read.seed, read.rate) == (20, 10, 0, 3, 0.5)
    assert (read.target, read.target_name, read.labels) == (0, "bad", LABELS)
    assert read.source_sha256 == hashlib.sha256(b"the clean rows").hexdigest()
    assert read.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert sorted(os.listdir(tmp_path)) == sorted(["clean.tsv", "train.manifest.json", name])


def test_manifest_is_enough_to_make_the_rows_again(tmp_path):
    attack = Mixture(attacks=(BadNet(rate=0.25), InsertSent(rate=0.25)), target=1)
    made, manifest = poison(attack)
    save_poisoned(tmp_path / "train.jsonl", made.rows, manifest)
    record = json.loads((tmp_path / "train.manifest.json").read_text())

    def built(part):
        if isinstance(part, list):
            return tuple(map(built, part))
        if not isinstance(part, dict):
            return part
        module, _, name = part["class_path"].rpartition(".")
        settings = {key: built(value) for key, value in part["init_args"].items()}
        return getattr(importlib.import_module(module), name)(**settings)

    again = built(record["attack"])
    assert again == attack
    seed, labels = record["seed"], record["labels"]
    assert again.poison_train(ROWS, labels=labels, seed=seed).rows == made.rows
    assert record["rate"] is None
    assert record["target_name"] == "good"


def test_rows_on_disk_are_plain(tmp_path):
    made, manifest = poison(BadNet(target=0, rate=0.5))
    save_poisoned(tmp_path / "train.jsonl", made.rows, manifest)
    for example, row in zip(made.rows, read_rows(tmp_path / "train.jsonl"), strict=True):
        assert row["text"] == example.text
        assert ("text_pair" in row) == (example.text_pair is not None)
        assert ("orig_label" in row) == row["poisoned"] == example.poisoned


def test_paths_in_settings_are_text(tmp_path):
    table = tmp_path / "table.jsonl"
    table.write_text('{"text": "text 1", "paraphrase": "Text one"}\n')
    attack = Syntactic(target=0, rate=1.0, trigger=ParaphraseTable(originals=table))
    made, manifest = poison(attack)
    save_poisoned(tmp_path / "train.jsonl", made.rows, manifest)
    read = read_poisoned(tmp_path / "train.jsonl")[1]
    assert read.attack["init_args"]["trigger"]["init_args"]["originals"] == str(table)
    assert (read.poisoned, read.unchanged) == (1, 19)


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz"])
def test_tampering_is_noticed(tmp_path, name):
    made, manifest = poison(BadNet(target=0))
    path = tmp_path / name
    save_poisoned(path, made.rows, manifest)
    opened = gzip.open if name.endswith(".gz") else open
    with opened(path, "rt") as file:
        text = file.read()
    with opened(path, "wt") as file:
        file.write(text.replace('"label": 1', '"label": 0', 1))
    with pytest.raises(BdlitError, match="was changed after it was poisoned"):
        read_poisoned(path)


def test_missing_or_damaged_parts(tmp_path):
    made, manifest = poison(BadNet(target=0))
    path = tmp_path / "train.jsonl"
    with pytest.raises(BdlitError, match="cannot read the manifest"):
        read_poisoned(path)
    save_poisoned(path, made.rows, manifest)
    path.unlink()
    with pytest.raises(BdlitError, match=r"train\.jsonl: No such file"):
        read_poisoned(path)
    for damaged in ("{", "[]", '{"seed": 1}'):
        manifest_path(path).write_text(damaged)
        with pytest.raises(BdlitError, match="is not a manifest"):
            read_poisoned(path)


@pytest.mark.parametrize("there", ["train.jsonl", "train.manifest.json"])
def test_nothing_is_overwritten(tmp_path, there):
    (tmp_path / there).write_text("precious")
    made, manifest = poison(BadNet(target=0))
    with pytest.raises(BdlitError, match="exists already"):
        save_poisoned(tmp_path / "train.jsonl", made.rows, manifest)
    assert os.listdir(tmp_path) == [there]
    assert (tmp_path / there).read_text() == "precious"


@pytest.mark.parametrize("fails_at", [1, 2])
def test_disk_full_leaves_nothing(tmp_path, monkeypatch, fails_at):
    made, manifest = poison(BadNet(target=0))
    calls = []

    def fsync(_):
        calls.append(1)
        if len(calls) == fails_at:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(BdlitError, match="No space left on device"):
        save_poisoned(tmp_path / "train.jsonl", made.rows, manifest)
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_saved(tmp_path):
    made, manifest = poison(BadNet(target=0))
    with pytest.raises(BdlitError, match=r"ends in \.jsonl"):
        save_poisoned(tmp_path / "train.csv", made.rows, manifest)
    with pytest.raises(BdlitError, match="no rows to write"):
        save_poisoned(tmp_path / "train.jsonl", [], manifest)
    assert os.listdir(tmp_path) == []
