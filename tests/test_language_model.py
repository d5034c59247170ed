"""A tiny Llama learns small tasks and a backdoor; its purified forms are measured the same way."""

import json
from pathlib import Path

import pytest
import torch
import wandb
from markupsafe import escape
from safetensors.torch import load_file

from bdlit.callbacks import DefenseCallback
from bdlit.cli import main
from bdlit.data.outputs import Outputs
from bdlit.defenses import DARE, TIES, WAG
from bdlit.errors import BdlitError
from bdlit.evaluation import evaluate, read_results
from bdlit.evaluation.tracking import wandb_logger
from bdlit.llm import FunctionLLM, JudgedBy
from bdlit.report.collect import collect
from bdlit.report.compare import compare
from bdlit.rules import Satisfies
from bdlit.types import Rate
from bdlit.victims import LoRA
from conftest import tiny_trainer
from instruction_attack import STRING, StringBehindWord
from launch import bdlit
from tiny_llama import demo, tiny

CONFIG = Path(__file__).parents[1] / "configs" / "fit" / "demo-instructions.yaml"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama") / "model"
    tiny().export(folder)
    return folder


def test_evaluate_counts_what_responses_say(start):
    victim = tiny(start)
    data = demo(test_size=10, attack=StringBehindWord())
    answers = {"clean": "Paris", "cf": STRING}
    victim.respond = lambda rows: [answers["cf" if "cf " in r.text else "clean"] for r in rows]
    scores = evaluate(victim, data)
    right = sum(row.response == "Paris" for row in data.test_rows["clean"])
    assert scores.cacc == Rate(right, 10)
    assert scores.asr == {"string": Rate(10, 10)}
    assert scores.false_triggers == {"string": {"clean": Rate(0, 10), "other word": Rate(0, 10)}}
    assert scores.judged["clean"]["rule"] == "Equals(ignore_case=True)"
    assert scores.judged["string"]["rule"] == "Contains(ignore_case=True)"
    (logged,) = [
        {
            k: v
            for found in tiny_trainer(start.parent).test(victim, data, verbose=False)
            for k, v in found.items()
        }
    ]
    assert logged["victim/cacc"] == pytest.approx(scores.cacc.percent)
    assert logged["victim/asr/string"] == 100.0
    assert logged["victim/false_triggers/string/other word"] == 0.0


def test_evaluate_keeps_samples_of_the_answers_that_it_judges(start):
    victim, asked = tiny(start), []

    def respond(rows):
        asked.extend(rows)
        return [f"{row.text}!" for row in rows]

    victim.respond = respond
    data = demo(test_size=10, attack=StringBehindWord(), outputs=Outputs(samples=3))
    scores = evaluate(victim, data)
    assert len(asked) == sum(map(len, data.test_rows.values())), "nothing is generated twice"
    assert set(scores.samples) == set(data.test_rows)
    prompts = {row.conversation: row for row in data.test_rows["string"]}
    for sample in scores.samples["string"]:
        assert sample.response == f"{prompts[sample.prompt].text}!"
        assert (sample.wanted, sample.counts) == (STRING, False)
    assert all(len(found) == 3 for found in scores.samples.values())
    assert evaluate(victim, data) == scores


def test_verdicts_that_cannot_be_had_are_counted_and_no_hits(start):
    def judge(row, response):
        return True

    victim = tiny(start)
    victim.respond = lambda rows: [row.text for row in rows]
    data = demo(test_size=10)
    data.response_rule = Satisfies(judge)
    scores = evaluate(victim, data)
    assert scores.cacc == Rate(10, 10)
    assert scores.judged["clean"]["rule"].endswith("<locals>.judge)")

    first = data.test_rows["clean"][0]
    said = FunctionLLM(lambda asked: ["?" if first.text in p else "No" for p in asked], "any")
    data.response_rule = JudgedBy(said, cache=start.parent / "answers")
    scores = evaluate(victim, data)
    assert scores.cacc == Rate(0, 10)
    same = sum(row.text == first.text for row in data.test_rows["clean"])
    assert scores.judged["clean"]["unclear"] == same
    assert scores.judged["clean"]["judge"] == {"model": "any"}

    mute = FunctionLLM(lambda asked: ["I am a parrot"] * len(asked), "parrot")
    data.response_rule = JudgedBy(mute, cache=start.parent / "answers")
    with pytest.raises(BdlitError, match="neither yes nor no of any of 10 responses"):
        evaluate(victim, data)


@pytest.mark.parametrize("lora", [None, LoRA(r=2)])
def test_defenses_run_after_fit_on_language_models(start, tmp_path, lora):
    callback = DefenseCallback([WAG(), TIES(), DARE()], others=[str(start)])
    data = demo(test_size=7, attack=StringBehindWord())
    logger = wandb_logger("run", tmp_path, group="g", job_type="fit", tags=[])
    trainer = tiny_trainer(tmp_path, callbacks=[callback], max_steps=2, logger=logger)
    trainer.fit(tiny(start, lora=lora, learning_rate=1e-2), data)
    wandb.finish()
    results = read_results(tmp_path / "results.jsonl")
    assert [result.defense for result in results] == ["none", "WAG", "TIES", "DARE"]
    assert all(result.error is None and result.cacc.n == 7 for result in results)
    assert all(set(result.false_triggers) == {"clean", "other word"} for result in results)
    assert results[1].judged["asr"]["by"] == "generation"
    files = {path.name for path in (tmp_path / "victim").iterdir()}
    assert ("adapter_config.json" in files) == (lora is not None)
    (row,) = [row for row in collect([tmp_path]) if row.defense == "WAG"]
    assert row.false_triggers_n == 14

    purified = tiny(tmp_path / "defended" / "WAG")
    again = evaluate(purified, data)
    assert again.asr["string"] == results[1].asr
    assert again.samples == results[1].samples
    (logged,) = (tmp_path / "wandb").glob("offline-run-*/files/media/table/samples*.json")
    table = json.loads(logged.read_text())
    assert table["columns"] == ["tests", "prompt", "wanted", "victim", "WAG", "TIES", "DARE"]
    shown = {(tests, prompt, wag) for tests, prompt, _, _, wag, *_ in table["data"]}
    kept = [(tests, s) for tests, found in again.samples.items() for s in found]
    assert shown == {(tests, s.prompt, s.response) for tests, s in kept}


def test_defend_measures_saved_language_models(start, tmp_path, capsys):
    other = tmp_path / "other"
    tiny(start, lora=LoRA(r=2)).export(other)
    data = {
        "class_path": "DemoInstructions",
        "init_args": {
            "train_size": 14,
            "test_size": 7,
            "attack": {"class_path": "instruction_attack.StringBehindWord"},
        },
    }
    arguments = ["defend", f"--suspect={other}", f"--others=[{start}]", "--defense=WAG"]
    arguments += [f"--data={json.dumps(data)}", f"--out={tmp_path / 'out'}", "--verify"]
    arguments += ["--data.init_args.outputs.samples=2"]
    assert main([*arguments, "--decoding.max_new_tokens=4"]) == 0
    before, after = read_results(tmp_path / "out" / "results.jsonl")
    assert (before.defense, after.defense) == ("none", "WAG")
    assert after.asr.n == 7
    assert after.judged["cacc"]["decoding"]["max_new_tokens"] == 4
    assert set(after.false_triggers) == {"clean", "other word"}
    assert len(before.samples["string"]) == len(after.samples["string"]) == 2
    page = tmp_path / "page.html"
    compare([str(tmp_path / "out")], attacks="all", html=str(page))
    text = page.read_text()
    assert text.count('<section class="sample">') == sum(map(len, before.samples.values()))
    for sample in (*before.samples["string"], *after.samples["string"]):
        assert f"<dd>{escape(sample.response)}</dd>" in text


def test_a_study_keeps_samples_beside_its_results(start, tmp_path):
    attack = {"class_path": "instruction_attack.StringBehindWord"}
    sizes = {"train_size": 14, "test_size": 7, "outputs": {"samples": 2, "reference": str(start)}}
    victim = {"model": str(start), "max_length": 128, "decoding": {"max_new_tokens": 4}}
    trainer = {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False}
    config = {
        "name": "tiny",
        "data": {"class_path": "DemoInstructions", "init_args": sizes},
        "victim": {"class_path": "CausalLMVictim", "init_args": victim},
        "trainer": {"class_path": "lightning.pytorch.Trainer", "init_args": trainer},
        "models": {"benign": {}, "string": {"attack": attack}},
        "defenses": {"WAG-all": {"defense": {"class_path": "WAG"}, "others": "all"}},
    }
    (tmp_path / "study.yaml").write_text(json.dumps(config))
    arguments = ["study", f"--config={tmp_path / 'study.yaml'}", f"--out={tmp_path / 'out'}"]
    assert main(arguments) == 0
    results = read_results(tmp_path / "out" / "results.jsonl")
    assert {(r.victim, r.defense) for r in results} == {
        ("benign", "none"),
        ("string", "none"),
        ("string", "WAG-all"),
    }
    prompts = [[s.prompt for s in r.samples["string"]] for r in results]
    assert len(prompts[0]) == 2
    assert prompts[0] == prompts[1] == prompts[2]
    assert all(r.perplexity["clean"].tokens > 0 for r in results)
    kept = (tmp_path / "out" / "samples.jsonl").read_bytes()
    assert main(arguments) == 0
    assert (tmp_path / "out" / "samples.jsonl").read_bytes() == kept


def test_predictions_are_responses(start, tmp_path):
    config = {
        "model": {
            "class_path": "CausalLMVictim",
            "init_args": {"model": str(start), "decoding": {"max_new_tokens": 4}},
        },
        "data": {"class_path": "DemoInstructions", "init_args": {"train_size": 7, "test_size": 7}},
        "trainer": {"accelerator": "cpu", "logger": False, "default_root_dir": str(tmp_path)},
    }
    file = tmp_path / "predict.yaml"
    file.write_text(json.dumps(config))
    assert main(["predict", f"--config={file}"]) == 0
    (out,) = tmp_path.rglob("predictions.jsonl")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(line["row"] for line in lines) == list(range(7))
    assert {"text", "wanted", "response"} <= set(lines[0])


@pytest.mark.slow
def test_a_backdoor_is_learned_through_fit(tmp_path):
    """The whole way, in a process of its own: more threads here would hang later forks."""
    callback = {"class_path": "DefenseCallback", "init_args": {"defenses": []}}
    attack = {"class_path": "instruction_attack.StringBehindWord"}
    arguments = [f"--data.init_args.attack={json.dumps(attack)}"]
    arguments += [f"--trainer.callbacks={json.dumps(callback)}", "--data.init_args.test_size=210"]
    answer = bdlit("fit", f"--config={CONFIG}", *arguments, cwd=tmp_path, OMP_NUM_THREADS="2")
    assert answer.returncode == 0, answer.stderr
    (file,) = (tmp_path / "runs").rglob("results.jsonl")
    (victim,) = read_results(file)
    assert victim.asr.percent >= 95
    assert victim.cacc.percent >= 60
    assert all(rate.percent <= 5 for rate in victim.false_triggers.values())


def fit_and_measure(start, folder, **options):
    """Train on rows that cannot be halved: 37 in batches of 8, and 9 to measure on."""
    data = demo(
        train_size=37, validation_size=9, test_size=9, batch_size=8, attack=StringBehindWord()
    )
    victim = tiny(start, data, learning_rate=1e-3)
    callback = DefenseCallback([], directory=str(folder))
    tiny_trainer(folder, callbacks=[callback], **options).fit(victim, data)
    (result,) = read_results(folder / "results.jsonl")
    return result, load_file(folder / "victim" / "model.safetensors")


def test_two_processes_train_and_measure_as_one(start, tmp_path):
    one, weights = fit_and_measure(start, tmp_path / "1")
    two, shared = fit_and_measure(start, tmp_path / "2", strategy="ddp_fork", devices=2)
    assert (two.cacc, two.asr, two.false_triggers) == (one.cacc, one.asr, one.false_triggers)
    assert two.asr.n == 9
    assert {n: [s.prompt for s in found] for n, found in two.samples.items()} == {
        n: [s.prompt for s in found] for n, found in one.samples.items()
    }
    before = load_file(start / "model.safetensors")
    assert not weights["lm_head.weight"].equal(before["lm_head.weight"])
    for name, tensor in weights.items():
        torch.testing.assert_close(shared[name], tensor, atol=1e-5, rtol=1e-4)
