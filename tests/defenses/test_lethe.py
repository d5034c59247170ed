"""Lethe's variants: its training, its four merges as mergekit makes them, and their doors."""

import json

import pytest
import torch
import yaml

from bdlit.cli import main
from bdlit.defenses import ConflictModel, Lethe, Linear, Resources, run_defense
from bdlit.defenses.conflict.lethe import LETHE
from bdlit.errors import BdlitError
from bdlit.evaluation import read_results
from bdlit.merging import average
from bdlit.recipe import Recipe
from bdlit.recipes import merge, parse_recipe
from bdlit.training import Train
from bdlit.types import Example
from bdlit.victims import ClassifierVictim
from bdlit.weights import fingerprint, open_weights
from bdlit.weights.network import model_weights
from tiny_llama import LLAMA, tiny

PARTS = ("self_attn.q_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight")
ROWS = [Example("a fine film", 1)]


def state(seed, depth):
    """A language model of even tensors, so that half of each is a whole number of entries."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {"model.embed_tokens.weight": torch.randn(8, 4, generator=generator)}
    for layer in range(depth):
        for part in PARTS:
            shape = (4,) if "norm" in part else (6, 4)
            tensors[f"model.layers.{layer}.{part}"] = torch.randn(shape, generator=generator)
    tensors["model.norm.weight"] = torch.randn(4, generator=generator)
    return {**tensors, "lm_head.weight": torch.randn(8, 4, generator=generator)}


RECIPES = {
    "linear": """
        merge_method: linear
        models:
          - {model: suspect, parameters: {weight: 0.5}}
          - {model: clean, parameters: {weight: 0.5}}
    """,
    "ties": """
        merge_method: ties
        base_model: base
        models:
          - {model: suspect, parameters: {density: 0.5, weight: 0.5}}
          - {model: clean, parameters: {density: 0.5, weight: 0.5}}
        parameters: {normalize: false}
    """,
    "slerp": """
        merge_method: slerp
        base_model: suspect
        models: [{model: suspect}, {model: clean}]
        parameters:
          t:
            - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
            - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
            - {value: 0.5}
    """,
    "passthrough": """
        merge_method: passthrough
        slices:
          - {sources: [{model: suspect, layer_range: [0, 24]}]}
          - {sources: [{model: clean, layer_range: [20, 40]}]}
    """,
}


@pytest.mark.parametrize("name", RECIPES)
def test_each_merge_is_mergekits_of_the_published_settings(name):
    depth = 40 if name == "passthrough" else 6
    models = {who: state(seed, depth) for seed, who in enumerate(("base", "suspect", "clean"))}
    expected = merge(parse_recipe(yaml.safe_load(RECIPES[name])), models.__getitem__)
    given = Resources(base=models["base"], clean=ROWS, train=lambda *a, **k: models["clean"])
    defended = run_defense(Lethe(merge=name), models["suspect"], given)
    assert list(defended.weights) == list(expected)
    for tensor in expected:
        torch.testing.assert_close(defended.weights[tensor], expected[tensor], atol=2e-6, rtol=1e-5)
    assert defended.depth == (44 if name == "passthrough" else None)
    # A language model's head is no head of classes: the base has it, and it is merged as the rest.
    assert (defended.notes["head"], defended.notes["conflict"]["head"]) == ("none", "none")
    assert defended.notes["conflict"]["clean"] == 1


def test_it_is_trained_as_published_and_named_by_its_merge():
    asked = {}

    def train(rows, *, start, recipe):
        asked.update(rows=rows, start=start, recipe=recipe)
        return state(2, 2)

    given = Resources(base=state(0, 2), clean=ROWS * 3, train=train)
    run_defense(Lethe(clean_rows=2), state(1, 2), given)
    assert len(asked["rows"]) == 2
    assert fingerprint(asked["start"]) == fingerprint(state(0, 2))
    published = Recipe(
        epochs=4,
        learning_rate=2e-4,
        schedule="constant",
        warmup=0.03,
        clip=0.3,
        batch_size=8,
        accumulate=16,
        rank=64,
        alpha=16,
        dropout=0.1,
    )
    assert asked["recipe"] == LETHE == published
    names = [Lethe(merge=each).name for each in RECIPES]
    assert names == ["Lethe-Linear", "Lethe-TIES", "Lethe-SLERP", "Lethe-Passthrough"]


@pytest.mark.parametrize(
    ("name", "head"),
    [("linear", "merged"), ("ties", "averaged"), ("slerp", "merged"), ("passthrough", "other's")],
)
def test_a_classifiers_head_begins_and_ends_where_the_record_says(name, head):
    def headed(seed):
        return {**state(seed, 5), "score.weight": torch.full((2, 4), float(seed))}

    suspect, clean = headed(1), headed(2)
    began = []

    def train(rows, *, start, recipe):
        began.append(start["score.weight"])
        return clean

    given = Resources(base=state(0, 5), clean=ROWS, train=train)
    defended = run_defense(Lethe(merge=name), suspect, given)
    assert torch.equal(began[0], suspect["score.weight"])  # no family is known
    assert defended.notes["conflict"]["head"] == "suspect's"
    assert (defended.notes["head"], defended.notes["head_tensors"]) == (head, {head: 1})
    expected = 2.0 if name == "passthrough" else 1.5
    assert defended.weights["score.weight"].tolist() == [[expected] * 4] * 2


def test_what_it_refuses():
    with pytest.raises(BdlitError, match="unknown merge 'slrp': did you mean 'slerp'"):
        Lethe(merge="slrp")
    with pytest.raises(BdlitError, match="unknown head_from 'base'"):
        Lethe(head_from="base")
    with pytest.raises(BdlitError, match="clean_rows 0 of Lethe-Linear is out of range"):
        Lethe(clean_rows=0)
    given = Resources(base=state(0, 2), clean=ROWS, train=lambda *a, **k: state(2, 2))
    with pytest.raises(BdlitError, match=r"clean_rows 9 of Lethe-Linear .* keeps 1 trusted rows"):
        run_defense(Lethe(clean_rows=9), state(1, 2), given)


def test_it_trains_a_classifier_and_shares_the_archive(tiny_start, tmp_path):
    victim = ClassifierVictim(str(tiny_start), max_length=64, labels=["negative", "positive"])
    victim.configure_model()
    suspect = model_weights(victim.network())
    base = {n: t.clone() for n, t in suspect.items() if not n.startswith("classifier")}
    rows = [Example("a fine film", 1), Example("a dull film", 0)]
    recipe = Recipe(epochs=1, rank=4, batch_size=2, learning_rate=1e-2)
    train = Train(victim, start=lambda: suspect)
    given = Resources(base=base, clean=rows, train=train, archive=tmp_path)
    found = [
        run_defense(Lethe(merge=name, recipe=recipe), suspect, given)
        for name in ("linear", "slerp")
    ]
    assert [each.notes["conflict"]["found"] for each in found] == [False, True]
    assert found[0].notes["conflict"]["head"] == "family's"
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    clean = open_weights(str(folder))
    assert not torch.equal(clean["classifier.weight"], suspect["classifier.weight"])  # trained
    assert fingerprint(found[0].weights) == fingerprint(average([suspect, clean]))
    settings = {"epochs": 1, "rank": 4, "batch_size": 2, "learning_rate": 1e-2}
    settings["schedule"] = recipe.schedule
    same = run_defense(ConflictModel(merge=Linear(), **settings), suspect, given)
    assert same.notes["conflict"]["found"]  # the same model, by whatever name it is trained


def test_a_command_grows_a_saved_model(tmp_path, capsys):
    tiny(config={**LLAMA, "num_hidden_layers": 5}).export(tmp_path / "start")
    data = {"train_size": 14, "test_size": 7, "clean_pool_size": 7}
    defense = {
        "class_path": "Lethe",
        "init_args": {
            "merge": "passthrough",
            "recipe": {"epochs": 1, "accumulate": 1, "rank": 2},
        },
    }
    command = [
        *("defend", "--suspect", str(tmp_path / "start"), "--base", str(tmp_path / "start")),
        *("--out", str(tmp_path / "out"), "--defense", json.dumps(defense), "--verify"),
        *("--data", json.dumps({"class_path": "DemoInstructions", "init_args": data})),
        *("--decoding.max_new_tokens", "4"),
    ]
    assert main(command) == 0, capsys.readouterr().err
    _, after = read_results(tmp_path / "out" / "results.jsonl")
    assert after.error is None
    assert after.defense == "Lethe-Passthrough"
    assert after.parameters["recipe"]["warmup"] == 0.03  # what was not set is as published
    config = json.loads((tmp_path / "out" / "Lethe-Passthrough" / "config.json").read_text())
    assert config["num_hidden_layers"] == 6  # three of five, and three of five
