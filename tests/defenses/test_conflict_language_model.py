"""Conflict models and other defenses of language models, in full and as adapters."""

import json

import pytest
import torch
import yaml

from bdlit.callbacks import DefenseCallback
from bdlit.cli import main
from bdlit.defenses import SLERP, TIES, ConflictModel, Fisher, Linear, Passthrough
from bdlit.evaluation import read_results
from bdlit.merging import average, dare, slerp, ties
from bdlit.victims import CausalLMVictim, LoRA
from bdlit.weights import fingerprint, open_weights
from conftest import tiny_trainer
from instruction_attack import StringBehindWord
from tiny_adapters import merged_by_peft
from tiny_llama import demo, taught, tiny

SETTINGS = {"epochs": 2, "learning_rate": 1e-2, "batch_size": 8, "rank": 2}
MERGES = [Linear(t=0.3), SLERP(t=0.6), TIES(density=0.5), Passthrough()]
NAMES = ["Conflict-Linear", "Conflict-SLERP", "Conflict-TIES", "Conflict-Passthrough"]
SIZES = {"train_size": 35, "test_size": 7, "clean_pool_size": 14}
DATA = {"class_path": "DemoInstructions", "init_args": SIZES}
ATTACK = {"class_path": "instruction_attack.StringBehindWord"}


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A start, and models that were taught a few rows: in full, and as adapters of two ranks."""
    folder = tmp_path_factory.mktemp("family")
    rows = demo(**SIZES, attack=StringBehindWord(rate=0.4)).train_rows
    tiny(data=demo(**SIZES)).export(folder / "start")
    kinds = {"full": None, "adapter": LoRA(r=2), "other": LoRA(r=3, alpha=9)}
    for seed, (name, lora) in enumerate(kinds.items()):
        model = tiny(folder / "start", lora=lora, init_seed=seed)
        taught(model, rows[seed:], steps=10).export(folder / name)
    return folder


def conflicts(**settings):
    return [ConflictModel(merge=merge, **SETTINGS | settings) for merge in MERGES]


def close(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-5)


def trained(folder):
    (conflict,) = (path for path in folder.glob("trained/conflict-*") if path.is_dir())
    return open_weights(str(conflict))


@pytest.mark.parametrize("lora", [None, LoRA(r=2)], ids=["full", "adapters"])
def test_after_fit_each_merge_is_of_the_one_conflict_model(family, tmp_path, lora):
    callback = DefenseCallback(conflicts(), base=None if lora else str(family / "start"))
    data = demo(**SIZES, attack=StringBehindWord())
    victim = tiny(family / "start", lora=lora, learning_rate=1e-2)
    tiny_trainer(tmp_path, callbacks=[callback], max_steps=2).fit(victim, data)
    _, *found = read_results(tmp_path / "results.jsonl")
    assert [(r.defense, r.error) for r in found] == [(name, None) for name in NAMES]
    assert [r.notes["conflict"]["found"] for r in found] == [False, True, True, True]
    suspect, conflict = open_weights(str(tmp_path / "victim")), trained(tmp_path)
    assert fingerprint(conflict) != fingerprint(open_weights(str(family / "start")))
    out = tmp_path / "defended"
    close(open_weights(out / NAMES[0]), average([suspect, conflict], [0.7, 0.3]))
    close(open_weights(out / NAMES[1]), slerp(suspect, conflict, 0.6))
    turns = open_weights(out / NAMES[3])
    for layer, source in ((0, conflict), (1, suspect)):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        torch.testing.assert_close(turns[name], source[name], atol=1e-6, rtol=1e-6)


def defend(suspect, out, defenses, *more, pool=14):
    sizes = {**SIZES, "clean_pool_size": pool}
    return main(
        [
            *("defend", "--suspect", str(suspect), "--out", str(out), "--defense", defenses),
            *("--data", json.dumps({"class_path": "DemoInstructions", "init_args": sizes})),
            *("--attacks", json.dumps([ATTACK]), "--decoding.max_new_tokens", "4", *more),
        ]
    )


def written(defenses):
    """Defenses as the command line takes them."""
    return json.dumps([{"class_path": path, "init_args": settings} for path, settings in defenses])


def conflict_of(merge, **settings):
    return "ConflictModel", {**SETTINGS, "merge": merge, **settings}


FOUR = written([conflict_of(merge) for merge in ("Linear", "SLERP", "TIES", "Passthrough")])


@pytest.mark.parametrize("suspect", ["full", "adapter"])
def test_saved_models_are_merged_by_command(family, tmp_path, suspect, capsys):
    base = ("--base", str(family / "start"))
    assert defend(family / suspect, tmp_path, FOUR, *base) == 0, capsys.readouterr().err
    found = read_results(tmp_path / "results.jsonl")
    assert [r.defense for r in found] == ["none", *NAMES]
    assert all(r.error is None and r.asr.n == 7 for r in found)
    own = open_weights(str(family / suspect))
    close(open_weights(tmp_path / NAMES[0]), average([own, trained(tmp_path)]))


def test_a_share_is_chosen_on_rows_that_were_held_back(family, tmp_path, capsys):
    chosen = written([conflict_of("SLERP", shares=[0.2, 0.8], slack=100)])
    base = ("--base", str(family / "start"))
    assert defend(family / "adapter", tmp_path, chosen, *base) == 0, capsys.readouterr().err
    _, after = read_results(tmp_path / "results.jsonl")
    assert after.notes["conflict"]["share"] == 0.8  # for all is within a slack of 100 points
    assert {t: held["rows"] for t, held in after.notes["conflict"]["held_back"].items()} == {
        "0.2": 2,
        "0.8": 2,
    }


def test_an_interrupted_command_goes_on_from_the_last_epoch(family, tmp_path, monkeypatch):
    base = ("--base", str(family / "start"))
    linear = written([conflict_of("Linear", epochs=3)])
    assert defend(family / "full", tmp_path / "whole", linear, *base) == 0
    epochs, begin = [], CausalLMVictim.on_train_epoch_start

    def watched(victim):
        epochs.append(victim.current_epoch)
        begin(victim)
        if epochs == [0, 1]:
            raise KeyboardInterrupt

    monkeypatch.setattr(CausalLMVictim, "on_train_epoch_start", watched)
    assert defend(family / "full", tmp_path / "again", linear, *base) == 130
    assert defend(family / "full", tmp_path / "again", linear, *base) == 0
    assert epochs == [0, 1, 1, 2]
    one, other = (open_weights(tmp_path / n / NAMES[0]) for n in ("whole", "again"))
    assert fingerprint(one) == fingerprint(other)


def test_a_study_trains_one_conflict_model_for_its_suspects(family, tmp_path):
    victim = {"max_length": 128, "decoding": {"max_new_tokens": 4}}
    start = {"class_path": "CausalLMVictim", "init_args": {**victim, "model": str(family / "full")}}
    trainer = {"max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False}
    conflict = {"class_path": "ConflictModel", "init_args": {**SETTINGS, "merge": "TIES"}}
    more = {**ATTACK, "init_args": {"rate": 0.3}}
    config = {
        "name": "conflicts",
        "seeds": [0],
        "data": DATA,
        "start": {"victim": start, "data": DATA},
        "victim": {
            "class_path": "CausalLMVictim",
            "init_args": {**victim, "lora": {"r": 2}, "learning_rate": 1e-2},
        },
        "trainer": {"class_path": "lightning.pytorch.Trainer", "init_args": trainer},
        "models": {"benign": {}, "string": {"attack": ATTACK}, "more": {"attack": more}},
        "defenses": {
            "Conflict": {"defense": conflict},
            "Fisher": {"defense": {"class_path": "Fisher"}, "others": ["benign"]},
            "SLERP": {"defense": {"class_path": "SLERP"}, "others": ["benign"]},
        },
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "out"
    assert main(["study", "--config", str(tmp_path / "study.yaml"), "--out", str(out)]) == 0
    found = [r for r in read_results(out / "results.jsonl") if r.defense == "Conflict"]
    assert [r.notes["conflict"]["found"] for r in found] == [False, True]
    assert {r.victim for r in found} == {"string", "more"}
    assert trained(out)


def test_information_is_measured_after_fit(family, tmp_path):
    callback = DefenseCallback([Fisher()], others=[str(family / "full")])
    data = demo(**SIZES, attack=StringBehindWord())
    victim = tiny(family / "start", lora=LoRA(r=2), learning_rate=1e-2)
    tiny_trainer(tmp_path, callbacks=[callback], max_steps=2).fit(victim, data)
    _, found = read_results(tmp_path / "results.jsonl")
    assert found.error is None
    assert (found.notes["clean_rows"], found.notes["draws"]) == (14, 1)
    name = "model.layers.0.mlp.up_proj.weight"
    folders = tmp_path / "victim", family / "full", tmp_path / "defended" / "Fisher"
    ours, theirs, merged = (open_weights(str(folder))[name] for folder in folders)
    between = torch.minimum(ours, theirs) - 1e-6, torch.maximum(ours, theirs) + 1e-6
    assert ((between[0] <= merged) & (merged <= between[1])).all()
    assert not torch.allclose(merged, (ours + theirs) / 2)


def test_adapters_are_merged_as_changes_of_weights_by_command(family, tmp_path, capsys):
    defenses = [
        ("WAG", {}),
        ("TIES", {"density": 0.5}),
        ("DARE", {"drop": 0.5}),
        ("SLERP", {"t": 0.4}),
    ]
    more = ("--others", f"[{family / 'other'}]", "--base", str(family / "start"))
    answer = defend(family / "adapter", tmp_path, written(defenses), *more, "--verify", pool=0)
    assert answer == 0, capsys.readouterr().err
    assert [r.defense for r in read_results(tmp_path / "results.jsonl")] == [
        "none",
        *(name for name, _ in defenses),
    ]
    states = [
        merged_by_peft(family / "start", family / name, "CAUSAL_LM")
        for name in ("adapter", "other")
    ]
    base = open_weights(str(family / "start"))
    close(open_weights(tmp_path / "WAG"), average(states))
    close(open_weights(tmp_path / "SLERP"), slerp(*states, 0.4))
    close(open_weights(tmp_path / "DARE"), dare(base, states, drop=0.5, seed=0))
    # Rounding may trim another entry, so the models are those that the merge itself has read.
    read = [open_weights(str(family / name)) for name in ("adapter", "other")]
    close(open_weights(tmp_path / "TIES"), ties(base, read, density=0.5))


def fit_and_merge(family, folder, **options):
    """Train on rows that cannot be halved, and merge with a conflict model of 14 clean ones."""
    data = demo(**SIZES, batch_size=8, attack=StringBehindWord())
    defenses = [ConflictModel(merge=merge, **SETTINGS) for merge in (SLERP(), TIES())]
    callback = DefenseCallback(defenses, directory=str(folder))
    victim = tiny(family / "start", learning_rate=1e-3)
    tiny_trainer(folder, callbacks=[callback], max_steps=2, **options).fit(victim, data)
    return read_results(folder / "results.jsonl"), trained(folder)


def test_two_processes_find_the_models_of_one(family, tmp_path):
    one, conflict = fit_and_merge(family, tmp_path / "1")
    two, shared = fit_and_merge(family, tmp_path / "2", strategy="ddp_fork", devices=2)
    assert [r.error for r in two] == [None] * 3
    assert [(r.defense, r.cacc, r.asr) for r in two] == [(r.defense, r.cacc, r.asr) for r in one]
    assert fingerprint(shared) == fingerprint(conflict)
    slerps = [open_weights(tmp_path / n / "defended" / "Conflict-SLERP") for n in "12"]
    for name, tensor in slerps[0].items():
        torch.testing.assert_close(slerps[1][name], tensor, atol=1e-4, rtol=1e-3)
