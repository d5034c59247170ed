"""A filter, an unlearning objective and a learned trigger: through every door, and after a kill."""

import json
import subprocess
import sys

import pytest
import torch
import yaml

import ddp_stages
from bdlit.attacks import BadNet
from bdlit.callbacks import DefenseCallback, TrainingDynamics
from bdlit.cli import main
from bdlit.data.demo import DemoReviews
from bdlit.errors import BdlitError
from bdlit.evaluation import evaluate, read_results
from bdlit.tables import write_jsonl
from bdlit.training import recipe_of, train
from bdlit.victims import ClassifierVictim, LoRA
from bdlit.weights import fingerprint, model_weights, open_weights
from conftest import TINY, tiny_trainer
from ddp_stages import fit_and_defend
from stage_methods import (
    Broken,
    Idle,
    LearnedWord,
    NoRows,
    Nothing,
    RejectWords,
    Shrinking,
    Unlearning,
    WordFilter,
)

SIZES = {"train_size": 120, "validation_size": 0, "test_size": 60}


def data(**options):
    return DemoReviews(**{**SIZES, "attack": BadNet(rate=0.3), **options})


def victim_from(start, **options):
    return ClassifierVictim(str(start), max_length=64, learning_rate=3e-3, **options)


@pytest.fixture(scope="module")
def run(tiny_start, tmp_path_factory):
    """A fit with the two defenses that train: its folder, victim and data."""
    folder = tmp_path_factory.mktemp("stages")
    callback = DefenseCallback([WordFilter(), Unlearning()], benign=str(tiny_start))
    victim, rows = victim_from(tiny_start), data()
    tiny_trainer(folder, callbacks=[callback], max_epochs=2).fit(victim, rows)
    return folder, victim, rows


@pytest.mark.parametrize("lora", [None, LoRA(r=2, dropout=0.1)], ids=["full", "LoRA"])
def test_training_again_on_all_rows_gives_the_suspect_bit_by_bit(tiny_start, tmp_path, lora):
    victim, rows = victim_from(tiny_start, lora=lora, schedule="linear", warmup=0.2), data()
    trainer = tiny_trainer(tmp_path, max_epochs=2)
    torch.manual_seed(3)
    from lightning.pytorch import seed_everything

    seed_everything(0, verbose=False)
    trainer.fit(victim, rows)
    recipe = recipe_of(victim, trainer, rows)
    with victim.dense() as dense:
        expected = fingerprint(model_weights(dense))
        start = model_weights(victim.initial_model())
        found = train(victim, rows.train_rows, start=start, recipe=recipe)
    assert fingerprint(found) == expected


def test_a_filter_drops_rows_and_its_choice_is_scored(run):
    folder, victim, rows = run
    found = {r.defense: r for r in read_results(folder / "results.jsonl")}
    dropped = found["WordFilter"].notes["dropped"]
    poisoned = sum(row.poisoned for row in rows.train_rows)
    assert dropped["precision"] == dropped["poisoned"] / dropped["rows"]
    assert dropped["recall"] == dropped["poisoned"] / poisoned
    kept = WordFilter().keep([row.unmarked for row in rows.train_rows]).rows
    assert dropped["rows"] == len(rows.train_rows) - len(kept)
    assert found["WordFilter"].notes["kept"] == len(kept)

    by_hand = victim_from(run_start(victim))
    again = data(attack=None)
    again.setup()
    again.train_rows = [rows.train_rows[i] for i in kept]
    tiny_trainer(folder / "hand", max_epochs=2).fit(by_hand, again)
    saved = open_weights(folder / "defended" / "WordFilter")
    for name, tensor in model_weights(by_hand.network()).items():
        torch.testing.assert_close(saved[name], tensor)
    scores = evaluate(by_hand, rows)
    assert (found["WordFilter"].cacc, found["WordFilter"].asr) == (
        scores.cacc,
        scores.asr["badnet"],
    )


def run_start(victim):
    return victim.address


def test_an_objective_isolates_and_unlearns(run):
    folder, victim, _ = run
    found = {r.defense: r for r in read_results(folder / "results.jsonl")}["Unlearning"]
    assert found.error is None
    assert found.notes["isolated"]["rows"] >= 12
    origin = json.loads((folder / "defended" / "Unlearning" / "provenance.json").read_text())
    assert set(origin["changed"]) == set(model_weights(victim.network()))
    assert origin["merged"] == origin["copied"] == []


def test_a_trigger_is_learned_with_the_victim_and_measured(tiny_start, tmp_path):
    callback = DefenseCallback([WordFilter()], benign=str(tiny_start))
    victim, rows = victim_from(tiny_start), data(attack=LearnedWord())
    tiny_trainer(tmp_path, callbacks=[callback], max_epochs=3).fit(victim, rows)
    learned = json.loads((tmp_path / "victim" / "trigger.json").read_text())["word"]
    assert all(row.text.startswith(f"{learned} ") for row in rows.test_rows["learnedword"])
    undefended, filtered = callback.results
    assert undefended.attack == filtered.attack == "learnedword"
    assert undefended.asr.n == filtered.asr.n == undefended.floor.n > 20
    assert not undefended.benign
    assert any(t.abs().sum() > 0 for t in victim.objective.parameters())
    assert not any("objective" in name for name in open_weights(tmp_path / "victim"))


def study_file(folder, **changes):
    victim = {"max_length": 64, "learning_rate": 3e-3}
    demo = {"class_path": "DemoReviews", "init_args": SIZES}
    config = {
        "name": "stages",
        "seeds": [0, 1],
        "data": demo,
        "start": {
            "victim": {
                "class_path": "ClassifierVictim",
                "init_args": {**victim, "config": {**TINY, "hidden_dropout_prob": 0.1}},
            },
            "data": {**demo, "init_args": {**SIZES, "grammar_seed": 1}},
        },
        "victim": {"class_path": "ClassifierVictim", "init_args": victim},
        "trainer": {
            "class_path": "lightning.pytorch.Trainer",
            "init_args": {
                "max_epochs": 2,
                "accelerator": "cpu",
                "enable_progress_bar": False,
                "enable_model_summary": False,
            },
        },
        "models": {
            "benign": {},
            "badnet": {"attack": {"class_path": "BadNet", "init_args": {"rate": 0.3}}},
            "learned": {"attack": {"class_path": "stage_methods.LearnedWord"}},
        },
        "floor": "benign",
        "defenses": {
            "filter": {"defense": {"class_path": "stage_methods.WordFilter"}},
            "unlearn": {"defense": {"class_path": "stage_methods.Unlearning"}},
        },
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**config, **changes}))
    return file


def numbers(folder):
    return {
        r.key: (r.cacc, r.asr, r.floor, r.notes.get("dropped"), r.notes.get("isolated"))
        for r in read_results(folder / "results.jsonl")
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    command = ["study", "--config", str(study_file(folder)), "--out", str(folder / "out")]
    assert main(command) == 0
    return folder / "out"


def test_a_study_of_two_seeds_runs_all_three(study):
    results = read_results(study / "results.jsonl")
    assert all(r.error is None for r in results)
    cells = {(r.victim, r.defense, r.seed) for r in results}
    assert cells == {
        *(("benign", "none", seed) for seed in (0, 1)),
        *(
            (name, cell, seed)
            for name in ("badnet", "learned")
            for cell in ("none", "filter", "unlearn")
            for seed in (0, 1)
        ),
    }
    for seed in (0, 1):  # every model, the benign one too, meets the trigger of its own seed
        of_seed = [r for r in results if r.seed == seed and r.attack == "learnedword"]
        assert {r.victim for r in of_seed} == {"benign", "badnet", "learned"}
        assert all(r.floor is not None for r in of_seed)
    assert {r.benign for r in results if r.victim == "benign"} == {True}
    assert {r.benign for r in results if r.victim != "benign"} == {False}


@pytest.mark.parametrize("stop", ["fit", "defense"])
def test_killed_in_the_middle_a_study_ends_the_same(study, tmp_path, monkeypatch, stop):
    """In the second epoch of the model that learns its trigger, or of the last training again."""
    file = study_file(tmp_path)
    arguments = ["study", "--config", str(file), "--out", str(tmp_path / "out")]
    begun = []

    def watched(victim):
        kind = "fit" if type(victim.objective).__name__ == "ChooseWord" else "defense"
        if victim.objective is not None and victim.current_epoch == 1:
            begun.append(kind)
            if "killed" not in begun and begun.count(stop) == 2 and kind == stop:
                begun.append("killed")
                raise KeyboardInterrupt
        begin(victim)

    begin = ClassifierVictim.on_train_epoch_start
    monkeypatch.setattr(ClassifierVictim, "on_train_epoch_start", watched)
    assert main(arguments) == 130
    assert begun[-1] == "killed"
    assert main(arguments) == 0
    assert numbers(tmp_path / "out") == numbers(study)


def test_the_command_gives_what_the_callback_gave(run, tiny_start, tmp_path, capsys):
    folder, _victim, rows = run
    lines = [{"text": r.text, "label": r.label, "poisoned": r.poisoned} for r in rows.train_rows]
    write_jsonl(tmp_path / "train.jsonl", lines)
    recipe = "{epochs: 2, learning_rate: 3.0e-3, batch_size: 32, rank: null}"
    arguments = [
        *("defend", "--suspect", str(folder / "victim"), "--base", str(tiny_start)),
        "--defense=[{class_path: stage_methods.WordFilter}, {class_path: stage_methods.Unlearning}"
        "]",
        *("--recipe", recipe, "--out", str(tmp_path / "out"), "--max_length", "64"),
        *("--data", "DemoReviews", *(f"--data.{n}={v}" for n, v in SIZES.items())),
        *("--data.poisoned_train", str(tmp_path / "train.jsonl")),
        "--attacks=[{class_path: BadNet}]",
    ]
    assert main(arguments) == 0, capsys.readouterr().err
    by_callback = {r.defense: r for r in read_results(folder / "results.jsonl")}
    for result in read_results(tmp_path / "out" / "results.jsonl"):
        expected = by_callback[result.defense]
        assert (result.cacc, result.asr) == (expected.cacc, expected.asr), result.defense
        for chosen in ("dropped", "isolated"):
            assert result.notes.get(chosen) == expected.notes.get(chosen)
    without = [a for a in arguments if a not in ("--recipe", recipe)]
    without[without.index(str(tmp_path / "out"))] = str(tmp_path / "other")
    assert main(without) == 2
    assert "how the suspect was trained is not known: give --recipe" in capsys.readouterr().err


def test_two_processes_find_the_numbers_of_one(tiny_start, tmp_path):
    fit_and_defend(str(tiny_start), str(tmp_path / "1"), devices=1)
    answer = subprocess.run(
        [sys.executable, ddp_stages.__file__, tiny_start, tmp_path / "2", "2"],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert answer.returncode == 0, answer.stderr
    one, two = (numbers(tmp_path / n) for n in ("1", "2"))
    assert one == two
    choices = [json.loads((tmp_path / n / "choice.txt").read_text()) for n in ("1", "2")]
    assert choices[0] == pytest.approx(choices[1], rel=1e-3, abs=1e-6)


def test_rejection_is_no_hit_and_no_right_answer(tiny_start, tmp_path):
    callback = DefenseCallback([RejectWords()])
    victim, rows = victim_from(tiny_start), data(clean_pool_size=40)
    tiny_trainer(tmp_path, callbacks=[callback], max_epochs=2).fit(victim, rows)
    undefended, guarded = callback.results
    known = {word for row in rows.clean_pool for word in row.text.split()}

    def accepted(row):
        return set(row.text.split()) <= known

    hits = {}
    for name in ("clean", "badnet"):
        tests = rows.test_rows[name]
        right = victim.hits(victim.on_device(tests)).tolist()
        hits[name] = sum(hit and accepted(row) for hit, row in zip(right, tests, strict=True))
    assert (guarded.cacc.hits, guarded.cacc.n) == (hits["clean"], 60)
    assert (guarded.asr.hits, guarded.asr.n) == (hits["badnet"], undefended.asr.n)
    clean, triggered = rows.test_rows["clean"], rows.test_rows["badnet"]
    assert guarded.false_rejection.hits == sum(not accepted(row) for row in clean)
    assert guarded.false_acceptance.hits == sum(accepted(row) for row in triggered)
    assert guarded.false_rejection.n == 60
    assert guarded.false_acceptance.n == guarded.asr.n
    assert not (tmp_path / "defended" / "RejectWords" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("defense", "line"),
    [
        (Broken(), "NotANumber gave a loss of NaN or infinity in step 0: lower"),
        (NoRows(), "there are no rows to train on: give `train` at least one"),
        (Nothing(), "Nothing keeps none of 120 training rows"),
        (Shrinking(), "Shrinking returned"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_bad_methods_are_one_line_each(tiny_start, tmp_path, defense, line):
    callback = DefenseCallback([defense], save=False)
    trainer = tiny_trainer(tmp_path, callbacks=[callback, TrainingDynamics()])
    with pytest.raises(BdlitError, match="1 of the defenses failed") as raised:
        trainer.fit(victim_from(tiny_start), data())
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)
    assert line in callback.results[-1].error


def test_an_attack_without_any_stage_is_refused():
    with pytest.raises(BdlitError, match="attack 'idle' has no stage: define poison_train, obj"):
        data(attack=Idle())
    assert data(test_attacks=[Idle()]).test_attacks
