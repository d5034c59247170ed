"""The one path from (victim, data) to CACC and ASR."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from bdlit.data.false_triggers import CLEAN, case_of
from bdlit.data.outputs import Outputs
from bdlit.errors import BdlitError
from bdlit.evaluation.guards import AnswerGuard, Gate, InputGuard
from bdlit.evaluation.measure import Answered, Measured
from bdlit.evaluation.measures import MEASURES
from bdlit.evaluation.sampling import draw
from bdlit.evaluation.scores import Scores
from bdlit.rules import Rule
from bdlit.types import NO_CLASS, Example, Rate, Sample, Weights
from bdlit.victims.base import Verdicts, Victim
from bdlit.victims.causal_lm import GENERATION, CausalLMVictim
from bdlit.victims.metrics import ClassCounts, HitRate
from bdlit.weights.network import in_eval_mode, swapped

REJECTED = "[rejected]"
"""What stands in the place of an answer where the input was rejected."""


class NamedTests(Protocol):
    """Data with named test loaders, each of them batches of rows."""

    outputs: Outputs
    seed: int

    def test_dataloader(self) -> Mapping[str, Iterable[Any]]:
        """Return the loaders by name: `clean`, one per evaluation attack, `<attack>/<case>`."""

    def rule(self, name: str) -> Rule:
        """Return how the responses to a test set are judged."""


def evaluate(
    victim: Victim,
    data: NamedTests,
    weights: Weights | None = None,
    *,
    inputs: InputGuard | None = None,
    answers: AnswerGuard | None = None,
    notes: dict[str, Any] | None = None,
) -> Scores:
    """Measure CACC, ASR and false triggers on every test loader of the data.

    Under a process group each process measures its share of the batches and the integer counts
    are summed: the result is that of one process. The computation runs in the precision of the
    victim's trainer, if it has one.

    Args:
        victim: The model to measure, on the device where it is to run.
        data: Named test loaders; ASR loaders hold triggered non-target rows labelled with the
            target.
        weights: Measure the victim with these weights in place of its own.
        inputs: What cleans or rejects its inputs. A rejected row is neither a hit nor a right
            answer; the model is not run on it. General tasks are not measured behind it.
        answers: What decodes in its place.
        notes: Takes what `inputs` has to say.

    Raises:
        BdlitError: Responses cannot be judged, or a model or a task that `data.outputs` names
            cannot be loaded.
    """
    model = victim.network()
    other = swapped(model, weights) if weights is not None else nullcontext()
    rates: dict[str, Rate] = {}
    flips: dict[str, Rate] = {}
    rejected: dict[str, Rate] = {}
    judged, answered, written, outputs = {}, {}, {}, data.outputs
    gate = Gate(inputs, victim, notes)
    decoding = _answering(victim, answers)
    guarded = inputs is not None
    found = Measured(victim=victim, outputs=outputs, rates=rates, flips=flips, guarded=guarded)
    with in_eval_mode(model), other, precision_of(victim), victim.remembering(), decoding:
        for name, loader in data.test_dataloader().items():
            rule = data.rule(name)
            batches = gate.batches(loader)
            classes = len(victim.labels or ()) if name == CLEAN else 0
            tests = _measured(victim, batches, rule, classes)
            rates[name], rejected[name] = tests.hits, tests.rejected
            flips[name] = tests.flips
            if classes:
                found.classes = tests.classes
            answered[name], written[name] = tests.answered, tests.written
            judged[name] = victim.described(rule)
            if tests.unclear.hits:
                judged[name]["unclear"] = tests.unclear.hits
                _require_some_verdict(tests, rule, name)
        in_place = {m.key: m.compute(found) for m in MEASURES if m.in_place}
    samples = {name: draw(each, outputs.samples, data.seed) for name, each in answered.items()}
    found.generated = {n: each for n, each in written.items() if judged[n].get("by") == GENERATION}
    gate.report()
    if gate.rejects or any(rate.hits for rate in rejected.values()):
        found.rejected = rejected
    values = in_place | {m.key: m.compute(found) for m in MEASURES if not m.in_place}
    _warn(values)
    return Scores(
        cacc=rates[CLEAN],
        asr={name: rate for name, rate in rates.items() if name != CLEAN and not case_of(name)},
        judged={name: how for name, how in judged.items() if how},
        samples={name: drawn for name, drawn in samples.items() if drawn},
        measures={key: value for key, value in values.items() if value},
    )


@dataclass(frozen=True, kw_only=True)
class _Tests:
    """What was found on a test set.

    Attributes:
        hits: Share of hits.
        unclear: Share of rows without a verdict.
        rejected: Share of rejected rows.
        flips: Share of rows that are given another class than the true one, where that is known.
        classes: Numbers of rows by class, as they are labelled and as the model predicts.
        answered: Rows that this process has seen, with what is shown as their responses.
        written: Those of them that the model has answered.
    """

    hits: Rate
    unclear: Rate
    rejected: Rate
    flips: Rate
    classes: tuple[Sequence[int], Sequence[int]]
    answered: Answered
    written: Answered


def _measured(
    victim: Victim,
    batches: Iterable[tuple[list[Example], list[bool]]],
    rule: Rule,
    classes: int,
) -> _Tests:
    """Run a test set; rows are counted by class where there are `classes` to count."""
    hits, unclear, rejected, flips = (HitRate().to(victim.device) for _ in range(4))
    true, given = (ClassCounts(classes).to(victim.device) for _ in range(2))
    answered, written = [], []
    with torch.inference_mode():
        for rows, out in batches:
            found = _verdicts(victim, rows, out, rule)
            hits.update(found.hits)
            unclear.update(found.unclear)
            rejected.update(torch.tensor(out, device=victim.device))
            flips.update(_flipped(rows, found))
            if classes and found.predicted is not None:
                true.update(torch.tensor([row.label for row in rows], device=victim.device))
                given.update(found.predicted)
            if found.responses:
                seen = zip(rows, found.responses, found.hits.tolist(), out, strict=True)
                for row, response, hit, no_answer in seen:
                    sample = Sample(row.conversation, row.response or "", response, hit)
                    answered.append((row, sample))
                    if not no_answer:  # `REJECTED` is not the model's own text
                        written.append((row, sample))
    return _Tests(
        hits=hits.rate(),
        unclear=unclear.rate(),
        rejected=rejected.rate(),
        flips=flips.rate(),
        classes=(true.tally(), given.tally()),
        answered=answered,
        written=written,
    )


def _flipped(rows: Sequence[Example], found: Verdicts) -> Tensor:
    """Return which rows of a known true class were given another, shape [those rows]."""
    if found.predicted is None:
        return torch.zeros(0, dtype=torch.bool, device=found.hits.device)
    # A label that an attack has changed is known to have been another.
    known = torch.tensor([row.orig_label is not None for row in rows], dtype=torch.bool)
    truth = torch.tensor([row.true_label for row in rows], device=found.predicted.device)
    flipped = (found.predicted != truth) & (found.predicted != NO_CLASS)
    return flipped[known.to(flipped.device)]


def _verdicts(victim: Victim, rows: list[Example], rejected: list[bool], rule: Rule) -> Verdicts:
    """Return the verdicts on rows; a rejected row is no hit, and the model never sees it."""
    if not any(rejected):
        return victim.verdicts(rows, rule)
    accepted = [i for i, out in enumerate(rejected) if not out]
    hits = torch.zeros(len(rows), dtype=torch.bool, device=victim.device)
    unclear = torch.zeros_like(hits)
    said: dict[int, str] = {}
    predicted = None if victim.labels is None else torch.full_like(hits, NO_CLASS, dtype=torch.long)
    if accepted:
        found = victim.verdicts([rows[i] for i in accepted], rule)
        hits[accepted], unclear[accepted] = found.hits, found.unclear
        if predicted is not None and found.predicted is not None:
            predicted[accepted] = found.predicted
        else:
            predicted = None
        said = dict(zip(accepted, found.responses, strict=True)) if found.responses else {}
    # Of a batch that is rejected whole, only the victim's kind tells that it would have answered.
    if not (said or victim.described(rule)):
        return Verdicts(hits, unclear, predicted=predicted)
    return Verdicts(hits, unclear, [said.get(i, REJECTED) for i in range(len(rows))])


def _answering(victim: Victim, answers: AnswerGuard | None) -> AbstractContextManager[None]:
    if answers is None:
        return nullcontext()
    if not isinstance(victim, CausalLMVictim):
        raise BdlitError(f"{answers.name} guards the answers of a language model: take one")
    return victim.answering(answers)


def _require_some_verdict(tests: _Tests, rule: Rule, name: str) -> None:
    """Refuse a rate of 0 that is the judge's fault; no judge sees rejected rows."""
    responses = tests.unclear.n - tests.rejected.hits
    if tests.unclear.hits == responses:
        raise BdlitError(
            f"{rule.described['rule']}, which judges '{name}', said neither yes nor no of any of "
            f"{responses} responses: mend its template, or take another judge"
        )


def _warn(values: Mapping[str, Any]) -> None:
    """Tell at once of a model that something is wrong with."""
    for measure in MEASURES:
        if measure.warning and (value := values.get(measure.key)) is not None:
            number = measure.number(value)
            rank_zero_warn(f"the model {measure.warning.format(number)}")


def precision_of(victim: Victim) -> AbstractContextManager[None]:
    """Return the context of forward passes in the precision of the victim's trainer."""
    trainer = victim._trainer
    return nullcontext() if trainer is None else trainer.precision_plugin.forward_context()
