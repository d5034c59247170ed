"""A saved suspect with data: each purified model is measured once, and as the callback does."""

import json
import resource
import shutil
import signal

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from bdlit.attacks import BadNet
from bdlit.callbacks import DefenseCallback
from bdlit.cli import main
from bdlit.data.demo import DemoReviews
from bdlit.defenses import TIES, WAG, Fisher
from bdlit.evaluation import evaluate, read_results
from bdlit.victims import ClassifierVictim
from bdlit.weights import fingerprint, open_weights
from conftest import TINY, inspected, tiny_trainer
from launch import bdlit

DATA = {"train_size": 96, "validation_size": 0, "test_size": 60, "clean_pool_size": 8}


@pytest.fixture(scope="module")
def run(tiny_start, tmp_path_factory):
    """A run of the callback: its folder, and the benign model that it merged with."""
    root = tmp_path_factory.mktemp("case")
    benign = ClassifierVictim(str(tiny_start), max_length=64, learning_rate=1e-3)
    tiny_trainer(root).fit(benign, DemoReviews(**DATA))
    benign.export(root / "benign")
    callback = DefenseCallback(
        [WAG(), TIES(), Fisher()], others=[str(root / "benign")], base=str(tiny_start)
    )
    victim = ClassifierVictim(str(tiny_start), max_length=64, learning_rate=1e-3)
    data = DemoReviews(**DATA, attack=BadNet())
    tiny_trainer(root / "run", callbacks=[callback]).fit(victim, data)
    return root


def defend(run, base, out, *more):
    return main(
        [
            *("defend", "--suspect", str(run / "run" / "victim")),
            *("--others", json.dumps([str(run / "benign")]), "--base", str(base)),
            "--defense=[{class_path: WAG}, {class_path: TIES}, {class_path: Fisher}]",
            *("--data=DemoReviews", *(f"--data.{name}={value}" for name, value in DATA.items())),
            "--attacks=[{class_path: BadNet}]",
            *("--benign", str(run / "benign"), "--max_length=64", "--out", str(out), *more),
        ]
    )


def test_the_command_gives_what_the_callback_gave(run, tiny_start, tmp_path, capsys):
    assert defend(run, tiny_start, tmp_path / "out") == 0
    shown = capsys.readouterr().out
    by_callback = {r.defense: r for r in read_results(run / "run" / "results.jsonl")}
    by_command = {r.defense: r for r in read_results(tmp_path / "out" / "results.jsonl")}
    assert set(by_command) == {"none", "WAG", "TIES", "Fisher"}
    for name, result in by_command.items():
        expected = by_callback[name]
        assert (result.cacc, result.asr) == (expected.cacc, expected.asr), name
        assert result.floor is not None
        assert f"{result.asr.hits}/{result.asr.n}" in shown
        if name != "none":
            card = (tmp_path / "out" / name / "README.md").read_text()
            assert f"({result.asr.hits}/{result.asr.n})" in card
            assert result.train_attack == "unknown"
    for name in ("WAG", "TIES", "Fisher"):
        found, expected = (
            open_weights(f / name) for f in (tmp_path / "out", run / "run" / "defended")
        )
        assert all(torch.allclose(found[n], expected[n], atol=1e-6) for n in expected)

    (log,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    summary = inspected(log)["summary"]
    assert summary["WAG/asr/badnet"] == by_command["WAG"].asr.percent

    # Once more: what is finished is not done again, and nothing is recorded twice.
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    times = {f: f.stat().st_mtime_ns for f in (tmp_path / "out").glob("*/*")}
    assert defend(run, tiny_start, tmp_path / "out") == 0
    assert "WAG: finished before" in capsys.readouterr().out
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before
    assert times == {f: f.stat().st_mtime_ns for f in (tmp_path / "out").glob("*/*")}


def fails(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("bdlit: error: ")]
    assert len(lines) == 1, captured.err
    return lines[0]


def test_a_folder_of_something_else_is_not_touched(run, tiny_start, tmp_path, capsys):
    (tmp_path / "out" / "WAG").mkdir(parents=True)
    assert defend(run, tiny_start, tmp_path / "out") == 2
    assert "holds something else" in capsys.readouterr().err
    assert list((tmp_path / "out" / "WAG").iterdir()) == []


def test_what_is_missing_is_told(run, tiny_start, tmp_path, capsys):
    suspect, benign, out = run / "run" / "victim", run / "benign", tmp_path / "out"
    few = ["--suspect", suspect, "--others", f"[{benign}]", "--out", out]
    assert "base" in fails(capsys, "merge", *few, "--defense=TIES")
    told = "Fisher needs clean, victim: give `data` with a clean_pool_size"
    assert told in fails(capsys, "merge", *few, "--defense=Fisher")
    assert told in fails(capsys, "defend", *few, "--defense=Fisher")
    assert "--data as well" in fails(capsys, "defend", *few, "--defense=WAG", "--benign", benign)
    assert "did you mean 'WAG'" in fails(capsys, "merge", *few, "--defense=WAGG")
    assert "--recipe" in fails(capsys, "merge", "--out", out, "--others", f"[{benign}]")
    assert not out.exists()


def test_classes_of_the_data_in_another_order_are_refused(run, tmp_path, capsys):
    suspect = run / "run" / "victim"
    more = ["--data=DemoReviews", '--data.label_names=["positive", "negative"]']
    few = ["--suspect", suspect, "--others", f"[{run / 'benign'}]", "--out", tmp_path / "out"]
    assert "every score would be wrong" in fails(capsys, "defend", *few, "--defense=WAG", *more)


def test_a_merge_by_recipe_is_the_merge_by_its_defense(run, tmp_path, capsys):
    suspect, benign = run / "run" / "victim", run / "benign"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"merge_method: linear\nmodels: [{{model: {suspect}}}, {{model: {benign}}}]\n"
        "parameters: {weight: 1}\n"
    )
    assert main(["merge", "--recipe", str(recipe), "--out", str(tmp_path / "a"), "--verify"]) == 0
    assert "verified: BertForSequenceClassification" in capsys.readouterr().out
    few = ["--suspect", str(suspect), "--others", f"[{benign}]", "--out", str(tmp_path / "b")]
    assert main(["merge", *few, "--defense=WAG"]) == 0
    one, other = open_weights(tmp_path / "a"), open_weights(tmp_path / "b")
    assert all(torch.allclose(one[name], other[name], atol=1e-7) for name in other)


def limit_files_to_ten_kilobytes():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))


def test_a_full_disk_leaves_nothing_half_written(run, tmp_path):
    few = ["--suspect", run / "run" / "victim", "--others", f"[{run / 'benign'}]"]
    answer = bdlit(
        "merge",
        *map(str, few),
        "--defense=WAG",
        f"--out={tmp_path / 'out'}",
        before=limit_files_to_ten_kilobytes,
    )
    assert answer.returncode == 2, answer.stderr
    assert "cannot write" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("learned", [False, True], ids=["tokenizer given", "tokenizer learned"])
def test_a_lightning_checkpoint_comes_out_as_a_directory(run, tiny_start, tmp_path, learned):
    if learned:
        victim = ClassifierVictim(config=TINY, max_length=64)
    else:
        victim = ClassifierVictim(str(tiny_start), max_length=64)
    trainer = tiny_trainer(tmp_path, limit_train_batches=1)
    trainer.fit(victim, DemoReviews(**DATA, attack=BadNet()))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    victim.export(tmp_path / "model")
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "model", other)
    for name, suspect in (("a", "last.ckpt"), ("b", "model")):
        command = ["--suspect", tmp_path / suspect, "--others", f"[{other}]", "--defense=WAG"]
        assert main(["merge", *map(str, command), f"--out={tmp_path / name}", "--verify"]) == 0
    found, expected = (open_weights(tmp_path / name) for name in "ab")
    assert fingerprint(found) == fingerprint(expected)
    ours, theirs = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("a", "model"))
    assert ours.get_vocab() == theirs.get_vocab()
    configs = [AutoConfig.from_pretrained(tmp_path / name) for name in ("a", "model")]
    assert configs[0].id2label == configs[1].id2label == {0: "negative", 1: "positive"}

    command = ["--suspect", tmp_path / "last.ckpt", "--others", f"[{other}]", "--defense=WAG"]
    data = ["--data=DemoReviews", *(f"--data.{key}={value}" for key, value in DATA.items())]
    assert main(["defend", *map(str, command), *data, f"--out={tmp_path / 'out'}"]) == 0
    suspect, _ = read_results(tmp_path / "out" / "results.jsonl")
    victim.to("cpu")
    data_module = DemoReviews(**DATA)
    data_module.setup()
    assert suspect.cacc == evaluate(victim, data_module).cacc
