"""The search of GMS against a plain restatement: deep copies, no cache, no early end."""

import copy
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context

import pytest
import torch
import torch.distributed as dist

from bdlit.data.demo import DemoReviews
from bdlit.defenses.gms.counting import chunks_of
from bdlit.defenses.gms.greedy import greedy_search
from bdlit.defenses.gms.score import Score
from bdlit.defenses.gms.search_setup import Running, counter_of
from bdlit.defenses.gms.search_space import SearchSpace
from bdlit.defenses.modules import ARCHITECTURES, module_types
from bdlit.errors import BdlitError
from bdlit.merging import substitute
from bdlit.types import Example
from bdlit.victims import ClassifierVictim, LoRA
from bdlit.weights.network import model_weights, swapped
from instruction_attack import StringBehindWord
from plain_gms import plain_search
from tiny_llama import demo, taught, tiny

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
ENCODER = {**SMALL, "intermediate_size": 32}
DECODER = {**SMALL, "num_key_value_heads": 1, "intermediate_size": 24}
CONFIGS = {
    "bert": {"model_type": "bert", **ENCODER, "num_hidden_layers": 3},
    "roberta": {"model_type": "roberta", **ENCODER},
    "distilbert": {"model_type": "distilbert", "dim": 16, "hidden_dim": 32}
    | {"n_layers": 2, "n_heads": 2},
    "deberta-v2": {"model_type": "deberta-v2", **ENCODER, "relative_attention": True}
    | {"pos_att_type": ["c2p", "p2c"], "position_buckets": 8, "share_att_key": True},
    "deberta": {"model_type": "deberta", **ENCODER, "relative_attention": True}
    | {"pos_att_type": ["c2p", "p2c"]},
    "modernbert": {"model_type": "modernbert", **SMALL, "intermediate_size": 24},
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2},
    "llama": {"model_type": "llama", **DECODER},
    "mistral": {"model_type": "mistral", **DECODER},
    "qwen2": {"model_type": "qwen2", **DECODER},
    "gemma": {"model_type": "gemma", **DECODER, "head_dim": 8},
}


@pytest.fixture(scope="module")
def rows():
    data = DemoReviews(train_size=60, validation_size=0, test_size=4)
    data.setup()
    return data.train_rows[:30], data.train_rows[30:]


@pytest.fixture(scope="module")
def make_victim(tiny_start):
    def make(architecture, seed):
        victim = ClassifierVictim(
            config=CONFIGS[architecture],
            tokenizer=str(tiny_start),
            max_length=64,
            init_seed=seed,
            labels=("negative", "positive"),
        )
        victim.configure_model()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():  # strong enough that modules matter, and that classes vary
            for weight in victim.network().parameters():
                if weight.dim() > 1:
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
        return victim.eval()

    return make


def plain_hits(victim, model, rows):
    """All rows in one batch, padded and tokenised anew."""
    batch = victim.tokenize(rows)
    labels = batch.pop("labels")
    with torch.no_grad():
        return int((model(**batch).logits.argmax(-1) == labels).sum())


PREFIX = {
    "bert": "bert.encoder.layer",
    "roberta": "roberta.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
    **dict.fromkeys(("deberta", "deberta-v2"), "deberta.encoder.layer"),
    "gpt2": "transformer.h",
    **dict.fromkeys(("modernbert", "llama", "mistral", "qwen2", "gemma"), "model.layers"),
}


@contextmanager
def searching(victim, donor, rows, **running):
    layout = module_types(victim.network().config.model_type, model_weights(victim.network()))
    space = SearchSpace("modules and layers", layout)
    with counter_of(
        victim, donor, *rows, layout=layout, space=space, running=Running(**running)
    ) as counter:
        yield counter, space


def search(victim, donor, rows, patience=5, **running):
    with searching(victim, donor, rows, **running) as (counter, space):
        score = Score(counter.whole(space.nothing))
        watch = lambda step, best: counter.move_to(step.chosen.state)  # noqa: E731
        return greedy_search(space.axes, counter, score, patience=patience, watch=watch)


def hits(candidate):
    return candidate.tally.suspect.hits, candidate.tally.clean.hits


def require_same(found, plain):
    """All candidates of a search have the counts of the restatement, and the same ones won."""
    assert hits(found.start) == plain["start"]
    assert [[hits(c) for c in step.candidates] for step in found.steps] == [
        looks for looks, _ in plain["steps"]
    ]
    assert [step.candidates.index(step.chosen) for step in found.steps] == [
        top for _, top in plain["steps"]
    ]
    assert (found.best.score, *map(list, found.best.state)) == plain["best"]


def require_same_choices(quick, found):
    """A search that gives candidates up finds the same, and gives up none that could have won."""
    assert quick.best == found.best
    assert [step.chosen for step in quick.steps] == [step.chosen for step in found.steps]
    for own, full in zip(quick.steps, found.steps, strict=True):
        for a, b in zip(own.candidates, full.candidates, strict=True):
            assert a == b or (a.score is None and b.score <= full.chosen.score)


@pytest.mark.parametrize(("architecture", "seed"), [*((name, 0) for name in CONFIGS), ("bert", 1)])
def test_the_trace_is_that_of_the_plain_restatement(make_victim, rows, architecture, seed):
    victim, donor = make_victim(architecture, seed), make_victim(architecture, seed + 10)
    count = partial(plain_hits, victim)
    plain = plain_search(victim.network(), donor.network(), *rows, PREFIX[architecture], count)
    donor = model_weights(donor.network())
    before = {k: v.clone() for k, v in model_weights(victim.network()).items()}

    found = search(victim, donor, rows, stop_early=False, cache=0.0, first_position=False)
    require_same(found, plain)
    require_same(search(victim, donor, rows, stop_early=False), plain)
    quick = search(victim, donor, rows, workers=2)
    require_same_choices(quick, found)

    after = model_weights(victim.network())
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_adapters_are_searched_as_the_dense_models_that_they_are(make_victim, rows, tiny_start):
    """The plain restatement copies lora_A and lora_B, without their common scaling."""
    victims = []
    for seed in (0, 1):
        victim = ClassifierVictim(
            config=CONFIGS["bert"],
            tokenizer=str(tiny_start),
            max_length=64,
            labels=("negative", "positive"),
            lora={"r": 2, "alpha": 6},
        )
        victim.configure_model()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in victim.network().named_parameters():
                if "lora_" in name:
                    weight.copy_(torch.randn(weight.shape, generator=generator))
        victims.append(victim.eval())
    victim, proxy = (v.network() for v in victims)
    with victims[1].dense() as model:
        donor = model_weights(model)
    with victims[0].dense(), searching(victims[0], donor, rows, stop_early=False) as (count, space):
        found = greedy_search(space.axes, count, Score(count.whole(space.nothing)), patience=2)
    for step in found.steps:
        for candidate in step.candidates:
            hybrid = copy.deepcopy(victim)
            for key, layers in space.replaced(candidate.state).items():
                for layer in layers:
                    path = f"bert.encoder.layer.{layer}.{ARCHITECTURES['bert'][key]}"
                    ours = hybrid.base_model.model.get_submodule(path)
                    theirs = proxy.base_model.model.get_submodule(path)
                    ours.lora_A.load_state_dict(theirs.lora_A.state_dict())
                    ours.lora_B.load_state_dict(theirs.lora_B.state_dict())
            assert hits(candidate) == tuple(plain_hits(victims[0], hybrid, part) for part in rows)


def test_an_interrupted_search_goes_on_and_finds_the_same(make_victim, rows, tmp_path):
    victim = make_victim("bert", 0)
    donor = model_weights(make_victim("bert", 10).network())
    whole = search(victim, donor, rows, workspace=tmp_path / "whole")
    calls, hits_of = [0], victim.hits

    def interrupted(batch):
        calls[0] += 1
        if calls[0] == 40:
            raise KeyboardInterrupt
        return hits_of(batch)

    victim.hits = interrupted
    with pytest.raises(KeyboardInterrupt):
        search(victim, donor, rows, workspace=tmp_path, workers=1)
    calls[0] = -(10**6)
    assert search(victim, donor, rows, workspace=tmp_path) == whole
    rest = calls[0] + 10**6
    calls[0] = -(10**6)
    assert search(victim, donor, rows, workspace=tmp_path) == whole
    assert calls[0] + 10**6 == 0 < rest

    memo = tmp_path / "outcomes.jsonl"
    memo.write_text(memo.read_text() + '["half a line')
    assert search(victim, donor, rows, workspace=tmp_path) == whole
    memo.write_text(memo.read_text() + "no outcome\n")
    with pytest.raises(BdlitError, match=r"outcomes\.jsonl, line \d+ is not an outcome"):
        search(victim, donor, rows, workspace=tmp_path)
    calls[0] = -(10**6)
    search(victim, donor, (rows[1], rows[0]), workspace=tmp_path)  # other rows: begun anew
    assert calls[0] + 10**6 > 0


def shared_search(rank, folder, *arguments):
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    address = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.save(search(*arguments, workers=1), folder / str(rank))
    dist.destroy_process_group()


def test_two_processes_find_what_one_finds(make_victim, rows, tmp_path):
    victim, donor = make_victim("bert", 0), model_weights(make_victim("bert", 10).network())
    alone = search(victim, donor, rows, workers=1)
    processes = [
        get_context("fork").Process(target=shared_search, args=(n, tmp_path, victim, donor, rows))
        for n in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / str(n), weights_only=False) for n in range(2))
    assert first == second
    assert (first.start, first.best, first.ended) == (alone.start, alone.best, alone.ended)
    require_same_choices(first, search(victim, donor, rows, stop_early=False))


def test_a_memo_is_of_the_rows_as_the_model_sees_them(make_victim, rows, tmp_path):
    victim = make_victim("bert", 0)
    donor = model_weights(make_victim("bert", 10).network())
    search(victim, donor, rows, workspace=tmp_path)
    victim.max_length = 5
    assert search(victim, donor, rows, workspace=tmp_path) == search(victim, donor, rows)


def test_rows_of_one_length_that_are_padded_together_keep_their_mask(make_victim):
    """Beside a row with a second text, one without gets a separator more than alone."""
    victim = make_victim("bert", 0)
    rows = [Example("good good good good", 1), Example("good good", 1, text_pair="good")]
    assert len({victim.tokenize([row])["input_ids"].shape[1] for row in rows}) == 1
    (together,) = chunks_of(victim, rows, overhead=1000)
    assert not together.inputs["attention_mask"].all()
    (alone,) = chunks_of(victim, rows[:1], overhead=1000)
    assert "attention_mask" not in alone.inputs


@pytest.mark.parametrize("granularity", ["modules", "layers", "cells"])
def test_other_granularities_count_what_they_say(make_victim, rows, granularity):
    victim = make_victim("gpt2", 0)
    model = victim.network()
    donor = make_victim("gpt2", 10).network()
    layout = module_types("gpt2", model_weights(model))
    space = SearchSpace(granularity, layout)
    with counter_of(
        victim, model_weights(donor), *rows, layout=layout, space=space, running=Running()
    ) as counter:
        score = Score(counter.whole(space.nothing))
        found = greedy_search(space.axes, counter, score, patience=1)
    sizes = {"modules": 6, "layers": 2, "cells": 12}
    assert len(found.steps[0].candidates) == sizes[granularity]
    for candidate in found.steps[0].candidates:
        weights = dict(
            substitute(model_weights(model), model_weights(donor), space.cells(candidate.state))
        )
        if candidate.score is not None:
            with swapped(model, weights):
                assert hits(candidate) == tuple(plain_hits(victim, model, part) for part in rows)


def decoded_hits(victim, model, rows):
    """Greedy decoding, one prompt and one token at a time, against the row's answer."""
    found = 0
    for row in rows:
        batch = victim.tokenize([row])
        answered = batch["labels"][0] >= 0
        ids, answer = batch["input_ids"][:, ~answered], batch["labels"][0, answered].tolist()
        for token in answer:
            with torch.no_grad():
                said = model(input_ids=ids).logits[0, -1].argmax().item()
            if said != token:
                break
            ids = torch.cat([ids, torch.tensor([[said]])], dim=1)
        else:
            found += 1
    return found


@pytest.mark.parametrize("lora", [None, LoRA(r=4, alpha=12)], ids=["full", "adapters"])
def test_answers_of_a_language_model_are_those_of_the_plain_restatement(lora, tmp_path):
    """It decodes, and of adapters copies lora_A and lora_B; the search looks once and is dense."""
    data = demo(train_size=24, attack=StringBehindWord(rate=0.4))
    poisoned = [row for row in data.train_rows if row.poisoned]
    clean = [row for row in data.train_rows if not row.poisoned]
    rows = [*poisoned, *clean[:2]], [*clean[2:], *poisoned[:2]]
    taught(tiny(data=data), clean, steps=60).export(tmp_path / "start")
    rate = 3e-3 if lora is None else 1e-2
    victim = taught(tiny(tmp_path / "start", lora=lora), data.train_rows, steps=40, rate=rate)
    proxy = taught(tiny(tmp_path / "start", lora=lora), clean, steps=10, rate=rate)
    prefix = "model.layers" if lora is None else "base_model.model.model.layers"
    count = partial(decoded_hits, victim)
    plain = plain_search(victim.network(), proxy.network(), *rows, prefix, count, patience=1)
    looks = [hits for looks, _ in plain["steps"] for hits in looks]
    assert plain["victim"][0] > plain["start"][0] > 0
    assert len(set(looks)) >= 3, "hybrids differ, or nothing is compared"

    with proxy.dense() as model:
        donor = {name: tensor.clone() for name, tensor in model_weights(model).items()}
    with victim.dense():
        found = search(victim, donor, rows, patience=1, stop_early=False, cache=0.0)
        require_same(found, plain)
        require_same_choices(search(victim, donor, rows, patience=1, workers=2), found)
