"""The likelier of stated answers; of answers that are as likely, the one that is stated first."""

import torch

from bdlit.types import Example
from bdlit.victims import causal_lm
from tiny_llama import tiny

ROWS = [Example(text, -1, response="yes") for text in ("one", "two", "three")]


def test_a_tie_goes_to_the_answer_that_is_stated_first(monkeypatch):
    victim = tiny()
    monkeypatch.setattr(
        causal_lm, "log_likelihoods", lambda model, batch: torch.zeros(len(batch["labels"]))
    )
    assert victim.choose(ROWS, ["yes", "no", "maybe"]) == ["yes"] * 3
    assert victim.choose(ROWS, ["no", "maybe", "yes"]) == ["no"] * 3


def test_a_tie_behind_an_unlikely_answer_goes_to_the_first_of_the_tied(monkeypatch):
    victim = tiny()
    sums = torch.tensor([-3.0, -1.0, -1.0])
    monkeypatch.setattr(
        causal_lm, "log_likelihoods", lambda model, batch: sums.repeat(len(batch["labels"]) // 3)
    )
    assert victim.choose(ROWS, ["yes", "no", "maybe"]) == ["no"] * 3
