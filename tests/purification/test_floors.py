"""The floor is the benign model's, of the same seed, behind every door: with models that say one
thing to everything, so that nothing else gives the same numbers."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from bdlit.attacks import BadNet
from bdlit.callbacks import DefenseCallback
from bdlit.cli import main
from bdlit.data.demo import DemoReviews
from bdlit.defenses import WAG
from bdlit.evaluation import read_results
from bdlit.report import collect
from bdlit.types import Rate
from bdlit.victims import ClassifierVictim
from conftest import tiny_trainer

SIZES = {"train_size": 32, "validation_size": 0, "test_size": 20}
TARGET = 0  # of the demo's attacks


def saying(start, folder, label):
    """A model that gives every text one label."""
    folder.mkdir(parents=True)
    for file in start.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"] = torch.eye(2)[label] * 1000
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def models(tiny_start, tmp_path_factory):
    """A victim that always says the target, and a benign model that never does."""
    folder = tmp_path_factory.mktemp("models")
    return saying(tiny_start, folder / "victim", TARGET), saying(
        tiny_start, folder / "benign", 1 - TARGET
    )


def require_own_floor(results, victim=100.0, floor=0.0):
    undefended = next(r for r in results if r.defense == "none" and r.victim != "benign")
    assert (undefended.asr.percent, undefended.floor.percent) == (victim, floor)
    assert undefended.excess == victim - floor
    assert all(r.floor == undefended.floor for r in results if r.victim == undefended.victim)


def test_after_fit(models, tmp_path):
    victim, benign = models
    callback = DefenseCallback([WAG()], others=[str(benign)], benign=str(benign), save=False)
    data = DemoReviews(**SIZES, attack=BadNet())
    fitted = ClassifierVictim(str(victim), max_length=64, learning_rate=0.0)
    tiny_trainer(tmp_path, callbacks=[callback], max_steps=1).fit(fitted, data)
    require_own_floor(callback.results)


def test_by_command(models, tmp_path, capsys):
    victim, benign = models
    command = ["defend", f"--suspect={victim}", f"--others=[{benign}]", f"--benign={benign}"]
    command += ["--defense=WAG", f"--out={tmp_path / 'out'}", "--max_length=64"]
    command += ["--data=DemoReviews", *(f"--data.{n}={v}" for n, v in SIZES.items())]
    command += ["--attacks=[{class_path: BadNet}]"]
    assert main(command) == 0, capsys.readouterr().err
    require_own_floor(read_results(tmp_path / "out" / "results.jsonl"))


def test_in_a_study_it_is_of_the_same_seed(tiny_start, tmp_path):
    """The benign model of seed 1 says the target to everything, that of seed 0 never does."""
    made = tmp_path / "made" / "models"
    for seed in (0, 1):
        saying(tiny_start, made / f"benign-seed{seed}" / "model", TARGET if seed else 1 - TARGET)
        saying(tiny_start, made / f"badnet-seed{seed}" / "model", TARGET)
    victim = {"class_path": "ClassifierVictim", "init_args": {"model": str(tiny_start)}}
    config = {
        "name": "floors",
        "seeds": [0, 1],
        "data": {"class_path": "DemoReviews", "init_args": SIZES},
        "victim": {**victim, "init_args": {**victim["init_args"], "max_length": 64}},
        "trainer": {
            "class_path": "lightning.pytorch.Trainer",
            "init_args": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
        },
        "models": {"benign": {}, "badnet": {"attack": {"class_path": "BadNet"}}},
        "floor": "benign",
        "defenses": {},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    command = ["study", f"--config={tmp_path / 'study.yaml'}", f"--out={tmp_path / 'out'}"]
    assert main([*command, f"--models_from={tmp_path / 'made'}"]) == 0
    found = {
        r.seed: r for r in read_results(tmp_path / "out" / "results.jsonl") if r.victim == "badnet"
    }
    assert {seed: r.floor.percent for seed, r in found.items()} == {0: 0.0, 1: 100.0}
    assert {seed: r.excess for seed, r in found.items()} == {0: 100.0, 1: 0.0}
    rows = {(r.victim, r.seed): r for r in collect([tmp_path / "out"])}
    assert {s: rows["badnet", s].floor for s in (0, 1)} == {0: 0.0, 1: 100.0}
    file = tmp_path / "out" / "results.jsonl"  # of a version that recorded no floors
    lines = [json.loads(line) for line in file.read_text().splitlines() if line]
    file.write_text("".join(json.dumps({**each, "floor": None}) + "\n" for each in lines))
    rows = {(r.victim, r.seed): r for r in collect([tmp_path / "out"])}
    assert {s: rows["badnet", s].floor for s in (0, 1)} == {0: 0.0, 1: 100.0}
    assert rows["benign", 1].asr_n == Rate(10, 10).n
