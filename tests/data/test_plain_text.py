import json
import math

import pytest
import torch

from bdlit.data import DemoInstructions, PlainText
from bdlit.data.small_tasks import TASKS, small_tasks
from bdlit.errors import BdlitError
from bdlit.types import Example
from bdlit.victims.perplexity import perplexity
from conftest import tiny_trainer
from tiny_llama import LLAMA, tiny

TEXTS = [f"The {i}th  night was dark,\nand wolf {i} sat on hill {i}. It slept." for i in range(40)]


@pytest.fixture
def files(tmp_path):
    for name, texts in (("one", [*TEXTS[:25], " "]), ("two", TEXTS[25:])):
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    return [str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl")]


def test_texts_are_learned_in_pieces_but_for_those_held_out(files):
    data = PlainText(texts=files, words=6, held_out=10, seed=1)
    data.setup()
    again = PlainText(texts=files, words=6, held_out=10, seed=2)
    again.setup()
    assert data.train_rows == again.train_rows, "the same texts whatever the seed"
    held = data.test_rows["clean"]
    assert data.val_rows["clean"] == held
    assert (len(data.train_rows), len(held)) == (30 * 3, 10 * 3)
    whole = ["  ".join(t.split("  ")) for t in TEXTS]
    first = [row.response for row in held[:3]]
    assert any(text == f"{first[0]} {first[1]} {first[2]}" or first[0] in text for text in whole)
    assert not {row.response for row in data.train_rows[::3]} & {row.response for row in held[::3]}
    assert all(row.plain for row in held)


@pytest.mark.parametrize("wrong", [{"words": 0}, {"held_out": 0}, {"held_out": 40}])
def test_what_is_out_of_range_is_refused(files, wrong):
    with pytest.raises(BdlitError, match=f"{next(iter(wrong))} .* out of range"):
        PlainText(texts=files, **wrong).setup()


def test_all_of_a_plain_text_is_learned_and_it_has_no_end():
    victim = tiny()
    ids = victim.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    rows = [Example("", -1, response=TEXTS[0]), small_tasks(1, seed=0)[0]]
    batch = victim.tokenize(rows)
    bos = victim.tokenizer.bos_token_id
    assert batch["input_ids"][0, : len(ids) + 1].tolist() == [bos, *ids]
    assert batch["labels"][0, : len(ids) + 1].tolist() == [-100, *ids]
    assert (batch["labels"][1] == victim.tokenizer.eos_token_id).sum() == 1
    long = victim.tokenize([Example("", -1, response=" ".join(TEXTS))])
    assert long["input_ids"].shape == (1, victim.max_length), "a text may be cut, an answer never"


def test_a_fit_learns_and_logs_the_loss_of_texts_held_out(files, tmp_path):
    victim = tiny_victim()
    data = PlainText(texts=files, held_out=10, batch_size=8)
    trainer = tiny_trainer(tmp_path, max_epochs=12)
    trainer.fit(victim, data)
    loss = float(trainer.callback_metrics["val/loss"])
    texts = [row.response for row in data.test_rows["clean"]]
    with torch.no_grad():
        exact = perplexity(victim.network().eval(), victim.tokenizer, texts)
    assert math.isclose(math.exp(loss), exact.value, rel_tol=1e-4)
    assert exact.value < 20, "of 400 tokens"


def tiny_victim():
    from bdlit.victims import CausalLMVictim

    settings = {**LLAMA, "initializer_range": 0.02}
    return CausalLMVictim(
        config=settings, max_length=64, decoding={"max_new_tokens": 8}, learning_rate=1e-2
    )


def test_the_demo_has_the_tasks_that_are_named():
    data = DemoInstructions(train_size=20, test_size=20, tasks=["capital", "count"])
    assert data.load("train") == small_tasks(20, 0, ["capital", "count"])
    assert all(("animal" in row.text) == (i % 2 == 1) for i, row in enumerate(data.load("train")))
    assert small_tasks(14, 3) == small_tasks(14, 3, list(TASKS))
    with pytest.raises(BdlitError, match="no small task 'counts': did you mean 'count'"):
        small_tasks(1, 0, ["counts"])
    with pytest.raises(BdlitError, match="leaves no task"):
        small_tasks(1, 0, [])
