"""The one path from (victim, data) to CACC and ASR."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch

from bdlit.data.false_triggers import CLEAN, attack_of, case_of
from bdlit.responses import Rule
from bdlit.types import Example, Rate, Scores, Weights
from bdlit.victims.base import Victim, in_eval_mode, swapped
from bdlit.victims.metrics import HitRate


class NamedTests(Protocol):
    """Data with named test loaders, each of them batches of rows."""

    def test_dataloader(self) -> Mapping[str, Iterable[Any]]:
        """Return the loaders by name: `clean`, one per evaluation attack, `<attack>/<case>`."""

    def rule(self, name: str) -> Rule:
        """Return how the responses to a test set are judged."""


def evaluate(victim: Victim, data: NamedTests, weights: Weights | None = None) -> Scores:
    """Measure CACC, ASR and false triggers on every test loader of the data.

    Under a process group each process measures its share of the batches and the integer counts
    are summed: the result is that of one process. The computation runs in the precision of the
    victim's trainer, if it has one.

    Args:
        victim: The model to measure, on the device where it is to run.
        data: Named test loaders; ASR loaders hold triggered non-target rows labelled with the
            target.
        weights: Measure the victim with these weights in place of its own.
    """
    model = victim.network()
    other = swapped(model, weights) if weights is not None else nullcontext()
    rates, judged = {}, {}
    with in_eval_mode(model), other:
        for name, loader in data.test_dataloader().items():
            rule = data.rule(name)
            rates[name] = _hit_rate(victim, loader, rule)
            judged[name] = victim.described(rule)
    return Scores(
        cacc=rates[CLEAN],
        asr={name: rate for name, rate in rates.items() if name != CLEAN and not case_of(name)},
        false_triggers=_by_attack(rates),
        judged={name: how for name, how in judged.items() if how},
    )


def _by_attack(rates: Mapping[str, Rate]) -> dict[str, dict[str, Rate]]:
    found: dict[str, dict[str, Rate]] = {}
    for name, rate in rates.items():
        if case := case_of(name):
            found.setdefault(attack_of(name), {})[case] = rate
    return found


def _hit_rate(victim: Victim, batches: Iterable[list[Example]], rule: Rule) -> Rate:
    metric = HitRate().to(victim.device)
    with torch.inference_mode(), precision_of(victim):
        for rows in batches:
            metric.update(victim.judge(rows, rule))
    return metric.rate()


def precision_of(victim: Victim) -> AbstractContextManager[None]:
    """Return the context of forward passes in the precision of the victim's trainer."""
    trainer = victim._trainer
    return nullcontext() if trainer is None else trainer.precision_plugin.forward_context()
