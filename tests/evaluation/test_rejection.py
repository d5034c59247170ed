"""Guards of inputs: rejection is counted, nothing is given away, and a misfit is one clear line."""

from dataclasses import dataclass, field

import pytest
import torch

from bdlit.data.outputs import Outputs
from bdlit.errors import BdlitError
from bdlit.evaluation import evaluate
from bdlit.evaluation.evaluate import REJECTED
from bdlit.evaluation.guards import Cleaned
from bdlit.llm import FunctionLLM, JudgedBy
from bdlit.types import NO_CLASS, Example, Rate, Turn
from bdlit.victims import ClassifierVictim
from bdlit.victims.perplexity import perplexity
from instruction_attack import StringBehindWord
from scripted import Sets
from tiny_llama import demo, tiny

NEGATIVE = {"classifier.weight": torch.zeros(2, 32), "classifier.bias": torch.tensor([1.0, 0])}
"""Weights that say class 0 to everything."""


@dataclass
class Guard:
    """Reject what holds the word `odd`, and write down what comes in."""

    name = "Guard"
    rejects = True
    seen: list = field(default_factory=list)

    def clean(self, rows, *, victim=None):
        self.seen += rows
        bad = [i for i, row in enumerate(rows) if "odd" in row.text]
        return Cleaned(rows=rows, rejected=bad, notes={"looked at": len(rows), "by": "word"})


class Silent(Guard):
    """A guard that does not say that it rejects."""

    rejects = False


def rows(*texts, label=0):
    return [Example(text, label) for text in texts]


@pytest.fixture(scope="module")
def victim(tiny_start):
    victim = ClassifierVictim(str(tiny_start), labels=["negative", "positive"], max_length=64)
    victim.configure_model()
    return victim


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama") / "model"
    tiny().export(folder)
    return folder


# Of 5 clean rows, 3 are negative; the model is right on these. `odd` is rejected: one of the 3
# and one of the others. A whole batch of triggered rows is rejected, and half of the next.
SETS = {
    "clean": rows("one", "odd two", "three") + rows("odd four", "five", label=1),
    "cba": rows("odd a", "odd b", "odd c", "d"),
    "cba/first": rows("odd first", "second"),
}


def test_rejected_rows_are_no_hits_and_are_counted(victim):
    notes = {}
    scores = evaluate(victim, Sets(SETS), NEGATIVE, inputs=Guard(), notes=notes)
    assert scores.cacc == Rate(2, 5)
    assert scores.asr == {"cba": Rate(1, 4)}
    assert scores.false_triggers == {"cba": {"first": Rate(1, 2)}}
    assert scores.false_rejection == Rate(2, 5)
    assert scores.false_acceptance == {"cba": Rate(1, 4)}
    assert notes == {"inputs": {"defense": "Guard", "looked at": 11, "by": "word"}}
    assert scores.samples == {}


def test_the_model_runs_on_accepted_rows_alone(victim, monkeypatch):
    ran = []
    whole = type(victim).verdicts
    monkeypatch.setattr(
        type(victim), "verdicts", lambda self, r, rule: ran.extend(r) or whole(self, r, rule)
    )
    evaluate(victim, Sets(SETS), inputs=Guard())
    assert [row.text for row in ran] == ["one", "three", "five", "d", "second"]


def test_rejection_is_measured_of_what_can_reject_or_did(victim):
    calm = Sets({"clean": rows("one"), "cba": rows("two")})
    assert evaluate(victim, calm).measures == {}
    assert evaluate(victim, calm, inputs=Silent()).measures == {}
    assert evaluate(victim, calm, inputs=Guard()).false_rejection == Rate(0, 1)
    assert evaluate(victim, calm, inputs=Guard()).false_acceptance == {"cba": Rate(1, 1)}
    assert evaluate(victim, Sets(SETS), inputs=Silent()).false_rejection == Rate(2, 5)


MARKED = Example(
    "cf one",
    0,
    text_pair="pair",
    poisoned=True,
    orig_label=1,
    response="hacked",
    orig_response="fine",
    history=(Turn("user", "before"),),
)


def test_a_guard_sees_texts_and_no_marks(victim):
    guard = Guard()
    evaluate(victim, Sets({"clean": [MARKED]}), inputs=guard)
    assert guard.seen == [Example("cf one", NO_CLASS, text_pair="pair", history=MARKED.history)]


def test_only_texts_are_taken_over_from_a_guard(victim, monkeypatch):
    class Liar(Guard):
        def clean(self, rows, *, victim=None):
            made = Example("new", 1, response="forged", orig_label=0, history=(Turn("user", "x"),))
            return Cleaned(rows=[made] * len(rows))

    ran = []
    whole = type(victim).verdicts
    monkeypatch.setattr(
        type(victim), "verdicts", lambda self, r, rule: ran.extend(r) or whole(self, r, rule)
    )
    evaluate(victim, Sets({"clean": [MARKED]}), inputs=Liar())
    (row,) = ran
    assert (row.text, row.text_pair, row.history) == ("new", None, (Turn("user", "x"),))
    assert (row.label, row.response, row.orig_label) == (0, "hacked", 1)
    assert row.poisoned


@pytest.mark.parametrize(
    ("cleaned", "line"),
    [
        (lambda rows: Cleaned(rows=rows[1:]), "Bad returned 1 rows of 2: "),
        (lambda rows: Cleaned(rows=[*rows, *rows]), "Bad returned 4 rows of 2: "),
        (lambda rows: Cleaned(rows=rows, rejected=[2]), "Bad rejects row 2 of 2: "),
        (lambda rows: Cleaned(rows=rows, rejected=[-1]), "Bad rejects row -1 of 2: "),
    ],
)
def test_a_guard_that_does_not_fit_is_one_clear_line(victim, cleaned, line):
    class Bad(Guard):
        name = "Bad"

        def clean(self, rows, *, victim=None):
            return cleaned(rows)

    with pytest.raises(BdlitError, match=line) as raised:
        evaluate(victim, Sets({"clean": rows("one", "two")}), inputs=Bad())
    assert "\n" not in str(raised.value)


def test_a_guard_of_answers_needs_a_language_model(victim):
    with pytest.raises(BdlitError, match=r"Guard .* language model"):
        evaluate(victim, Sets(SETS), answers=Guard())


class Known(Guard):
    """Reject some texts."""

    def __init__(self, rows):
        self.texts = {row.text for row in rows}

    def clean(self, rows, *, victim=None):
        bad = [i for i, row in enumerate(rows) if row.text in self.texts]
        return Cleaned(rows=rows, rejected=bad)


@pytest.mark.parametrize("batch", [4, 10])
def test_a_rejected_prompt_has_a_sample_and_is_no_text_of_the_model(start, batch):
    """However rows fall into batches: the first is rejected whole, or in part."""
    victim = tiny(start)
    outputs = Outputs(reference=str(start), samples=99)
    data = demo(test_size=10, outputs=outputs, attack=StringBehindWord(), eval_batch_size=batch)
    tests = data.test_rows["clean"]
    guard = Known(tests[:4])
    out = [i for i in range(10) if tests[i].text in guard.texts]
    scores = evaluate(victim, data, inputs=guard)
    assert scores.false_rejection == Rate(len(out), 10)
    victim.model.eval()
    said = [REJECTED if i in out else victim.respond([row])[0] for i, row in enumerate(tests)]
    shown = {(row.conversation, each) for row, each in zip(tests, said, strict=True)}
    assert {(each.prompt, each.response) for each in scores.samples["clean"]} == shown
    own = [text for i, text in enumerate(said) if i not in out]
    expected = perplexity(victim.model, victim.tokenizer, own)
    assert scores.perplexity["clean"].tokens == expected.tokens
    assert scores.perplexity["clean"].nats == pytest.approx(expected.nats, rel=1e-4)


def test_a_judge_without_a_verdict_is_refused_though_rows_were_rejected(start):
    data = demo(test_size=10, eval_batch_size=10)
    mute = FunctionLLM(lambda asked: ["I am a parrot"] * len(asked), "parrot")
    data.response_rule = JudgedBy(mute, cache=start.parent / "answers")
    guard = Known(data.test_rows["clean"][:4])
    left = sum(row.text not in guard.texts for row in data.test_rows["clean"])
    assert 0 < left < 10
    with pytest.raises(BdlitError, match=f"neither yes nor no of any of {left} responses"):
        evaluate(tiny(start), data, inputs=guard)
