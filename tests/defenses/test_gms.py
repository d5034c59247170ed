"""GMS as a defense: its proxy sets, its files, its doors, and what it refuses."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from bdlit.attacks import BadNet
from bdlit.callbacks import DefenseCallback, TrainingDynamics
from bdlit.cli import main
from bdlit.data.demo import DemoReviews
from bdlit.defenses import GMS, ModuleSubstitution, Resources, run_defense
from bdlit.defenses.gms.hybrid import hybrid_as
from bdlit.defenses.gms.proxy_sets import Given, suspect_set
from bdlit.defenses.gms.search_space import SearchSpace
from bdlit.defenses.gms.strategy import load_strategy
from bdlit.defenses.modules import module_types
from bdlit.errors import BdlitError
from bdlit.evaluation import read_results
from bdlit.merging import substitute
from bdlit.purification.marks import scored
from bdlit.tables import write_jsonl
from bdlit.training.dynamics import TrainingSet, measure_certainty
from bdlit.victims import ClassifierVictim
from bdlit.weights import fingerprint, open_weights
from bdlit.weights.network import model_weights, swapped
from conftest import tiny_trainer

FEW = GMS(suspect_rows=12, clean_rows=20)


def demo(**options):
    sizes = {"train_size": 96, "validation_size": 0, "test_size": 20}
    return DemoReviews(**{**sizes, "attack": BadNet(), **options})


@pytest.fixture(scope="module")
def run(tiny_start, tmp_path_factory):
    """One fit with its dynamics and GMS after it."""
    folder = tmp_path_factory.mktemp("gms")
    victim = ClassifierVictim(str(tiny_start), max_length=64, learning_rate=3e-3)
    callback = DefenseCallback([FEW], others=[str(tiny_start)])
    data = demo()
    tiny_trainer(folder, callbacks=[TrainingDynamics(), callback]).fit(victim, data)
    return folder, callback, victim, data


@pytest.fixture
def given(run, tiny_start):
    _, _, victim, data = run
    return Resources(
        others=[open_weights(str(tiny_start))],
        victim=victim,
        suspect_train=TrainingSet(data.train_rows),
        oracle=TrainingSet(data.train_rows).oracle,
    )


def purify(defense, given):
    """Run a defense, and score its choices of rows as every door does."""
    found = run_defense(defense, model_weights(given.victim.network()), given)
    return replace(found, notes=scored(found.notes, found.chosen, given.suspect_train))


def test_after_fit_it_leaves_model_strategy_trace_and_picture(run, tiny_start):
    folder, callback, victim, data = run
    (before, after) = callback.results
    assert after.error is None
    assert after.defense == "GMS"
    out = folder / "defended" / "GMS"
    strategy = load_strategy(out / "strategy.yaml")
    assert strategy.replaced == after.notes["replaced"]
    expected = substitute(model_weights(victim.network()), open_weights(tiny_start), strategy.cells)
    assert fingerprint(open_weights(out)) == fingerprint(expected)
    trace = json.loads((out / "search.json").read_text())
    assert len(trace["steps"]) == after.notes["steps"]
    assert (out / "strategy.png").read_bytes().startswith(b"\x89PNG")
    assert after.notes["suspect_set"]["source"] == "training rows ranked by inverse, over 1 epochs"
    poisoned = after.notes["suspect_set"]["poisoned"]
    assert 0 <= poisoned <= 12
    assert json.loads((out / "provenance.json").read_text())["given"]["suspect_train"] == {
        "rows": len(data.train_rows),
        "epochs": 1,
    }
    assert before.cacc == after.cacc_before


def test_its_strategy_is_applied_to_another_victim_without_data(run, tiny_start, given):
    folder = run[0]
    file = folder / "defended" / "GMS" / "strategy.yaml"
    defense = ModuleSubstitution(strategy=str(file))
    assert defense.needs == ("others",)
    suspect = {k: v + 1 for k, v in model_weights(given.victim.network()).items()}
    defended = run_defense(defense, suspect, Resources(others=given.others))
    names = set(defended.merged)
    assert names
    assert names.isdisjoint(defended.copied)
    for name in suspect:
        source = given.others[0] if name in names else suspect
        assert torch.equal(defended.weights[name], source[name])
    assert not any("embeddings" in name or "classifier" in name for name in names)


def test_from_the_same_seed_it_finds_the_same(given):
    once, again = purify(FEW, given), purify(FEW, given)
    assert once.notes == again.notes
    other = purify(replace(FEW, seed=1), given)
    assert other.notes["clean_set"] != once.notes["clean_set"] or other.notes["hits"]


def test_proxy_sets_come_from_where_they_are_told_to(given, run, tmp_path):
    data = run[3]
    known = replace(FEW, suspect_from="oracle", suspect_rows=8, clean_from="oracle")
    oracle = purify(known, given).notes
    assert oracle["suspect_set"]["poisoned"] == 8
    assert oracle["clean_set"]["poisoned"] == 0
    assert oracle["oracle"]
    with_pool = Resources(
        others=given.others, victim=given.victim, clean=demo(seed=3).load("train")[:15]
    )
    rows = [{"text": row.text, "label": row.label} for row in data.train_rows[:9]]
    write_jsonl(tmp_path / "suspects.jsonl", rows)
    own = replace(FEW, suspect_from=str(tmp_path / "suspects.jsonl"), clean_from="pool")
    notes = purify(own, with_pool).notes  # and no training set is needed
    assert notes["suspect_set"] == {"rows": 9, "source": "suspects.jsonl", "poisoned": None}
    assert notes["clean_set"] == {"rows": 15, "source": "pool", "poisoned": 0}
    for ranking in ("confidence", "variability"):
        source = purify(replace(FEW, suspect_from=ranking), given).notes["suspect_set"]["source"]
        assert source == f"training rows ranked by {ranking}, by the suspect as it is"


def test_the_published_confidence_takes_the_rows_that_the_suspect_is_least_sure_of(given):
    rows = given.suspect_train.rows
    doubt = (-measure_certainty(given.victim, rows)).exp().tolist()
    held = Given(given.victim, given.suspect_train, None, None, dict)
    least = suspect_set(held, "published-confidence", 12, seed=0)
    order = sorted(range(len(rows)), key=lambda i: -doubt[i])
    assert least.rows == [rows[i] for i in order[:12]]
    assert least.source == "training rows ranked by published-confidence, by the suspect as it is"
    surest = suspect_set(held, "confidence", 12, seed=0)
    assert not {row.text for row in surest.rows} & {row.text for row in least.rows}


def test_a_clean_set_of_the_oracle_holds_as_much_poison_as_it_is_told(given):
    poisoned = replace(FEW, clean_from="oracle", clean_poison=0.3)
    notes = purify(poisoned, given).notes["clean_set"]
    assert notes == {
        **{"rows": 20, "poisoned": 6},
        "source": "true clean rows, 30% poison (oracle)",
    }
    for settings in ({"clean_poison": 1.0}, {"clean_poison": 0.5, "clean_from": "train"}):
        with pytest.raises(BdlitError, match=r"clean_poison .* out of range"):
            replace(poisoned, **settings)


def test_disputed_rows_are_those_that_the_proxys_modules_deny(given):
    model, rows = given.victim.network(), given.suspect_train.rows
    own, layout = model_weights(model), module_types("bert", model_weights(model))
    space = SearchSpace("layers", layout)
    hybrid = dict(substitute(own, given.others[0], space.cells(space.everything)))
    certainty = measure_certainty(given.victim, rows)
    with swapped(model, hybrid):
        fall = (certainty - measure_certainty(given.victim, rows)).tolist()
    expected = [rows[i] for i in sorted(range(len(rows)), key=lambda i: -fall[i])[:12]]
    start = partial(hybrid_as, model, given.others[0], layout, space.taken(space.everything))
    found = suspect_set(
        Given(given.victim, given.suspect_train, None, None, start), "disagreement", 12, seed=0
    )
    assert found.rows == expected
    notes = purify(replace(FEW, suspect_from="disagreement"), given).notes
    poisoned = sum(row.poisoned for row in expected)
    assert notes["suspect_set"] == {**found.described(), "poisoned": poisoned}


def test_a_saved_suspect_is_purified_by_command(run, tiny_start, tmp_path, capsys):
    folder, callback, _, data = run
    rows = [
        {"text": row.text, "label": row.label, "poisoned": row.poisoned} for row in data.train_rows
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    gms = '{"class_path": "GMS", "init_args": {"suspect_rows": 12, "clean_rows": 20}}'
    command = [
        *("defend", "--suspect", str(folder / "victim"), "--others", f"[{tiny_start}]"),
        *("--defense", gms, "--out", str(tmp_path / "out"), "--data", "DemoReviews"),
        *("--data.test_size", "20", "--data.validation_size", "0", "--data.train_size", "96"),
        *("--data.poisoned_train", str(tmp_path / "train.jsonl"), "--max_length", "64"),
        *(
            "--dynamics",
            str(folder / "dynamics.safetensors"),
            "--attacks",
            '[{"class_path": "BadNet"}]',
        ),
    ]
    assert main(command) == 0, capsys.readouterr().err
    undefended, after = read_results(tmp_path / "out" / "results.jsonl")
    assert after.defense == "GMS"
    assert undefended.defense == "none"
    assert after.notes["replaced"] == callback.results[1].notes["replaced"]
    assert fingerprint(open_weights(tmp_path / "out" / "GMS")) == fingerprint(
        open_weights(folder / "defended" / "GMS")
    )
    assert not list((tmp_path / "out").glob(".*"))  # the memo is gone when all is done
    assert main(command) == 0
    assert "GMS: finished before" in capsys.readouterr().out
    # What the result depends on has changed: it is not passed off as this one.
    cut = ["16" if word == "64" else word for word in command]
    blind = [word for word in command if "dynamics" not in word]
    for other in (cut, blind):
        assert main(other) == 2
        assert "holds something else" in capsys.readouterr().err
    assert main(["WAG" if word == gms else word for word in command]) == 2
    assert "WAG would not look at them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"suspect_from": "inverted"}, "did you mean 'inverse'"),
        ({"clean_from": "trian"}, "did you mean 'train'"),
        ({"clean_from": "pool"}, "clean_pool_size"),
        ({"clean_from": "oracle", "clean_rows": 80, "clean_poison": 0.9}, "poisoned clean_rows"),
        ({"suspect_rows": 10**6}, "suspect_rows 1000000 is out of range"),
        ({"suspect_rows": 0}, "suspect_rows 0 is out of range"),
        ({"clean_rows": -5}, "clean_rows -5 is out of range"),
        ({"workers": -1}, "workers -1 is out of range"),
        ({"cache": -1.0}, r"cache -1\.0 is out of range"),
        ({"suspect_from": "missing.jsonl"}, "missing.jsonl"),
        ({"modules": {}}, "are unknown: give them"),
        ({"modules": {"Q": "attention.self.queri"}}, "in no layer"),
        ({"modules": {"Q": "attention.self.query[3/3]"}}, "is not a module"),
        ({"modules": {"Q": "attention.self.query[0/5]"}}, "which 5 blocks cannot share"),
    ],
    ids=lambda value: None,
)
def test_bad_settings(settings, words, given):
    with pytest.raises(BdlitError, match=words):
        purify(replace(FEW, **settings), given)


@pytest.mark.parametrize(("former", "now"), [("fp32", "32-true"), ("bf16", "bf16-mixed")])
def test_former_names_of_precisions_go_on_working(former, now):
    with pytest.warns(UserWarning, match=f"GMS precision '{former}' is now called '{now}'"):
        assert GMS(precision=former) == GMS(precision=now)
    with pytest.raises(BdlitError, match="bf16-mixed"):
        GMS(precision="bf16-true")


def test_models_that_do_not_fit(given):
    for others in ([], [*given.others, *given.others]):
        with pytest.raises(BdlitError, match=f"was given {len(others)}"):
            purify(FEW, replace(given, others=others))
    deep = {
        name.replace(".layer.0.", f".layer.{layer}."): tensor
        for name, tensor in given.others[0].items()
        for layer in range(2)
    }
    with pytest.raises(BdlitError, match="the proxy has 2 layers, and the suspect 1"):
        purify(FEW, replace(given, others=[deep]))
    narrow = {k: v[..., :16] for k, v in given.others[0].items()}
    with pytest.raises(BdlitError, match="the proxy"):
        purify(FEW, replace(given, others=[narrow]))
    with pytest.raises(BdlitError, match="GMS needs suspect_train: give the suspect's training"):
        purify(FEW, replace(given, suspect_train=None))


def test_models_that_do_not_fit_are_refused_before_the_fit(tiny_start, tmp_path):
    victim = ClassifierVictim(str(tiny_start), max_length=64)
    callback = DefenseCallback([FEW], others=[str(tiny_start)] * 2)
    with pytest.raises(BdlitError, match="was given 2"):
        tiny_trainer(tmp_path, callbacks=[callback]).fit(victim, demo())
    callback = DefenseCallback([replace(FEW, clean_from="pool")], others=[str(tiny_start)])
    with pytest.raises(BdlitError, match="clean_pool_size"):
        tiny_trainer(tmp_path, callbacks=[callback]).fit(victim, demo())


def test_of_a_file_as_many_rows_are_drawn_as_are_wanted(given, tmp_path):
    rows = [{"text": r.text, "label": r.label} for r in given.suspect_train.rows[:40]]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    file = str(tmp_path / "rows.jsonl")
    notes = purify(replace(FEW, suspect_from=file, clean_from=file), given).notes
    assert notes["suspect_set"]["rows"] == 12
    assert notes["clean_set"]["rows"] == 20


def test_rows_that_cannot_guide(given):
    for setting in ("suspect_from", "clean_from"):
        with pytest.raises(BdlitError, match="needs oracle: give a training set whose poisoned"):
            purify(replace(FEW, **{setting: "oracle"}), replace(given, oracle=None))
    rows = given.suspect_train.rows
    one_class = TrainingSet([row for row in rows if row.label == 1])
    with pytest.raises(BdlitError, match="1 class only"):
        purify(replace(FEW, suspect_rows=3, clean_rows=3), replace(given, suspect_train=one_class))


def test_an_unknown_architecture_is_told_how_to_go_on(given, monkeypatch):
    monkeypatch.setattr(given.victim.network().config, "model_type", "unheard-of")
    with pytest.raises(BdlitError, match=r"'unheard-of' are unknown.*attention\.self\.query"):
        purify(FEW, given)
    own = {"key": "attention.self.key", "value": "attention.self.value"}
    assert purify(replace(FEW, modules=own), given).notes["modules"] == ["key", "value"]


def test_a_strategy_of_another_depth_or_of_nothing(given, tmp_path):
    file = tmp_path / "s.yaml"
    suspect = model_weights(given.victim.network())

    def apply(text):
        file.write_text(text)
        return run_defense(ModuleSubstitution(strategy=str(file)), suspect, given)

    with pytest.raises(BdlitError, match="is for 12 layers, and the suspect has 1"):
        apply("{layers: 12, modules: {Q: attention.self.query}, replaced: {Q: [11]}}")
    with pytest.raises(BdlitError, match="name its file as `strategy`"):
        run_defense(ModuleSubstitution(), suspect, given)
    with pytest.raises(BdlitError, match="is not a strategy"):
        apply("layers: 12")
    with pytest.raises(BdlitError, match="replaces K"):
        apply("{layers: 1, modules: {Q: attention.self.query}, replaced: {K: [0]}}")
    # As a search that gave everything back has written it.
    same = apply("{layers: 1, modules: {Q: attention.self.query}, replaced: {}}")
    assert fingerprint(same.weights) == fingerprint(suspect)
    assert not same.merged
