"""A whole study through its command, small enough to run in seconds."""

import os
import shutil
import time

import pytest
import yaml

from bdlit.cli import main
from bdlit.defenses.gms.strategy import load_strategy
from bdlit.evaluation import UNDEFENDED, read_results
from bdlit.merging import substitute
from bdlit.report import collect
from bdlit.victims import ClassifierVictim
from bdlit.weights import fingerprint, open_weights
from conftest import TINY, inspected
from launch import launch


def demo(**options):
    settings = {"train_size": 96, "validation_size": 0, "test_size": 60}
    return {"class_path": "DemoReviews", "init_args": {**settings, **options}}


def written(folder, **changes):
    victim = {"max_length": 64, "learning_rate": 1e-3}
    dropout = {"hidden_dropout_prob": 0.1}  # so that a resumed run must draw the same one
    config = {
        "name": "small",
        "seeds": [0],
        "data": demo(),
        "start": {
            "victim": {
                "class_path": "ClassifierVictim",
                "init_args": {**victim, "config": {**TINY, **dropout}},
            },
            "data": demo(grammar_seed=1),
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
            "badnet": {"attack": {"class_path": "BadNet"}},
            "insertsent": {"attack": {"class_path": "InsertSent"}},
        },
        "floor": "benign",
        "defenses": {
            "WAG-benign": {"defense": {"class_path": "WAG"}, "others": ["benign"]},
            "TIES-all": {"defense": {"class_path": "TIES"}, "others": "all"},
            "DARE-all": {"defense": {"class_path": "DARE"}, "others": "all"},
            "Linear-start": {"defense": {"class_path": "Linear"}, "others": ["start"]},
        },
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**config, **changes}))
    return file


def numbers(folder):
    return {r.key: (r.cacc, r.asr, r.floor) for r in read_results(folder / "results.jsonl")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    assert main(["study", "--config", str(written(folder)), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_every_cell_has_one_result_per_attack(finished):
    results = read_results(finished / "results.jsonl")
    cells = {(r.victim, r.defense) for r in results}
    defenses = {UNDEFENDED, "WAG-benign", "TIES-all", "DARE-all", "Linear-start"}
    assert cells == {("benign", UNDEFENDED)} | {
        (victim, defense) for victim in ("badnet", "insertsent") for defense in defenses
    }
    assert len(results) == 2 * len(cells)
    benign = {r.attack: r.asr for r in results if r.victim == "benign"}
    assert all(r.floor == benign[r.attack] for r in results if r.victim != "benign")


def test_a_cell_is_the_defense_by_hand(finished):
    from bdlit.defenses import WAG, Linear

    suspect, benign, start = (
        open_weights(finished / "models" / f"{name}-seed0" / "model")
        for name in ("badnet", "benign", "start")
    )
    cells = {"WAG-benign": (WAG(), benign), "Linear-start": (Linear(), start)}
    for cell, (defense, other) in cells.items():
        by_hand = defense.apply(suspect, others=[other]).weights
        saved = open_weights(finished / "defended" / "badnet-seed0" / cell)
        assert fingerprint(saved) == fingerprint(by_hand), cell


def test_a_second_run_computes_nothing_and_shows_the_same(finished, capsys):
    before = (finished / "results.jsonl").read_bytes()
    config = finished.parent / "study.yaml"
    began = time.monotonic()
    assert main(["study", "--config", str(config), "--out", str(finished)]) == 0
    assert "finished before" in capsys.readouterr().out
    assert (finished / "results.jsonl").read_bytes() == before
    assert time.monotonic() - began < 60


def test_a_dry_run_prints_the_cells_and_does_nothing(finished, tmp_path, capsys):
    config = str(finished.parent / "study.yaml")
    assert main(["study", "--config", config, "--out", str(tmp_path / "new"), "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["open", "fit", "start", "seed", "0"]
    assert "open  defend   badnet                  seed 0    WAG-benign" in lines
    assert lines[-1] == "4 fits, 3 measurements, 8 defended cells; 15 of 15 cells are open"
    assert not (tmp_path / "new").exists()
    assert main(["study", "--config", config, "--out", str(finished), "--dry_run=true"]) == 0
    assert "; 0 of 15 cells are open" in capsys.readouterr().out


def test_shards_make_the_same_results(finished, tmp_path):
    config = written(tmp_path)
    for shard in ("1/2", "0/2"):
        out = str(tmp_path / "out")
        assert main(["study", "--config", str(config), "--out", out, "--shard", shard]) == 0
    assert numbers(tmp_path / "out") == numbers(finished)


def test_interrupted_in_a_fit_it_ends_in_the_same_table(finished, tmp_path):
    """Ctrl-C after the first epoch of a victim; the same command goes on from there."""
    config, out = written(tmp_path), tmp_path / "out"
    arguments = ["study", "--config", str(config), "--out", str(out)]
    study = launch(*arguments)
    deadline = time.monotonic() + 1200
    while not (out / "models/badnet-seed0/checkpoints/last.ckpt").exists():
        assert study.process.is_alive(), study.answer()
        assert time.monotonic() < deadline, "the study has not got that far"
        time.sleep(0.01)
    study.interrupt()
    answer = study.answer()
    assert answer.returncode == 130, answer
    assert "Traceback" not in answer.stdout + answer.stderr
    assert not (out / "models" / "insertsent-seed0").exists()
    assert main(arguments) == 0
    assert numbers(out) == numbers(finished)


def test_a_fit_goes_on_from_its_last_finished_epoch(finished, tmp_path, monkeypatch):
    """No epoch is trained twice: that of the interruption is the first of the second run."""
    epochs = []

    def watched(victim):
        epochs.append(victim.current_epoch)
        if epochs == [0, 1] * 3:  # the start, the benign model, and badnet's second epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(ClassifierVictim, "on_train_epoch_start", watched, raising=False)
    arguments = ["study", "--config", str(written(tmp_path)), "--out", str(tmp_path / "out")]
    assert main(arguments) == 130
    epochs.clear()
    assert main(arguments) == 0
    assert epochs == [1, 0, 1]
    assert numbers(tmp_path / "out") == numbers(finished)


@pytest.mark.parametrize("kept", [1, 8, 9])
def test_interrupted_between_cells_only_the_missing_ones_are_done(finished, tmp_path, kept):
    """A process that dies leaves its finished cells, and perhaps a torn line; a cell has two."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    lines = (out / "results.jsonl").read_text().splitlines()
    (out / "results.jsonl").write_text("\n".join(lines[:kept]) + "\n" + lines[kept][:40])
    assert main(["study", "--config", str(finished.parent / "study.yaml"), "--out", str(out)]) == 0
    assert numbers(out) == numbers(finished)


def test_the_numbers_in_wandb_are_those_of_the_table(finished):
    rows = {(r.victim, r.defense, r.attack): r for r in collect([finished])}
    runs = list((finished / "wandb").glob("offline-run-*"))
    assert len(runs) == 4 + 3  # a fit for each model and the start; a measurement of each model
    seen = {}
    for run in runs:
        found = inspected(run)
        if "bdlit" in found["config"]:
            seen[found["config"]["bdlit"]["victim"]] = found["summary"]
    assert set(seen) == {"benign", "badnet", "insertsent"}
    for (victim, defense, attack), row in rows.items():
        prefix = "victim" if defense == UNDEFENDED else defense
        assert seen[victim][f"{prefix}/cacc"] == pytest.approx(row.cacc)
        assert seen[victim][f"{prefix}/asr/{attack}"] == pytest.approx(row.asr)


def test_a_strategy_is_transferred_and_a_purified_model_tuned_again(finished, tmp_path):
    """The models are another study's; cells that others build on are made first, and only once."""
    out = tmp_path / "out"
    gms = {"suspect_rows": 8, "clean_rows": 12, "alpha": 0.0}  # which never returns the suspect
    config = yaml.safe_load(written(tmp_path).read_text())
    models = config["models"]
    # Listed first, so that what they are made from is not there when they are due.
    again = {"attack": {"class_path": "BadNet", "init_args": {"rate": 0.1}}}
    models = {"again": {**again, "tuned_from": ["insertsent", "GMS"]}, **models}
    found = {"defense": {"class_path": "GMS", "init_args": gms}, "others": ["benign"]}
    moved = {
        **{"defense": {"class_path": "ModuleSubstitution"}, "others": ["benign"]},
        "strategy_from": ["insertsent", "GMS"],
    }
    still = {**config["victim"], "init_args": {"max_length": 64, "learning_rate": 0.0}}
    defenses = {"moved": moved, "GMS": found}
    file = written(tmp_path, models=models, defenses=defenses, victim=still)
    before = sorted(finished.rglob("*"))
    options = ["--models_from", str(finished), "--out", str(out)]
    assert main(["study", "--config", str(file), *options]) == 0
    assert sorted(finished.rglob("*")) == before
    assert [folder.name for folder in (out / "models").iterdir()] == ["again-seed0"]
    results = read_results(out / "results.jsonl")
    assert len({r.key for r in results}) == len(results)
    assert {(r.victim, r.defense) for r in results} == {
        *((name, UNDEFENDED) for name in models),
        *((name, cell) for name in ("badnet", "insertsent") for cell in ("moved", "GMS")),
    }
    strategy = load_strategy(out / "defended" / "insertsent-seed0" / "GMS" / "strategy.yaml")
    models = (finished / "models" / f"{name}-seed0" / "model" for name in ("badnet", "benign"))
    weights = [open_weights(model) for model in models]
    assert fingerprint(open_weights(out / "defended" / "badnet-seed0" / "moved")) == fingerprint(
        substitute(weights[0], weights[1], strategy.cells)
    )
    tuned = open_weights(out / "models" / "again-seed0" / "model")
    purified = open_weights(out / "defended" / "insertsent-seed0" / "GMS")
    assert fingerprint(tuned) == fingerprint(purified)  # for it was tuned at a rate of 0


def test_shards_that_need_the_same_cell_make_it_once(finished, tmp_path):
    """The first shard waits for the strategy that the last one finds, or finds it itself."""
    gms = {"suspect_rows": 8, "clean_rows": 12, "alpha": 0.0}
    moved = {
        **{"defense": {"class_path": "ModuleSubstitution"}, "others": ["benign"]},
        "strategy_from": ["insertsent", "GMS"],
    }
    found = {"defense": {"class_path": "GMS", "init_args": gms}, "others": ["benign"]}
    file = written(tmp_path, defenses={"moved": moved, "GMS": found})
    out = tmp_path / "out"
    command = ["study", "--config", file, "--models_from", finished, "--out", out, "--shard"]
    shards = [launch(*command, f"{i}/4") for i in (1, 3)]  # badnet, insertsent
    answers = [shard.answer() for shard in shards]
    assert [answer.returncode for answer in answers] == [0, 0], answers
    cells = [r.key for r in read_results(out / "results.jsonl") if r.defense != UNDEFENDED]
    assert len(set(cells)) == len(cells) == 2 * 2 * 2  # attacks, victims, defenses


def test_a_cell_that_fails_does_not_keep_the_others_from_being_done(finished, tmp_path, capsys):
    missing = {"class_path": "ModuleSubstitution", "init_args": {"strategy": "nowhere.yaml"}}
    defenses = {
        "moved": {"defense": missing, "others": ["benign"]},
        "WAG-benign": {"defense": {"class_path": "WAG"}, "others": ["benign"]},
    }
    file = written(tmp_path, defenses=defenses)
    options = ["--models_from", str(finished), "--out", str(tmp_path / "out")]
    assert main(["study", "--config", str(file), *options]) == 2
    printed = capsys.readouterr()
    assert "WAG-benign" in printed.out
    assert "2 of the defenses failed" in printed.err
    assert "moved of badnet-seed0: cannot read strategy nowhere.yaml" in printed.err
    results = read_results(tmp_path / "out" / "results.jsonl")
    failed = {r.defense: r.error for r in results if r.victim == "insertsent"}
    assert failed.pop("moved").startswith("cannot read strategy nowhere.yaml")
    assert failed == {"none": None, "WAG-benign": None}


def test_a_folder_without_models_is_no_other_study(tmp_path, capsys):
    options = ["--models_from", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["study", "--config", str(written(tmp_path)), *options]) == 2
    assert "is no folder of a study with models" in capsys.readouterr().err


def test_data_that_is_missing_is_told_before_the_first_model_is_trained(tmp_path, capsys):
    elsewhere = {"class_path": "SST2", "init_args": {"source": str(tmp_path / "nowhere")}}
    config = written(tmp_path, models={"benign": {}, "other": {"data": elsewhere}}, defenses={})
    assert main(["study", "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_others_trained_on_another_vocabulary_are_refused(tmp_path, capsys):
    config = yaml.safe_load(written(tmp_path).read_text())
    config["victim"]["init_args"]["config"] = TINY
    del config["start"]
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(config))
    # Each model learns the words of its own training rows, so the poisoned ones know more.
    assert main(["study", "--config", str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "vocabulary" in error
    assert "Traceback" not in error


assert os.environ["WANDB_MODE"] == "offline"
