import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import ddp_fit
from bdlit.attacks import BadNet
from bdlit.callbacks import DefenseCallback
from bdlit.data.demo import DemoReviews
from bdlit.defenses import DARE, TIES, WAG
from bdlit.defenses.base import Defended, Defense
from bdlit.errors import BdlitError
from bdlit.evaluation import UNDEFENDED, evaluate, read_results
from bdlit.victims import ClassifierVictim
from bdlit.weights import fingerprint, open_weights
from bdlit.weights.network import model_weights
from conftest import tiny_trainer
from ddp_fit import fit_and_defend

CPU = torch.device("cpu")


def data(**options):
    settings = {"train_size": 96, "validation_size": 0, "test_size": 60, "attack": BadNet()}
    return DemoReviews(**{**settings, **options})


def victim_from(start, **options):
    return ClassifierVictim(str(start), max_length=64, learning_rate=1e-3, **options)


@pytest.fixture(scope="module")
def benign(tiny_start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benign")
    victim = victim_from(tiny_start)
    tiny_trainer(folder).fit(victim, data(attack=None))
    victim.export(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def run(tiny_start, benign, tmp_path_factory):
    """One fit with four defenses, everything that it wrote, and the victim as it was left."""
    folder = tmp_path_factory.mktemp("run")
    callback = DefenseCallback(
        [WAG(), TIES(), DARE(), DARE(merge="ties")],
        others=[str(benign)],
        benign=str(benign),
    )
    checkpoint = ModelCheckpoint(folder / "checkpoints", save_last=True)
    trainer = tiny_trainer(folder, callbacks=[callback, checkpoint], enable_checkpointing=True)
    victim, rows = victim_from(tiny_start), data()
    trainer.fit(victim, rows)
    return folder, callback, victim, rows


def test_every_defense_is_measured_on_every_test_set(run):
    folder, callback, _, _ = run
    results = read_results(folder / "results.jsonl")
    assert [r.defense for r in results] == [UNDEFENDED, "WAG", "TIES", "DARE", "DARE-TIES"]
    assert results == callback.results
    assert all(r.error is None and r.attack == r.victim == "badnet" for r in results)
    assert all(r.floor == results[0].floor and r.floor.n == 30 for r in results)
    assert all(r.cacc_before == results[0].cacc for r in results)


def test_the_victim_is_untouched_and_its_checkpoint_is_undefended(run):
    folder, _callback, victim, _ = run
    ours = fingerprint(model_weights(victim.model))
    assert fingerprint(open_weights(folder / "victim")) == ours
    assert fingerprint(open_weights(folder / "checkpoints" / "last.ckpt")) == ours


def test_a_saved_model_is_the_merge_and_has_the_recorded_scores(run, benign):
    folder, callback, _victim, rows = run
    saved = open_weights(folder / "defended" / "WAG")
    own, other = open_weights(folder / "victim"), open_weights(benign)
    for name in own:
        torch.testing.assert_close(saved[name], (own[name] + other[name]) / 2)
    loaded = victim_from(folder / "defended" / "WAG", labels=rows.labels)
    loaded.configure_model()
    scores = evaluate(loaded, rows)
    recorded = next(r for r in callback.results if r.defense == "WAG")
    assert (recorded.cacc, recorded.asr) == (scores.cacc, scores.asr["badnet"])


def test_saved_models_load_without_us_and_say_where_they_come_from(run, benign):
    folder, _, _, _ = run
    for name in ("WAG", "TIES", "DARE", "DARE-TIES"):
        directory = folder / "defended" / name
        AutoModelForSequenceClassification.from_pretrained(directory)
        AutoTokenizer.from_pretrained(directory)
        origin = json.loads((directory / "provenance.json").read_text())
        assert origin["name"] == name
        assert origin["given"]["others"] == [
            {"name": str(benign), "sha256": fingerprint(open_weights(benign))}
        ]
        assert origin["suspect"]["sha256"] == fingerprint(open_weights(folder / "victim"))
        assert set(origin["merged"]) | set(origin["copied"]) == set(open_weights(directory))
        assert origin["scores"]["cacc"]["n"] == 60


def test_a_second_run_into_the_same_folder_overwrites_nothing(run, tiny_start, benign):
    folder, _, _, _ = run
    before = (folder / "results.jsonl").read_bytes()
    callback = DefenseCallback([WAG()], others=[str(benign)])
    another = data(attack=BadNet(rate=0.4))
    tiny_trainer(folder, callbacks=[callback]).fit(victim_from(tiny_start), another)
    assert (folder / "results.jsonl").read_bytes() == before
    assert len(read_results(folder / "run" / "results.jsonl")) == 2
    shutil.rmtree(folder / "run")


def test_lora_victims_are_defended_as_dense_models(tiny_start, benign, tmp_path):
    from bdlit.victims import LoRA

    callback = DefenseCallback([WAG()], others=[str(benign)])
    victim = victim_from(tiny_start, lora=LoRA(r=2))
    tiny_trainer(tmp_path, callbacks=[callback]).fit(victim, data())
    assert [r.defense for r in callback.results] == [UNDEFENDED, "WAG"]
    assert any("lora_A" in name for name, _ in victim.model.named_parameters())
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "victim")


class Broken(Defense):
    """Return NaN."""

    def apply(self, suspect, *, others):
        weights = {name: tensor * float("nan") for name, tensor in suspect.items()}
        return Defended(weights=weights, merged=list(weights), copied=[])


def test_a_defense_that_fails_takes_nothing_with_it(tiny_start, benign, tmp_path):
    callback = DefenseCallback([Broken(), WAG()], others=[str(benign)])
    victim = victim_from(tiny_start)
    with pytest.raises(BdlitError, match=r"1 of the defenses failed.*Broken of badnet: Broken ret"):
        tiny_trainer(tmp_path, callbacks=[callback]).fit(victim, data())
    _victim_result, broken, wag = callback.results
    assert "NaN or infinity" in broken.error
    assert broken.asr is None
    assert wag.error is None
    assert not (tmp_path / "defended" / "Broken").exists()


def expect_refusal(tiny_start, tmp_path, message, **options):
    callback = DefenseCallback([WAG()], **options)
    trainer = tiny_trainer(tmp_path, callbacks=[callback])
    with pytest.raises(BdlitError, match=message) as raised:
        trainer.fit(victim_from(tiny_start), data())
    assert "\n" not in str(raised.value)
    assert trainer.global_step == 0, "refused before training, not after"


def test_others_of_another_shape_are_refused_before_training(tiny_start, benign, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(benign, tmp_path / "other")
    file = tmp_path / "other" / "model.safetensors"
    weights = load_file(file)
    weights["classifier.weight"] = torch.zeros(3, 32)
    save_file(weights, file, {"format": "pt"})
    expect_refusal(tiny_start, tmp_path, "classifier.weight", others=[str(tmp_path / "other")])


def test_others_with_another_vocabulary_of_the_same_size_are_refused(tiny_start, benign, tmp_path):
    shutil.copytree(benign, tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    text = file.read_text()
    assert '"plot"' in text
    file.write_text(text.replace('"plot"', '"other"'))
    expect_refusal(tiny_start, tmp_path, "another vocabulary", others=[str(tmp_path / "other")])


def test_others_that_are_not_there_are_refused_before_training(tiny_start, tmp_path):
    expect_refusal(tiny_start, tmp_path, "nowhere", others=[str(tmp_path / "nowhere")])


def test_a_pickle_with_code_in_it_does_not_run(tiny_start, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"classifier.weight": Evil()}, tmp_path / "evil.bin")
    expect_refusal(tiny_start, tmp_path, r"evil\.bin", others=[str(tmp_path / "evil.bin")])
    assert not (tmp_path / "owned").exists()


def test_defenses_without_others_are_refused_at_once():
    with pytest.raises(BdlitError, match="WAG needs others: give other models"):
        DefenseCallback([WAG()])


def test_two_processes_find_the_numbers_of_one(tiny_start, benign, tmp_path):
    fit_and_defend(str(tiny_start), str(benign), str(tmp_path / "1"), devices=1)
    answer = subprocess.run(
        [sys.executable, ddp_fit.__file__, tiny_start, benign, tmp_path / "2", "2"],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert answer.returncode == 0, answer.stderr
    printed = [json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("1", "2")]
    one, two = (read_results(tmp_path / n / "results.jsonl") for n in ("1", "2"))
    assert [(r.key, r.cacc, r.asr, r.floor) for r in one] == [
        (r.key, r.cacc, r.asr, r.floor) for r in two
    ]
    assert two[0].cacc.n == 61
    assert printed[0]["val/cacc"] == printed[1]["val/cacc"]
    assert printed[0]["val/asr/badnet"] == printed[1]["val/asr/badnet"]
    traces = [json.loads((tmp_path / d / "defended/GMS/search.json").read_text()) for d in "12"]
    assert traces[0] == traces[1]
    weights = [open_weights(tmp_path / d / "defended" / "WAG") for d in ("1", "2")]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-5)
