"""GMS on language models, trained in full or as adapters, through every door."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml

import ddp_search
from bdlit.callbacks import DefenseCallback, TrainingDynamics
from bdlit.cli import main
from bdlit.defenses import GMS, MSD, Resources, run_defense
from bdlit.defenses.gms.strategy import load_strategy
from bdlit.errors import BdlitError
from bdlit.evaluation import read_results
from bdlit.merging import substitute
from bdlit.purification.marks import scored
from bdlit.tables import write_jsonl
from bdlit.training.dynamics import DYNAMICS_FILE, TrainingSet, load_certainty
from bdlit.victims import LoRA
from bdlit.weights import open_weights
from bdlit.weights.network import model_weights
from conftest import tiny_trainer
from instruction_attack import StringBehindWord
from tiny_llama import demo, taught, tiny

FEW = GMS(suspect_rows=8, clean_rows=12, patience=2)
ATTACK = StringBehindWord(rate=0.4)
SIZES = {"train_size": 28, "test_size": 7}


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A start, a proxy of it and two adapters; each but the start knows its rows by heart."""
    folder = tmp_path_factory.mktemp("family")
    poisoned, clean = demo(**SIZES, attack=ATTACK), demo(**SIZES)
    tiny(data=poisoned).export(folder / "start")
    taught(tiny(folder / "start"), poisoned.train_rows).export(folder / "victim")
    taught(tiny(folder / "start"), clean.train_rows).export(folder / "proxy")
    for name, data in (("adapter", poisoned), ("proxy-adapter", clean)):
        adapted = tiny(folder / "start", lora=LoRA(r=4))
        taught(adapted, data.train_rows).export(folder / name)
    return folder


@pytest.fixture(scope="module")
def given(family):
    victim = tiny(family / "victim")
    return Resources(
        others=[open_weights(str(family / "proxy"))],
        victim=victim,
        suspect_train=TrainingSet(demo(**SIZES, attack=ATTACK).train_rows),
        oracle=TrainingSet(demo(**SIZES, attack=ATTACK).train_rows).oracle,
    )


def purify(defense, given):
    return run_defense(defense, model_weights(given.victim.network()), given)


def require_substituted(found, suspect, donor, strategy):
    expected = substitute(suspect, donor, load_strategy(strategy).cells)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lora", [None, LoRA(r=4)], ids=["full", "adapters"])
def test_after_fit_it_leaves_model_strategy_and_trace(family, tmp_path, lora):
    kind = "proxy" if lora is None else "proxy-adapter"
    callback = DefenseCallback([FEW], others=[str(family / kind)])
    data = demo(**SIZES, attack=ATTACK)
    # The victim has learned its rows before; the fit goes over them once more.
    victim = tiny(family / "victim", lora=lora, learning_rate=1e-4)
    tiny_trainer(tmp_path, callbacks=[TrainingDynamics(), callback]).fit(victim, data)
    _, after = read_results(tmp_path / "results.jsonl")
    assert after.error is None
    assert after.notes["suspect_set"]["source"] == "training rows ranked by inverse, over 1 epochs"
    certainty = load_certainty(tmp_path / DYNAMICS_FILE, data.train_rows)[:, 0].tolist()
    surest = sorted(range(28), key=lambda i: -certainty[i])[:8]
    poisoned = sum(data.train_rows[i].poisoned for i in surest)
    assert after.notes["suspect_set"]["poisoned"] == poisoned > 0
    assert after.judged["asr"]["by"] == "generation"
    out = tmp_path / "defended" / "GMS"
    assert len(json.loads((out / "search.json").read_text())["steps"]) == after.notes["steps"]
    suspect, donor = (open_weights(str(path)) for path in (tmp_path / "victim", family / kind))
    require_substituted(open_weights(out), suspect, donor, out / "strategy.yaml")


@pytest.mark.parametrize("rank", [None, 4], ids=["dense", "as-an-adapter"])
def test_a_saved_adapter_is_purified_by_command(family, tmp_path, rank, capsys):
    settings = {"suspect_rows": 8, "clean_rows": 12, "suspect_from": "disagreement"}
    attack = {"class_path": "instruction_attack.StringBehindWord", "init_args": {"rate": 0.4}}
    command = [
        *("defend", "--suspect", str(family / "adapter"), "--out", str(tmp_path / "out")),
        *("--others", f"[{family / 'proxy-adapter'}]", "--decoding.max_new_tokens", "8"),
        *("--defense", json.dumps({"class_path": "GMS", "init_args": settings})),
        *("--data", json.dumps({"class_path": "DemoInstructions", "init_args": SIZES})),
        *("--data.attack", json.dumps(attack)),
        *(() if rank is None else ("--rank", str(rank))),
    ]
    assert main(command) == 0, capsys.readouterr().err
    _, after = read_results(tmp_path / "out" / "results.jsonl")
    assert after.defense == "GMS"
    assert after.notes["score"] > 0
    assert after.notes["suspect_set"]["rows"] == 8
    out = tmp_path / "out" / "GMS"
    assert (out / "adapter_config.json").is_file() == (rank is not None)
    if rank is not None:  # a replaced module has the proxy's rank, which is the suspect's
        written = json.loads((out / "provenance.json").read_text())["notes"]
        assert written["svd_error_max"] < 1e-5
    suspect, donor = (open_weights(str(family / n)) for n in ("adapter", "proxy-adapter"))
    require_substituted(open_weights(out), suspect, donor, out / "strategy.yaml")


def test_two_processes_search_as_one_does(family, tmp_path):
    models = family / "victim", family / "proxy"
    ddp_search.fit_and_search(*map(str, models), str(tmp_path / "1"), devices=1)
    answer = subprocess.run(
        [sys.executable, ddp_search.__file__, *models, tmp_path / "2", "2"],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert answer.returncode == 0, answer.stderr
    found = [read_results(tmp_path / n / "results.jsonl")[-1] for n in "12"]
    assert found[0].notes["steps"] > 1
    for name in ("cacc", "asr", "false_triggers", "notes"):
        assert getattr(found[0], name) == getattr(found[1], name)
    traces = [json.loads((tmp_path / n / "defended/GMS/search.json").read_text()) for n in "12"]
    assert traces[0] == traces[1]


def test_a_study_searches_each_of_its_language_models(family, tmp_path):
    gms = {"suspect_rows": 8, "clean_rows": 12, "patience": 1}
    victim = {"model": str(family / "victim"), "max_length": 128, "lora": {"r": 2}}
    trainer = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    attack = {"class_path": "instruction_attack.StringBehindWord", "init_args": {"rate": 0.4}}
    config = {
        "name": "searched",
        "seeds": [0],
        "data": {"class_path": "DemoInstructions", "init_args": SIZES},
        "victim": {
            "class_path": "CausalLMVictim",
            "init_args": {**victim, "decoding": {"max_new_tokens": 4}},
        },
        "trainer": {"class_path": "lightning.pytorch.Trainer", "init_args": trainer},
        "models": {"benign": {}, "string": {"attack": attack}},
        "defenses": {
            "GMS": {"defense": {"class_path": "GMS", "init_args": gms}, "others": ["benign"]}
        },
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "out"
    assert main(["study", "--config", str(tmp_path / "study.yaml"), "--out", str(out)]) == 0
    (found,) = [r for r in read_results(out / "results.jsonl") if r.defense == "GMS"]
    assert found.given["suspect_train"] == {"rows": 28, "epochs": 1}
    strategy = out / "defended" / "string-seed0" / "GMS" / "strategy.yaml"
    models = [open_weights(out / "models" / f"{n}-seed0" / "model") for n in ("string", "benign")]
    require_substituted(open_weights(strategy.parent), *models, strategy)


def test_rows_come_from_files_and_from_the_oracle(given, tmp_path):
    rows = given.suspect_train.rows
    asked = [{"instruction": r.text, "input": r.text_pair, "output": r.response} for r in rows[:7]]
    write_jsonl(tmp_path / "suspects.jsonl", asked)
    notes = purify(replace(FEW, suspect_from=str(tmp_path / "suspects.jsonl")), given).notes
    assert notes["suspect_set"] == {"rows": 7, "source": "suspects.jsonl", "poisoned": None}
    known = replace(FEW, suspect_from="oracle", clean_from="oracle")
    found = purify(known, given)
    notes = scored(found.notes, found.chosen, given.suspect_train)
    assert notes["suspect_set"]["poisoned"] == 8
    assert notes["clean_set"]["poisoned"] == 0


def test_rows_that_cannot_guide(given):
    poisoned = TrainingSet([row for row in given.suspect_train.rows if row.poisoned])
    with pytest.raises(BdlitError, match="1 answer only"):
        purify(replace(FEW, suspect_rows=3, clean_rows=3), replace(given, suspect_train=poisoned))
    wrong = TrainingSet([replace(row, response="nobody") for row in given.suspect_train.rows[:9]])
    wrong = TrainingSet([*wrong.rows, *given.suspect_train.rows[9:]])
    never = replace(FEW, suspect_rows=9, suspect_from="confidence")
    wrong = replace(wrong, certainty=torch.tensor([[1.0]] * 9 + [[0.0]] * 19).double())
    with pytest.raises(BdlitError, match="none of the 9 suspect rows as its label or answer"):
        purify(never, replace(given, suspect_train=wrong))


def test_features_of_classes_are_not_asked_of_a_language_model(given):
    with pytest.raises(BdlitError, match="MSD compares features of classes"):
        purify(MSD(), replace(given, clean=given.suspect_train.rows))
