"""When a candidate of GMS is given up, and whose outcomes a memo holds."""

from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from bdlit.defenses.gms import search_setup
from bdlit.defenses.gms.score import Score
from bdlit.defenses.gms.search_setup import MEMO, Running, counter_of
from bdlit.defenses.gms.search_space import SearchSpace
from bdlit.defenses.modules import module_types
from bdlit.types import Example
from bdlit.victims import ClassifierVictim
from bdlit.weights.network import model_weights
from conftest import TINY

# The suspect rows are the shorter ones, so that their batches come first.
SUSPECT = [Example("good", label) for label in (0, 1) for _ in range(8)]
CLEAN = [Example("a good film with a story " * n, n % 2) for n in range(3, 9)]


@pytest.fixture(autouse=True)
def _many_batches(monkeypatch):
    """Of models as small as these, all rows would be one batch, and nothing be given up."""
    monkeypatch.setattr(search_setup, "_overhead", lambda *_: 0.0)


def made(tiny_start, seed):
    victim = ClassifierVictim(
        config={**TINY, "num_hidden_layers": 2},
        tokenizer=str(tiny_start),
        max_length=64,
        init_seed=seed,
        labels=("negative", "positive"),
    )
    victim.configure_model()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in victim.network().parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
    return victim.eval()


@contextmanager
def counting(victim, proxy, clean=CLEAN, **running):
    layout = module_types("bert", model_weights(victim.network()))
    space = SearchSpace("modules and layers", layout)
    with counter_of(
        victim, proxy, SUSPECT, clean, layout=layout, space=space, running=Running(**running)
    ) as counter:
        yield counter, space


def states(space):
    """What a first step looks at: everything but one module type."""
    types, layers = space.everything
    return [(tuple(t for t in types if t != gone), layers) for gone in types]


def test_a_candidate_that_can_only_draw_level_is_given_up(tiny_start):
    """The proxy is the suspect itself, so that every candidate scores the same."""
    victim = made(tiny_start, 0)
    with torch.no_grad():
        right = victim(victim.tokenize(CLEAN)).argmax(dim=1).tolist()
    clean = [replace(row, label=label) for row, label in zip(CLEAN, right, strict=True)]
    with counting(victim, model_weights(victim.network()), clean) as (counter, space):
        score = Score(counter.whole(space.nothing))
        first, *others = counter(states(space), score)
    assert score.complete(first)
    assert others
    for tally in others:
        assert tally.suspect == first.suspect  # the last hit among them takes the last hope
        assert tally.clean.n < first.clean.n
        assert score.most(tally) == score.of(first)


def test_a_candidate_that_can_still_win_is_not(tiny_start):
    """Of candidates that get better one by one, each is looked at to the end."""
    victim, proxy = made(tiny_start, 0), made(tiny_start, 1)
    with counting(victim, model_weights(proxy.network()), stop_early=False) as (counter, space):
        score = Score(counter.whole(space.nothing))
        whole = dict(zip(states(space), counter(states(space), score), strict=True))
    rising = sorted(whole, key=lambda state: score.of(whole[state]))
    better = [rising[0]]
    better += [s for s in rising[1:] if score.of(whole[s]) > score.of(whole[better[-1]])]
    assert any(
        whole[later].clean.hits > whole[earlier].clean.hits
        and whole[later].suspect.hits >= whole[earlier].suspect.hits
        for earlier, later in pairwise(better)
    ), "a candidate has to win by the rows that are looked at last"
    with counting(victim, model_weights(proxy.network())) as (counter, space):
        counter.whole(space.nothing)
        assert counter(better, score) == [whole[state] for state in better]


@pytest.mark.parametrize("changed", ["proxy", "suspect"])
def test_a_memo_knows_whose_hybrids_it_counted(tiny_start, tmp_path, changed):
    victim, proxy = made(tiny_start, 0), made(tiny_start, 1)
    other = made(tiny_start, 2)
    pairs = [(victim, proxy), (other, proxy) if changed == "suspect" else (victim, other)]
    found, fresh = [], []
    for suspect, donor in pairs:
        weights = model_weights(donor.network())
        for kept, options in ((found, {"workspace": tmp_path}), (fresh, {})):
            with counting(suspect, weights, stop_early=False, **options) as (counter, space):
                score = Score(counter.whole(space.nothing))
                kept.append([counter.whole(space.nothing), *counter(states(space), score)])
    assert found == fresh
    assert found[0] != found[1]
    assert (tmp_path / MEMO).is_file()
