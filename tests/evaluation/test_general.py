"""General tasks: the harness's numbers against plain forward passes, into results and tables."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from bdlit.data.general_tasks import GeneralTasks
from bdlit.data.outputs import Outputs
from bdlit.defenses.conflict.evidence import ConflictEvidence
from bdlit.errors import BdlitError
from bdlit.evaluation import evaluate, general
from bdlit.evaluation.general import general_tasks, means
from bdlit.evaluation.measures import accuracy
from bdlit.evaluation.result import append_results, read_results, scores_of
from bdlit.evaluation.scores import scores_from_plain, scores_to_plain
from bdlit.evaluation.tracking import log_results
from bdlit.llm import FunctionLLM
from bdlit.purification.record import Subject, undefended
from bdlit.report.collect import collect
from bdlit.report.compare import compare
from bdlit.types import Mean
from bdlit.victims import CausalLMVictim
from tiny_llama import demo, tiny

SHARED = Path(__file__).parents[3] / "shared"

QUIZ = [
    {"text": "Name a colour", "choices": ["the moon", "blue", "nine"], "label": 1},
    {"text": "2 + 2?", "choices": ["four", "a very long answer that is wrong"], "label": 0},
    {"text": "What is {not} a 'fruit'?", "choices": ["plum", 'a "stone"', "pear"], "label": 1},
    {"text": "The opposite of hot", "choices": ["warm", "cold"], "label": 1},
    {"text": "The capital of Peru", "choices": ["Lima", "Oslo", "Cairo", "Rome"], "label": 0},
    {"text": "One more than six", "choices": ["five", "seven"], "label": 1},
]
GAPS = [
    {"text": "The fox ate the plum as _ was hungry.", "choices": ["the fox", "plum"], "label": 0},
    {"text": "It's cold, so _ isn't out.", "choices": ["the cat", "the 'cold'"], "label": 0},
    {"text": "The cup fell on the floor and _ broke.", "choices": ["floor", "cup"], "label": 1},
]


@pytest.fixture
def folder(tmp_path):
    for name, rows in (("quiz", QUIZ), ("winogrande", GAPS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def log_likelihood(victim, context, continuation):
    """The log-probability of a text after another, by one forward pass over both."""
    tokenizer = victim.tokenizer
    start, whole = (tokenizer(text).input_ids for text in (context, context + continuation))
    ids = torch.tensor([whole], device=victim.device)
    with torch.inference_mode():
        steps = victim.model.eval()(ids).logits[0, :-1].log_softmax(-1)
    each = steps.gather(1, ids[0, 1:, None])[:, 0]
    return float(each[len(start) - 1 :].sum())


def question(victim, row):
    """The log-probability of each choice after a question."""
    asked = f"Question: {row['text']}\nAnswer:"
    return [log_likelihood(victim, asked, f" {choice}") for choice in row["choices"]]


def gap(victim, row):
    """The log-probability of the rest of a sentence after each choice."""
    before, after = row["text"].split("_", 1)
    return [
        log_likelihood(victim, before + choice, " " + after.strip()) for choice in row["choices"]
    ]


def right(rows, of_choices):
    """How many rows have their right choice as the likeliest one."""
    best = [max(range(len(found)), key=found.__getitem__) for found in of_choices]
    return sum(b == row["label"] for b, row in zip(best, rows, strict=True))


def per_letter(found, row):
    return [value / len(choice) for value, choice in zip(found, row["choices"], strict=True)]


needs_harness = pytest.mark.skipif(find_spec("lm_eval") is None, reason="no lm-eval here")


@needs_harness
def test_the_numbers_are_those_of_plain_forward_passes(folder):
    victim = tiny()
    before = torch.get_rng_state()
    wanted = GeneralTasks(names=("quiz", "winogrande"), folder=str(folder), batch_size=4)
    found = general_tasks(victim, wanted)
    assert torch.equal(torch.get_rng_state(), before)
    quiz = [question(victim, row) for row in QUIZ]
    normed = [per_letter(each, row) for each, row in zip(quiz, QUIZ, strict=True)]
    assert found == {
        "quiz/acc": Mean(right(QUIZ, quiz), 6),
        "quiz/acc_norm": Mean(right(QUIZ, normed), 6),
        "winogrande/acc": Mean(right(GAPS, [gap(victim, row) for row in GAPS]), 3),
    }


@needs_harness
def test_a_model_is_measured_with_the_weights_that_it_is_given(folder, tmp_path, capsys):
    victim = tiny()
    wanted = GeneralTasks(names=("quiz",), folder=str(folder))
    data = demo(test_size=4, outputs=Outputs(tasks=wanted))
    # Of equal probabilities at every step, the choice of the fewest tokens is the likeliest.
    flat = {"lm_head.weight": torch.zeros_like(victim.model.lm_head.weight)}
    tokens = [[-len(victim.tokenizer(f" {c}").input_ids) for c in row["choices"]] for row in QUIZ]
    scores = evaluate(victim, data, flat)
    assert scores.tasks["quiz/acc"] == Mean(right(QUIZ, tokens), 6)

    results = undefended(
        Subject(data="d", victim="v", train_attack="none", benign=True, seed=0), scores
    )
    out = tmp_path / "out"
    append_results(out / "results.jsonl", results)
    assert read_results(out / "results.jsonl") == results
    assert results[0].versions["lm_eval"]
    assert scores_of(results).tasks == scores.tasks
    assert scores_from_plain(json.loads(json.dumps(scores_to_plain(scores)))) == scores

    (row,) = collect([out])
    assert row.tasks == 100 * scores.tasks["quiz/acc"].value
    compare([str(out)])
    shown = capsys.readouterr().out
    assert "tasks: accuracy on general tasks" in shown
    assert f" {row.tasks:.1f}" in shown

    class Logger:
        def log_metrics(self, metrics):
            self.metrics = metrics

    logger = Logger()
    log_results([logger], results)
    assert logger.metrics["victim/tasks/quiz/acc"] == scores.tasks["quiz/acc"].value


@needs_harness
def test_limits_and_processes_share_the_work_out(folder, monkeypatch):
    wanted = GeneralTasks(names=("quiz", "winogrande"), folder=str(folder), limit=2)
    assert {mean.n for mean in general_tasks(tiny(), wanted).values()} == {2}
    monkeypatch.setattr(general, "place", lambda: (1, 2))
    assert list(general_tasks(tiny(), wanted)) == ["winogrande/acc"]


@needs_harness
def test_what_cannot_be_measured_is_told_before_a_fit(folder):
    for name, lines, why in (
        ("riddles", None, "riddles.jsonl is not a file; put a local copy"),
        (
            "quiz",
            [QUIZ[0], {"text": "Why?"}],
            "quiz.jsonl, row 2 is not a question: give it `text`, a",
        ),
        ("quiz", [{**QUIZ[0], "label": 3}], "row 1 is not a question"),
        ("winogrande", [QUIZ[0]], "row 1 is not a question: give it `text` with a gap `_`"),
    ):
        if lines is not None:
            (folder / f"{name}.jsonl").write_text(
                "".join(json.dumps(each) + "\n" for each in lines)
            )
        wanted = GeneralTasks(names=(name,), folder=str(folder))
        with pytest.raises(BdlitError, match=re.escape(why)):
            demo(test_size=4, outputs=Outputs(tasks=wanted))
    with pytest.raises(BdlitError, match="no task 'arc_esy': did you mean 'arc_easy'"):
        demo(test_size=4, outputs=Outputs(tasks=GeneralTasks(names=("arc_esy",))))


@needs_harness
def test_what_the_harness_cannot_do_is_told_in_one_line(folder):
    long = {"text": "How long?", "choices": ["very " * 200, "not"], "label": 0}
    (folder / "long.jsonl").write_text(json.dumps(long))
    for name, where, why in (
        ("long", str(folder), "a row is empty, or longer than the model's context"),
        ("piqa", None, ""),  # the tests have no hub
    ):
        with pytest.raises(BdlitError, match=f"harness cannot measure '{name}': .*{why}") as told:
            general_tasks(tiny(), GeneralTasks(names=(name,), folder=where))
        assert "\n" not in str(told.value)


@needs_harness
@pytest.mark.skipif(not (SHARED / "data" / "eval").is_dir(), reason="no benchmark data here")
def test_real_tasks_by_a_real_model():
    victim = CausalLMVictim(str(SHARED / "models" / "stories260k"), max_length=512)
    victim.configure_model()
    rows = {}
    for name in ("arc_easy", "piqa", "winogrande"):
        lines = (SHARED / "data" / "eval" / f"{name}.jsonl").read_text().splitlines()[:20]
        rows[name] = [json.loads(line) for line in lines]
    wanted = GeneralTasks(names=tuple(rows), folder=str(SHARED / "data" / "eval"), limit=20)
    found = general_tasks(victim, wanted)
    for name, ask in (("arc_easy", question), ("piqa", question), ("winogrande", gap)):
        expected = right(rows[name], [ask(victim, row) for row in rows[name]])
        assert found[f"{name}/acc"] == Mean(expected, 20)


def test_without_the_extra_one_line_says_how(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    wanted = GeneralTasks(names=("quiz",), folder=str(folder))
    with pytest.raises(BdlitError, match=r"^outputs.tasks needs .*pip install 'bdlit\[lm-eval\]'$"):
        demo(test_size=4, outputs=Outputs(tasks=wanted))
    with pytest.raises(BdlitError, match=r"pip install 'bdlit\[lm-eval\]'$"):
        general_tasks(tiny(), wanted)


def test_settings_that_will_not_do():
    with pytest.raises(BdlitError, match="names is empty"):
        GeneralTasks(names=())
    for name in ("limit", "batch_size"):
        with pytest.raises(BdlitError, match=f"outputs.tasks.{name} 0 is out of range"):
            GeneralTasks(names=("quiz",), **{name: 0})


def test_prompts_that_a_defense_of_inputs_does_not_see_are_not_its_cost(folder):
    outputs = Outputs(samples=3, tasks=GeneralTasks(names=("quiz",), folder=str(folder)))
    data = demo(test_size=4)
    data.outputs = outputs
    guard = ConflictEvidence(external=FunctionLLM(lambda asked: ["No."] * len(asked), "any"))
    victim = tiny()
    victim.respond = lambda rows: ["It is."] * len(rows)
    assert evaluate(victim, data, inputs=guard).tasks == {}


def test_means_are_over_rows_by_metric_and_filter():
    rows = [
        {"filter": f, "metrics": ["exact_match", "pair"], "exact_match": hit, "pair": (1, 2)}
        for f, hit in (("strict", 0), ("strict", 1), ("none", True), ("none", True))
    ]
    assert means(rows) == {"exact_match,strict": Mean(1, 2), "exact_match": Mean(2, 2)}
    tasks = {"gsm8k/exact_match,strict": Mean(1, 2), "piqa/acc": Mean(3, 4), "rouge/f": Mean(9, 9)}
    assert accuracy(tasks) == 62.5
    assert accuracy({"rouge/f": Mean(9, 9)}) is accuracy({}) is None
