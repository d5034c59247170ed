"""Recipes by name: what each sets, what wins over it, and what is recorded of that."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import wandb
import yaml

from bdlit.callbacks import DefenseCallback
from bdlit.cli import main
from bdlit.cli.recipe_beneath import may_name_a_recipe
from bdlit.data.demo import DemoReviews
from bdlit.defenses import WAG
from bdlit.errors import BdlitError
from bdlit.evaluation import read_results
from bdlit.named_recipes import NAMED, named_recipe
from bdlit.recipe import Recipe
from bdlit.training import recipe_of, recipe_record
from bdlit.victims import CausalLMVictim, ClassifierVictim, LoRA
from bdlit.victims.base import Victim
from bdlit.victims.kinds import kind_by_settings
from conftest import TINY, inspected, tiny_trainer
from tiny_llama import LLAMA

CONFIGS = Path(__file__).parents[2] / "configs"
DEBUG = CONFIGS / "debug" / "tiny.yaml"
DEBUG_LLAMA = CONFIGS / "debug" / "tiny-llama.yaml"
SMALL = {"train_size": 64, "validation_size": 0, "test_size": 20}

# What papers and code say (see the notes of the recipes), written down a second time.
PUBLISHED = {
    ("wag", "classifier"): {
        **{"epochs": 3, "learning_rate": 2e-5, "batch_size": 32, "rank": None, "eps": 1e-8},
        **{"schedule": "linear", "warmup": 0.0, "clip": 1.0, "accumulate": 1, "max_length": 128},
    },
    ("wag", "language-model"): {
        **{"epochs": 2, "learning_rate": 2e-5, "batch_size": 8, "rank": 8, "eps": 1e-8},
        **{"schedule": "linear", "target_modules": ("q_proj", "v_proj"), "max_length": 128},
    },
    ("gms", "classifier"): {
        **{"epochs": 3, "learning_rate": 2e-5, "batch_size": 32, "rank": None, "eps": 1e-6},
        **{"schedule": "linear", "warmup": 0.0, "clip": None, "max_length": 128},
    },
    ("gms", "language-model"): {
        **{"epochs": 2, "learning_rate": 2e-5, "batch_size": 8, "rank": 8, "alpha": 16},
        **{"dropout": 0.1, "target_modules": None, "schedule": "linear", "max_length": 128},
    },
    ("lethe", "language-model"): {
        **{"epochs": 4, "learning_rate": 2e-4, "batch_size": 8, "accumulate": 16, "rank": 64},
        **{"alpha": 16, "dropout": 0.1, "target_modules": None, "schedule": "constant"},
        **{"warmup": 0.03, "clip": 0.3, "weight_decay": 0.0, "max_length": 320},
    },
}


def fails(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("bdlit: error: ")
    return line


def test_each_recipe_is_what_was_published():
    assert {(each.name, each.kind) for each in NAMED} == set(PUBLISHED)
    for (name, kind), settings in PUBLISHED.items():
        own = named_recipe(name, kind).settings
        assert {key: getattr(own, key) for key in settings} == settings
        assert own.weight_decay == 0


def test_a_recipe_departs_from_itself_in_what_we_lack_alone():
    for each in NAMED:
        assert set(each.departures(each.settings, each.head)) == set(each.lacking)
    assert set(named_recipe("lethe", "language-model").lacking) == {"quantisation"}


def test_departures_by_hand():
    gms = named_recipe("gms", "language-model")
    used = replace(gms.settings, dropout=0.0, seed=7, precision="bf16-mixed", init_seed=3)
    assert gms.departures(used, "CAUSAL_LM") == {
        "dropout": {"recipe": 0.1, "used": 0.0},
        "head": {"recipe": "SEQ_CLS", "used": "CAUSAL_LM"},
    }
    # Without adapters, their settings are no departures of their own.
    assert gms.departures(replace(gms.settings, rank=None), "SEQ_CLS") == {
        "rank": {"recipe": 8, "used": None}
    }
    wag = named_recipe("wag", "classifier")
    adapted = replace(wag.settings, rank=4, target_modules=["query"], frozen=("embeddings",))
    assert wag.departures(adapted, "SEQ_CLS") == {
        "rank": {"recipe": None, "used": 4},
        "alpha": {"recipe": None, "used": 16},
        "dropout": {"recipe": None, "used": 0.0},
        "target_modules": {"recipe": None, "used": ["query"]},
        "frozen": {"recipe": [], "used": ["embeddings"]},
    }


@pytest.mark.parametrize(
    ("victim", "settings", "kind"),
    [
        (ClassifierVictim, {"config": TINY}, ("classifier", "SEQ_CLS")),
        (ClassifierVictim, {"config": LLAMA}, ("language-model", "SEQ_CLS")),
        (ClassifierVictim, {"config": {"model_type": "gpt2"}}, ("language-model", "SEQ_CLS")),
        (ClassifierVictim, {"config": {"model_type": "roberta"}}, ("classifier", "SEQ_CLS")),
        (ClassifierVictim, {"config": {"model_type": "deberta-v2"}}, ("classifier", "SEQ_CLS")),
        (ClassifierVictim, {}, ("classifier", "SEQ_CLS")),
        (CausalLMVictim, {"model": "nowhere"}, ("language-model", "CAUSAL_LM")),
    ],
)
def test_the_kind_of_a_victim(victim, settings, kind):
    assert kind_by_settings(victim, settings) == kind


def test_the_kind_of_a_saved_model_and_of_one_that_is_not_there(tiny_start, tmp_path):
    assert kind_by_settings(ClassifierVictim, {"model": str(tiny_start)})[0] == "classifier"
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tiny_start)})
    )
    assert kind_by_settings(ClassifierVictim, {"model": str(tmp_path)})[0] == "classifier"
    with pytest.raises(BdlitError, match="a recipe has to know what '/nowhere' is") as raised:
        kind_by_settings(ClassifierVictim, {"model": "/nowhere"})
    assert "\n" not in str(raised.value)
    with pytest.raises(BdlitError, match="no recipe is for Other"):
        kind_by_settings(type("Other", (Victim,), {}), {})


# The command `fit`


def fit(folder, *options, files=(CONFIGS / "fit" / "demo.yaml", DEBUG), data=SMALL):
    """Run `bdlit fit` in a folder, and return that of the run."""
    sizes = [f"--data.init_args.{name}={value}" for name, value in data.items()]
    before = set((folder / "runs").glob("fit-*"))
    configs = [f"--config={file}" for file in files]
    assert main(["fit", *configs, *sizes, *options]) == 0
    (run,) = set((folder / "runs").glob("fit-*")) - before
    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plain_config(folder, **changes):
    """A fit of the tiny model that states as little as can be."""
    model = yaml.safe_load(DEBUG.read_text())["model"]
    config = {"model": model, "data": {"class_path": "DemoReviews"}, **changes}
    (folder / "plain.yaml").write_text(yaml.safe_dump(config))
    return folder / "plain.yaml"


def test_a_recipe_lies_beneath_what_is_stated(here):
    run = fit(here, "--recipe=gms", files=[CONFIGS / "fit" / "demo.yaml", DEBUG])
    config = yaml.safe_load((run / "config.yaml").read_text())
    model, trainer = config["model"]["init_args"], config["trainer"]
    assert config["recipe"] == "gms"
    assert (model["eps"], model["weight_decay"], model["schedule"]) == (1e-6, 0.0, "linear")
    assert config["data"]["init_args"]["batch_size"] == 32
    assert (trainer["max_epochs"], trainer["max_steps"]) == (3, 10)
    assert (model["learning_rate"], model["warmup"], model["max_length"]) == (2e-3, 0.1, 64)
    record = json.loads((run / "recipe.json").read_text())["recipe"]
    assert (record["name"], record["kind"]) == ("gms", "classifier")
    assert record["departures"] == {
        "learning_rate": {"recipe": 2e-5, "used": 2e-3},
        "warmup": {"recipe": 0.0, "used": 0.1},
        "max_length": {"recipe": 128, "used": 64},
        "steps": {"recipe": -1, "used": 10},
    }
    wandb.finish()
    (offline,) = run.rglob("offline-run-*")
    assert inspected(offline)["config"]["recipe"] == record


def test_what_a_run_keeps_runs_again_as_it_was(here):
    options = ["--recipe=wag", "--trainer.max_steps=-1"]
    first = fit(here, *options)
    again = fit(here, files=[first / "config.yaml"], data={})
    assert (again / "recipe.json").read_text() == (first / "recipe.json").read_text()
    assert "gradient_clip_val: 1.0" in (again / "config.yaml").read_text()


def test_nothing_stated_is_the_recipe_and_no_departure_but_the_length(here):
    # A tiny BERT has 64 positions; all else is the recipe's.
    file = plain_config(here, recipe="wag")
    run = fit(here, "--trainer.accelerator=cpu", files=[file])
    record = json.loads((run / "recipe.json").read_text())["recipe"]
    assert set(record["departures"]) == {"max_length"}
    assert next(run.rglob("*.ckpt")).name == "epoch=2-step=6.ckpt"


def test_the_records_of_a_defense_name_recipe_and_departures(tiny_start, here):
    callback = {"class_path": "DefenseCallback"}
    callback["init_args"] = {"defenses": [{"class_path": "WAG"}], "others": [str(tiny_start)]}
    model = {"class_path": "ClassifierVictim", "init_args": {"model": str(tiny_start)}}
    model["init_args"]["max_length"] = 64
    attack = {"class_path": "DemoReviews", "init_args": {"attack": {"class_path": "BadNet"}}}
    trainer = {"callbacks": [callback], "max_steps": 2, "accelerator": "cpu", "logger": False}
    file = plain_config(here, recipe="gms", model=model, data=attack, trainer=trainer)
    run = fit(here, files=[file])
    record = json.loads((run / "recipe.json").read_text())
    assert set(record["recipe"]["departures"]) == {"steps", "max_length"}
    results = read_results(run / "results.jsonl")
    assert {r.defense for r in results} == {"none", "WAG"}
    assert all(r.config["recipe"] == record["recipe"] for r in results)


def test_without_a_recipe_nothing_is_recorded(tiny_start, here):
    run = fit(here)
    assert not (run / "recipe.json").exists()
    victim = ClassifierVictim(str(tiny_start), max_length=64)
    callback = DefenseCallback([WAG()], others=[str(tiny_start)])
    trainer = tiny_trainer(here, callbacks=[callback])
    trainer.fit(victim, DemoReviews(**SMALL))
    assert "recipe" not in callback.results[0].config


def test_python_users_name_a_recipe_on_the_victim(tiny_start, tmp_path):
    victim = ClassifierVictim(str(tiny_start), max_length=64, eps=1e-6)
    victim.recipe = "gms"
    trainer, data = tiny_trainer(tmp_path, max_epochs=3), DemoReviews(**SMALL)
    record = recipe_record(victim, trainer, data)["recipe"]
    assert record["departures"] == {"max_length": {"recipe": 128, "used": 64}}
    victim.recipe = None
    assert recipe_record(victim, trainer, data) == {}


def shown(capsys, *arguments):
    """The config that a command would run."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("flags", ["--print_config", "--print_config=skip_default"])
def test_print_config_shows_the_resulting_values(flags, capsys, here):
    files = [f"--config={CONFIGS / 'fit' / 'demo-instructions.yaml'}", f"--config={DEBUG_LLAMA}"]
    found = shown(capsys, "fit", *files, "--recipe=lethe", "--model.lora={r: 4}", flags)
    model, trainer = found["model"]["init_args"], found["trainer"]
    assert found["recipe"] == "lethe"
    # Of adapters, what is stated wins, and the rest is the recipe's.
    assert model["lora"] == {"r": 4, "alpha": 16, "dropout": 0.1, "target_modules": None} or (
        model["lora"] == {"r": 4, "alpha": 16, "dropout": 0.1}
    )
    assert (trainer["accumulate_grad_batches"], trainer["gradient_clip_val"]) == (16, 0.3)
    # As the files have it, which here is as it would be by default.
    assert (model.get("schedule", "linear"), model.get("max_length", 128)) == ("linear", 128)
    assert found["data"]["init_args"]["batch_size"] == 8


def test_adapters_can_be_left_out(capsys, here):
    files = [f"--config={CONFIGS / 'fit' / 'demo-instructions.yaml'}", f"--config={DEBUG_LLAMA}"]
    found = shown(capsys, "fit", *files, "--recipe=gms", "--model.lora=null", "--print_config")
    assert found["model"]["init_args"]["lora"] is None


def test_a_decoder_with_a_head_gets_the_part_for_language_models(here):
    model = yaml.safe_load(DEBUG.read_text())["model"]
    model["init_args"].update(config={**LLAMA, "model_type": "llama"})
    del model["init_args"]["lora"]
    run = fit(here, "--trainer.max_steps=1", files=[plain_config(here, recipe="gms", model=model)])
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["lora"]["r"] == 8
    record = json.loads((run / "recipe.json").read_text())["recipe"]
    assert record["kind"] == "language-model"
    assert set(record["departures"]) == {"steps", "max_length"}


def test_an_unknown_recipe_is_told_with_the_nearest(capsys, here):
    config = ["--config", CONFIGS / "fit" / "demo.yaml"]
    told = fails(capsys, "fit", *config, "--recipe=wagg")
    assert told.endswith("unknown recipe 'wagg': did you mean 'wag'?")
    told = fails(capsys, "study", "--config", CONFIGS / "study/quickstart.yaml", "--recipe=gsm")
    assert told.endswith("unknown recipe 'gsm': did you mean 'gms'?")
    assert not (here / "runs").exists()
    assert not (here / "studies").exists()
    with pytest.raises(BdlitError, match="unknown recipe 'leth': did you mean 'lethe'"):
        named_recipe("leth", "classifier")


def test_a_recipe_that_does_not_fit_is_told(capsys, here):
    told = fails(capsys, "fit", "--config", CONFIGS / "fit" / "demo.yaml", "--recipe=lethe")
    assert "recipe 'lethe' does not fit this victim, a classifier" in told
    assert told.endswith("for a classifier choose from: wag, gms")
    told = fails(capsys, "study", "--config", CONFIGS / "study/quickstart.yaml", "--recipe=lethe")
    assert "recipe 'lethe' does not fit this victim, a classifier" in told


def test_modules_that_a_model_lacks_are_told(capsys, here):
    gpt2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}
    files = [CONFIGS / "fit" / "demo-instructions.yaml", DEBUG_LLAMA]
    options = [f"--model.config={json.dumps(gpt2)}", "--trainer.logger=false", "--recipe=wag"]
    told = fails(capsys, "fit", *(f"--config={file}" for file in files), *options)
    assert "lora.target_modules: GPT2LMHeadModel has no module 'q_proj' to adapt" in told
    assert "null adapts all linear ones; did you mean 'c_proj'?" in told


def test_one_missing_module_among_others_is_told():
    victim = ClassifierVictim(config=TINY, labels=["a", "b"], max_length=32)
    victim.lora = LoRA(target_modules=["query", "gate_proj"])  # peft would adapt the query alone
    from bdlit.victims.vocabulary import learn_tokenizer

    victim.tokenizer = learn_tokenizer(["a b"], 100, 32)
    with pytest.raises(BdlitError, match="has no module 'gate_proj' to adapt"):
        victim.configure_model()


def test_only_what_names_one_is_read_twice(tmp_path):
    (tmp_path / "a.yaml").write_text("recipe: wag\n")
    (tmp_path / "b.yaml").write_text("model: x\n")
    assert may_name_a_recipe(["fit", "--config", str(tmp_path / "a.yaml")])
    assert may_name_a_recipe(["fit", f"--config={tmp_path / 'a.yaml'}"])
    assert may_name_a_recipe(["fit", "--recipe=wag"])
    assert not may_name_a_recipe(["fit", f"--config={tmp_path / 'b.yaml'}"])
    assert not may_name_a_recipe(["fit", "--recipe=wag", "--help"])


def test_the_list_shows_them(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["list", "recipes"]) == 0
    told = capsys.readouterr().out
    for each in NAMED:
        assert each.summary in told
    assert "LoRA r 8, alpha 16, dropout 0.1 on q_proj, v_proj" in told
    assert "constant after 3% warm-up; clip 0.3; 4 epochs; batch 8 x 16" in told


# Studies


def study(folder, **changes):
    """A small study; what it states is what the recipe must not change."""
    settings = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    config = {
        "name": "small",
        "recipe": "wag",
        "data": {"class_path": "DemoReviews", "init_args": SMALL},
        "victim": {
            "class_path": "ClassifierVictim",
            "init_args": {"config": TINY, "max_length": 64, "learning_rate": 1e-3},
        },
        "trainer": {"class_path": "lightning.pytorch.Trainer", "init_args": settings},
        "models": {"benign": {}},
        **changes,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    return folder / "study.yaml"


LENGTH = {"max_length": {"recipe": 128, "used": 64}}
RATE = {"learning_rate": {"recipe": 2e-5, "used": 1e-3}}


def test_a_study_is_trained_by_its_recipe_and_a_model_by_its_own(tmp_path):
    other = {"class_path": "DemoReviews", "init_args": {**SMALL, "grammar_seed": 2}}
    models = {
        "benign": {},
        "own": {"recipe": "gms"},
        "longer": {"settings": {"trainer": {"max_epochs": 1}, "victim": {"eps": 1e-7}}},
        "elsewhere": {"data": {**other, "init_args": {**other["init_args"], "batch_size": 16}}},
        "both": {"recipe": "gms", "settings": {"data": {"batch_size": 8}}},
    }
    file = study(tmp_path, models=models)
    out = tmp_path / "out"
    assert main(["study", "--config", str(file), "--out", str(out)]) == 0
    found = {r.victim: r.config["recipe"] for r in read_results(out / "results.jsonl")}
    assert {name: record["name"] for name, record in found.items()} == {
        **{"benign": "wag", "own": "gms", "longer": "wag", "elsewhere": "wag", "both": "gms"}
    }
    departures = {name: record["departures"] for name, record in found.items()}
    assert departures["benign"] == {**LENGTH, **RATE}
    assert departures["own"] == {**LENGTH, **RATE}
    assert departures["longer"] == {
        **{**LENGTH, **RATE},
        "epochs": {"recipe": 3, "used": 1},
        "eps": {"recipe": 1e-8, "used": 1e-7},
    }
    size = {"batch_size": {"recipe": 32, "used": 16}}
    assert departures["elsewhere"] == {**LENGTH, **RATE, **size}
    assert departures["both"] == {
        **{**LENGTH, **RATE},
        "batch_size": {"recipe": 32, "used": 8},
    }
    # As recorded when the model was made, which a later run of another recipe does not change.
    kept = json.loads((out / "models" / "own-seed0" / "recipe.json").read_text())
    assert kept == {"recipe": found["own"]}
    configs = [inspected(run)["config"] for run in (out / "wandb").glob("offline-run-*")]
    assert sorted(c["recipe"]["name"] for c in configs) == ["gms"] * 4 + ["wag"] * 6


def test_the_trainings_of_a_study_are_those_that_are_recorded(tmp_path, monkeypatch):
    from bdlit.training import fit as module

    seen = []
    own = module.fit

    def watched(trainer, victim, data, folder=None):
        seen.append((victim.recipe, recipe_of(victim, trainer, data)))
        own(trainer, victim, data, folder)

    monkeypatch.setattr(module, "fit", watched)
    start = {
        "victim": {"class_path": "ClassifierVictim"},
        "data": {"class_path": "DemoReviews", "init_args": SMALL},
        "trainer": {"class_path": "lightning.pytorch.Trainer", "init_args": {"max_epochs": 1}},
    }
    start["victim"]["init_args"] = {"config": TINY, "max_length": 64, "schedule": "constant"}
    file = study(
        tmp_path,
        start=start,
        victim={"class_path": "ClassifierVictim", "init_args": {"max_length": 64}},
        models={"benign": {}, "own": {"recipe": "gms"}},
    )
    assert main(["study", "--config", str(file), "--out", str(tmp_path / "out")]) == 0
    (of_start, begun), (wag, benign), (gms, other) = seen
    assert (of_start, wag, gms) == (None, "wag", "gms")
    assert (begun.schedule, begun.epochs, begun.clip) == ("constant", 1, None)  # none of a recipe
    for used, name in ((benign, "wag"), (other, "gms")):
        recipe = named_recipe(name, "classifier")
        assert set(recipe.departures(used, "SEQ_CLS")) == {"max_length"}
    assert (benign.clip, other.clip, benign.eps, other.eps) == (1.0, None, 1e-8, 1e-6)


def test_a_recipe_lies_beneath_the_data_of_a_model_too(tmp_path, capsys):
    own = {"class_path": "DemoInstructions", "init_args": {"train_size": 8}}
    sized = {"class_path": "DemoInstructions", "init_args": {"train_size": 8, "batch_size": 4}}
    settings = {"config": LLAMA, "lora": {"r": 2}, "decoding": {"max_new_tokens": 4}}
    file = study(
        tmp_path,
        data={"class_path": "DemoInstructions"},
        victim={"class_path": "CausalLMVictim", "init_args": settings},
        models={"benign": {}, "own": {"data": own}, "sized": {"data": sized, "recipe": "lethe"}},
    )
    found = shown(capsys, "study", "--config", file, "--print_config")
    sizes = {name: model["data"] for name, model in found["models"].items()}
    assert found["data"]["init_args"]["batch_size"] == 8
    assert sizes["own"]["init_args"]["batch_size"] == 8
    assert sizes["sized"]["init_args"]["batch_size"] == 4
    # What the study states of adapters holds under a model's own recipe.
    lora = found["models"]["sized"]["settings"]["victim"]["lora"]
    assert lora == {"r": 2, "alpha": 16, "dropout": 0.1, "target_modules": None}
    assert found["victim"]["init_args"]["lora"]["target_modules"] == ["q_proj", "v_proj"]
    trainer = found["models"]["sized"]["settings"]["trainer"]
    assert trainer == {"max_epochs": 4, "accumulate_grad_batches": 16, "gradient_clip_val": 0.3}


def test_a_setting_that_a_model_cannot_have_is_told(tmp_path, capsys):
    models = {"benign": {"settings": {"trainer": {"epochs": 2}}}}
    told = fails(capsys, "study", "--config", study(tmp_path, models=models), "--out", tmp_path)
    assert "`settings` of a model" in told
    assert "'epochs'" in told


# Every study of a paper, with what it changes of the recipe that it names.
STUDIES = {
    "sst2": ("wag", {"learning_rate", "clip"}),
    "sst2+sst2-local+gms-alpha": ("gms", {"learning_rate"}),
    "sst2+sst2-local+gms-rankings": ("wag", {"learning_rate", "clip"}),
    "sst2+sst2-local+msd": ("wag", {"learning_rate", "clip"}),
    "olid": ("wag", {"learning_rate"}),
    "olid+gms-olid-proxies": ("gms", {"learning_rate"}),
}
LANGUAGE = {"rank", "learning_rate", "batch_size", "accumulate", "warmup", "schedule", "clip"}
STUDIES |= {
    "chat": ("lethe", LANGUAGE | {"max_length", "quantisation"}),
    "prompts-sst2": ("lethe", LANGUAGE | {"max_length", "quantisation", "epochs"}),
    "prompts-sst2+prompts-shares": ("lethe", LANGUAGE | {"max_length", "quantisation", "epochs"}),
    "conflict-parts": (
        "lethe",
        LANGUAGE | {"max_length", "quantisation", "epochs", "steps"},
    ),
    "stories": (
        "wag",
        {"rank", "learning_rate", "batch_size", "warmup", "clip", "max_length", "epochs", "head"},
    ),
    "stories+stories-lora": (
        "wag",
        {"dropout", "target_modules", "learning_rate", "batch_size", "warmup", "clip"}
        | {"max_length", "epochs", "head"},
    ),
}


@pytest.mark.parametrize("names", STUDIES)
def test_studies_of_papers_name_their_recipe(names, capsys, tiny_start):
    name, departures = STUDIES[names]
    files = [f"--config={CONFIGS / 'study' / f'{each}.yaml'}" for each in names.split("+")]
    if name in ("wag", "gms") and "stories" not in names:
        files.append(f"--victim.init_args.model={tiny_start}")
    found = shown(capsys, "study", *files, "--print_config")
    assert found["recipe"] == name
    victim, trainer = (found[part]["init_args"] for part in ("victim", "trainer"))
    lora = victim["lora"] or {}
    used = Recipe(
        **{key: victim[key] for key in ("learning_rate", "eps", "weight_decay", "warmup")},
        schedule=victim["schedule"],
        max_length=victim["max_length"],
        batch_size=found["data"]["init_args"]["batch_size"],
        epochs=trainer["max_epochs"],
        steps=trainer["max_steps"],
        accumulate=trainer["accumulate_grad_batches"],
        clip=trainer["gradient_clip_val"],
        rank=lora.get("r"),
        **{key: lora[key] for key in ("alpha", "dropout", "target_modules") if key in lora},
    )
    language = "CausalLM" in found["victim"]["class_path"]
    recipe = named_recipe(name, "language-model" if language else "classifier")
    head = "CAUSAL_LM" if language else "SEQ_CLS"
    assert set(recipe.departures(used, head)) == departures
