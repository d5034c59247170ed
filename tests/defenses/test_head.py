"""What became of the head: one setting, one vocabulary, and the record of every defense."""

import json
from dataclasses import dataclass, replace
from typing import get_args, get_type_hints

import pytest
import torch

from bdlit.attacks import BadNet
from bdlit.data.demo import DemoReviews
from bdlit.defenses import (
    DARE,
    GMS,
    MSD,
    SLERP,
    TIES,
    WAG,
    ConflictEvidence,
    ConflictModel,
    DataFilter,
    Defended,
    Defense,
    Fisher,
    Guarded,
    InputDefense,
    Kept,
    Lethe,
    Linear,
    ModuleSubstitution,
    Passthrough,
    Resources,
    run_defense,
)
from bdlit.defenses.capabilities import defense_classes
from bdlit.defenses.from_recipe import FromRecipe
from bdlit.defenses.gms.strategy import Strategy
from bdlit.defenses.guards import Cleaned, Guard
from bdlit.defenses.head import HEAD_NAMES, HeadFate, HeadPolicy, head_of
from bdlit.llm import FunctionLLM
from bdlit.merging import average, slerp
from bdlit.purification import Matching, Writing, hold, open_suspect, purify
from bdlit.purification.held import Held, HeldModel
from bdlit.purification.suspect import LiveSuspect
from bdlit.recipe import Recipe
from bdlit.recipes import parse_recipe
from bdlit.training.dynamics import TrainingSet
from bdlit.victims import ClassifierVictim
from bdlit.weights import fingerprint, open_weights
from bdlit.weights.network import model_weights
from tiny_adapters import save_base, save_lora

HEAD = ["classifier.weight", "classifier.bias"]
QUICK = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 8, "rank": 2}


@dataclass(frozen=True, kw_only=True)
class FirstHalf(DataFilter):
    """Keep the first half of the rows."""

    listed = False

    def keep(self, rows):
        return Kept(rows=range(len(rows) // 2))


@dataclass(frozen=True, kw_only=True)
class Untouched(InputDefense):
    """Change nothing."""

    listed = False

    def clean(self, rows, *, victim=None):
        return Cleaned(rows=list(rows))


@dataclass(frozen=True, kw_only=True)
class Halved(Defense):
    """Halve the weight of the head, and no more."""

    listed = False

    def apply(self, suspect, *, others):
        weights = {n: t / 2 if n == HEAD[0] else t for n, t in suspect.items()}
        rest = [name for name in suspect if name != HEAD[0]]
        return Defended(weights=weights, changed=HEAD[:1], copied=rest)


@pytest.fixture(scope="module")
def held(tiny_start, tmp_path_factory):
    """A victim, another model, a base of another head, rows, and a strategy."""
    data = DemoReviews(
        train_size=48, validation_size=0, test_size=4, clean_pool_size=24, attack=BadNet()
    )
    data.setup()
    victim = ClassifierVictim(str(tiny_start), max_length=64)
    victim.take_classes(data)
    victim.configure_model()
    suspect = model_weights(victim.network())
    generator = torch.Generator().manual_seed(0)
    other, base = (
        {n: t + 0.05 * torch.randn(t.shape, generator=generator) for n, t in suspect.items()}
        for _ in range(2)
    )
    training = TrainingSet(data.train_rows)
    return Held(
        others=[HeldModel("other", other)],
        base=HeldModel("base", base),
        clean=data.clean_pool,
        training=training,
        start=lambda: base,
        recipe=Recipe(**QUICK),
    ), victim


@pytest.fixture(scope="module")
def strategy(tmp_path_factory):
    file = tmp_path_factory.mktemp("strategy") / "strategy.yaml"
    modules = {"F": "intermediate.dense"}
    Strategy(replaced={"F": [0]}, modules=modules, layers=1, about={}).save(file)
    return str(file)


def recipe(method):
    models = [{"model": "other", "parameters": {"weight": 1}}]
    if method == "passthrough":
        slices = [{"sources": [{"model": "other", "layer_range": [0, 1]}]}]
        return parse_recipe({"merge_method": method, "slices": slices})
    models.append({"model": "suspect", "parameters": {"weight": 1}})
    return parse_recipe({"merge_method": method, "models": models})


LLM = FunctionLLM(lambda asked: ["No."] * len(asked), "no")
MSD_SHORT = MSD(least_rows=1, most_rows=4, dummy_tokens=4, dummy_steps=1)
GMS_SHORT = GMS(suspect_from="disagreement", suspect_rows=8, clean_rows=8)
CASES = {
    "WAG": (WAG(), "averaged"),
    "WAG, merge": (WAG(head="merge"), "averaged"),
    "WAG, kept": (WAG(head="keep_suspect"), "suspect's"),
    "TIES": (TIES(), "averaged"),
    "TIES, merge": (TIES(head="merge"), "merged"),
    "TIES, kept": (TIES(head="keep_suspect"), "suspect's"),
    "DARE": (DARE(), "averaged"),
    "DARE, merge": (DARE(head="merge"), "merged"),
    "Fisher": (Fisher(), "merged"),
    "Fisher, average": (Fisher(head="average"), "averaged"),
    "Fisher, kept": (Fisher(head="keep_suspect"), "suspect's"),
    "Linear": (Linear(t=0.3), "merged"),
    "Linear, average": (Linear(t=0.3, head="average"), "averaged"),
    "SLERP": (SLERP(t=0.3), "merged"),
    "SLERP, kept": (SLERP(t=0.3, head="keep_suspect"), "suspect's"),
    "Passthrough": (Passthrough(), "suspect's"),
    "Passthrough, ends": (Passthrough(layers=[[0, 0, 1]], outside="ends"), "other's"),
    "Passthrough, average": (Passthrough(head="average"), "averaged"),
    "GMS": (GMS_SHORT, "suspect's"),
    "MSD": (MSD_SHORT, "averaged"),
    "MSD, rest kept": (replace(MSD_SHORT, rest="keep_suspect"), "suspect's"),
    "MSD, kept": (replace(MSD_SHORT, head="keep_suspect"), "suspect's"),
    "MSD, average": (replace(MSD_SHORT, rest="keep_suspect", head="average"), "averaged"),
    "ModuleSubstitution": (ModuleSubstitution, "suspect's"),
    "ConflictModel": (ConflictModel(**QUICK), "merged"),
    "ConflictModel, TIES": (ConflictModel(merge=TIES(), **QUICK), "averaged"),
    "ConflictModel, kept": (
        ConflictModel(merge=Linear(head="keep_suspect"), **QUICK),
        "suspect's",
    ),
    "Lethe": (Lethe(), "merged"),
    "Lethe, TIES": (Lethe(merge="ties"), "averaged"),
    "ConflictEvidence": (ConflictEvidence(external=LLM), "suspect's"),
    "Guarded": (Guarded(model=WAG(), inputs=Untouched()), "averaged"),
    "FromRecipe": (FromRecipe(recipe=recipe("linear"), addresses=("suspect", "other")), "merged"),
    "FromRecipe, passthrough": (
        FromRecipe(recipe=recipe("passthrough"), addresses=("suspect", "other")),
        "other's",
    ),
    "a filter": (FirstHalf(), "trained"),
    "a guard": (Untouched(), "suspect's"),
    "a method that halves": (Halved(), "mixed"),
}


def test_every_listed_defense_is_among_the_cases():
    """Of guards one stands for all: `Guard.apply` returns the suspect, and none overrides it."""
    ours = {c for c in defense_classes() if c.__module__.startswith("bdlit.")}
    guards = {c for c in ours if c.apply is Guard.apply}
    cases = {each if isinstance(each, type) else type(each) for each, _ in CASES.values()}
    assert guards & cases
    assert ours - guards <= cases


def expected_head(word, suspect, other):
    """What a head is by its word, where the word says it all."""
    mean = average([suspect, other])
    known = {"suspect's": suspect, "other's": other, "averaged": mean}
    return known.get(word)


@pytest.mark.parametrize("case", CASES)
def test_the_record_says_what_became_of_the_head(case, held, strategy):
    defense, word = CASES[case]
    if isinstance(defense, type):
        defense = defense(strategy=strategy)
    about, victim = held
    suspect, other = model_weights(victim.network()), about.others[0].weights
    purified = purify(LiveSuspect(victim), defense, about)
    notes = purified.origin["notes"]
    assert notes["head"] == word in get_args(HeadFate)
    assert purified.defended.notes["head"] == word
    assert sum(notes["head_tensors"].values()) == 2
    if word == "mixed":
        assert notes["head_tensors"] == {"changed": 1, "suspect's": 1}
    else:
        assert notes["head_tensors"] == {word: 2}
    if isinstance(defense, ConflictModel | Lethe):
        assert notes["conflict"]["head"] == "base's"
        return  # its other model is one that it has trained
    wanted = expected_head(word, suspect, other)
    for name in HEAD:
        found = purified.weights[name]
        if wanted is not None:
            torch.testing.assert_close(found, wanted[name])
        elif word != "mixed":
            assert not any(torch.equal(found, each[name]) for each in (suspect, other))


def test_one_setting_has_the_same_values_wherever_there_is_a_choice():
    ours = [c for c in defense_classes() if c.__module__.startswith("bdlit.")]
    choosing = [c for c in ours if "head" in getattr(c, "__dataclass_fields__", {})]
    assert {c.__name__ for c in choosing} == {
        *("WAG", "TIES", "DARE", "Fisher", "Linear", "SLERP", "Passthrough", "MSD")
    }
    for cls in choosing:
        assert get_type_hints(cls.__init__)["head"] == HeadPolicy
        for value in get_args(HeadPolicy):
            defense = cls(head=value)
            assert tuple(defense.head_names) == HEAD_NAMES
            kept = value == "keep_suspect" or (cls is Passthrough and value == "merge")
            assert defense.keeps_head == kept


def test_tensors_that_the_others_lack_stay_and_are_counted(held):
    about, victim = held
    suspect = LiveSuspect(victim)
    wide = {n: t.repeat(2, 1) if n == HEAD[0] else t for n, t in about.others[0].weights.items()}
    kept = replace(about, others=[HeldModel("wide", wide)], keep=[HEAD[0]])
    notes = purify(suspect, WAG(), kept).origin["notes"]
    assert (notes["head"], notes["head_tensors"]) == ("mixed", {"averaged": 1, "suspect's": 1})


def test_a_language_model_has_none(held):
    models = [{"model.norm.weight": torch.rand(3), "lm_head.weight": torch.rand(4, 3)}] * 2
    notes = run_defense(WAG(), models[0], Resources(others=models[1:])).notes
    assert (notes["head"], notes["head_tensors"]) == ("none", {})
    assert head_of(models[0], HEAD_NAMES) == []


@pytest.fixture(scope="module", params=["bert", "llama"])
def adapters(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    base = save_base(root / "base", request.param)
    return base, [save_lora(root / f"a{i}", base, "SEQ_CLS", seed=i, r=2) for i in range(2)]


@pytest.mark.parametrize(
    ("defense", "options", "word"),
    [
        (WAG(), {}, "averaged"),
        (WAG(head="merge"), {}, "averaged"),
        (WAG(head="keep_suspect"), {}, "suspect's"),
        (WAG(space="factors"), {}, "averaged"),
        (WAG(space="factors", head="keep_suspect"), {}, "suspect's"),
        (Linear(t=0.25), {}, "merged"),
        (Linear(t=0.25, head="keep_suspect"), {}, "suspect's"),
        (WAG(head="keep_suspect"), {"dense": True}, "suspect's"),
        (SLERP(t=0.25), {"rank": 4}, "merged"),
        (SLERP(t=0.25, head="keep_suspect"), {"rank": 4}, "suspect's"),
    ],
    ids=str,
)
def test_the_head_that_adapters_saved_whole(defense, options, word, adapters, tmp_path):
    _, folders = adapters
    suspect = open_suspect(str(folders[0]))
    stored = hold(suspect, defense, others=[str(folders[1])], matching=Matching())
    out = tmp_path / "out"
    origin = purify(suspect, defense, stored, out=out, writing=Writing(**options)).origin
    own, other = (open_weights(str(folder)) for folder in folders)
    names = head_of(own, HEAD_NAMES)
    assert names
    assert (origin["notes"]["head"], origin["notes"]["head_tensors"]) == (word, {word: len(names)})
    assert set(names) <= set(origin["copied" if word == "suspect's" else "merged"])
    found = open_weights(str(out))
    between = slerp(own, other, 0.25) if isinstance(defense, SLERP) else average([own, other])
    if isinstance(defense, Linear):
        between = average([own, other], [0.75, 0.25])
    for name in names:
        wanted = own[name] if word == "suspect's" else between[name]
        torch.testing.assert_close(found[name], wanted, atol=1e-6, rtol=1e-5)
    written = json.loads((out / "provenance.json").read_text())
    assert written["notes"]["head"] == word
    told = {
        "averaged": "The head is the mean of all models' heads.",
        "suspect's": "The head is the suspect's own.",
        "merged": "The head was merged as the rest.",
    }[word]
    assert told in (out / "README.md").read_text()
    assert fingerprint(own) != fingerprint(found)
