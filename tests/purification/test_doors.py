"""Every door says the same of models that do not fit, and deals with them in the same way."""

import json
import re
import shutil
from dataclasses import dataclass

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from bdlit.attacks import BadNet
from bdlit.callbacks import DefenseCallback
from bdlit.cli import main
from bdlit.data.demo import DemoReviews
from bdlit.defenses import TIES, WAG, Defended, Defense
from bdlit.errors import BdlitError
from bdlit.evaluation import read_results
from bdlit.purification import LiveSuspect, Matching, hold, open_suspect, purify
from bdlit.victims import ClassifierVictim
from bdlit.weights import fingerprint, open_weights
from conftest import tiny_trainer

SIZES = {"train_size": 32, "validation_size": 0, "test_size": 20}


@dataclass(frozen=True, kw_only=True)
class Calibrated(Defense):
    """Need plain texts."""

    listed = False

    def apply(self, suspect, *, texts):
        return Defended(weights=suspect, copied=list(suspect))


DEFENSES = {"WAG": WAG(), "TIES": TIES(), "Calibrated": Calibrated()}


def changed(folder, target, *, config=None, tensors=None, words=None):
    """A copy of a saved model with another config, other tensors or another vocabulary."""
    shutil.copytree(folder, target)
    file = target / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **(config or {})}))
    if tensors:
        weights = tensors(load_file(target / "model.safetensors"))
        save_file(weights, target / "model.safetensors", {"format": "pt"})
    if words:
        file = target / "tokenizer.json"
        assert words[0] in file.read_text()
        file.write_text(file.read_text().replace(*words))
    return target


def deeper(weights):
    more = {n.replace(".layer.0.", ".layer.1."): t.clone() for n, t in weights.items()}
    return {**weights, **more}


def without_one(weights):
    return {n: t for n, t in weights.items() if n != "bert.encoder.layer.0.output.dense.weight"}


def three_classes(weights):
    return {
        **weights,
        "classifier.weight": torch.zeros(3, 32),
        "classifier.bias": torch.zeros(3),
    }


def named(*labels):
    return {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}


@pytest.fixture(scope="module")
def models(tiny_start, tmp_path_factory):
    """The suspect, a model that fits it, and one for each way not to fit."""
    root = tmp_path_factory.mktemp("models")
    moved = {"tensors": lambda weights: {n: t + 0.01 * (t != 0) for n, t in weights.items()}}
    made = {
        "fits": moved,
        "permuted": {**moved, "config": named("positive", "negative")},
        "vocabulary": {"words": ('"plot"', '"other"')},
        "depth": {"tensors": deeper, "config": {"num_hidden_layers": 2}},
        "missing": {"tensors": without_one},
        "head": {"tensors": three_classes, "config": named("bad", "so so", "good")},
        "base": {"tensors": lambda weights: {"bert.pooler.dense.bias": torch.zeros(32)}},
    }
    found = {name: changed(tiny_start, root / name, **how) for name, how in made.items()}
    return {**found, "suspect": shutil.copytree(tiny_start, root / "suspect")}


MISFITS = {
    "permuted": (
        "WAG",
        "permuted",
        "fits",
        "has its classes in the order ['positive', 'negative']",
    ),
    "vocabulary": ("WAG", "vocabulary", "fits", "has another vocabulary than"),
    "depth": ("WAG", "depth", "fits", "does not fit the suspect: 16 too many"),
    "missing": ("WAG", "missing", "fits", "1 missing (bert.encoder.layer.0.output.dense.weight)"),
    "head": ("WAG", "head", "fits", "2 of another shape (classifier"),
    "base": ("TIES", "fits", "base", "the base does not fit the suspect: 22 missing"),
    "resource": (
        "Calibrated",
        "fits",
        "fits",
        "Calibrated needs texts: give a file of plain texts",
    ),
}


def by_callback(models, defense, other, base, folder, **matching):
    callback = DefenseCallback(
        [DEFENSES[defense]],
        others=[str(models[other])],
        base=str(models[base]),
        matching=Matching(**matching),
    )
    victim = ClassifierVictim(str(models["suspect"]), max_length=64, learning_rate=0.0)
    trainer = tiny_trainer(folder, callbacks=[callback])
    try:
        trainer.fit(victim, DemoReviews(**SIZES, attack=BadNet()))
    except BdlitError:
        assert trainer.global_step == 0, "refused before training, not after"
        raise
    return folder / "defended" / defense


def by_python(models, defense, other, base, folder, **matching):
    suspect, method = open_suspect(str(models["suspect"])), DEFENSES[defense]
    held = hold(
        suspect,
        method,
        others=[str(models[other])],
        base=str(models[base]),
        matching=Matching(**matching),
    )
    return purify(suspect, method, held, out=folder / "out").folder


def by_python_on_a_victim(models, defense, other, base, folder, **matching):
    victim = ClassifierVictim(str(models["suspect"]), labels=["negative", "positive"])
    victim.configure_model()
    suspect, method = LiveSuspect(victim), DEFENSES[defense]
    held = hold(
        suspect,
        method,
        others=[str(models[other])],
        base=str(models[base]),
        matching=Matching(**matching),
    )
    return purify(suspect, method, held, out=folder / "out").folder


def by_command(command, models, defense, other, base, folder, **matching):
    class_path = defense if defense != "Calibrated" else "test_doors.Calibrated"
    arguments = [
        *(command, "--suspect", str(models["suspect"]), "--others", f"[{models[other]}]"),
        *("--base", str(models[base]), "--defense", class_path, "--out", str(folder / "out")),
        *(f"--{name}={value}" for name, value in matching.items()),
    ]
    if command == "defend":
        arguments += ["--data=DemoReviews", *(f"--data.{n}={v}" for n, v in SIZES.items())]
        arguments += ["--attacks=[{class_path: BadNet}]", "--max_length=64"]
    run(arguments)
    return folder / "out" / defense if command == "defend" else folder / "out"


def by_merge(*arguments, **matching):
    return by_command("merge", *arguments, **matching)


def by_defend(*arguments, **matching):
    return by_command("defend", *arguments, **matching)


def by_study(models, defense, other, base, folder, **matching):
    """The models are another study's."""
    for name, model in (("suspect", "suspect"), ("other", other), ("start", base)):
        shutil.copytree(models[model], folder / "done" / "models" / f"{name}-seed0" / "model")
    demo = {"class_path": "DemoReviews", "init_args": SIZES}
    victim = {"class_path": "ClassifierVictim", "init_args": {"max_length": 64}}
    settings = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    class_path = defense if defense != "Calibrated" else "test_doors.Calibrated"
    config = {
        "name": "doors",
        "data": demo,
        "start": {"victim": {**victim, "init_args": {"model": "nowhere"}}, "data": demo},
        "victim": victim,
        "trainer": {"class_path": "lightning.pytorch.Trainer", "init_args": settings},
        "models": {"other": {}, "suspect": {"attack": {"class_path": "BadNet"}}},
        "defenses": {defense: {"defense": {"class_path": class_path}, "others": ["other"]}},
        "matching": matching,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    out = folder / "out"
    files = ["--config", str(folder / "study.yaml"), "--models_from", str(folder / "done")]
    try:
        run(["study", *files, "--out", str(out)])
    except BdlitError:
        if not (out / "results.jsonl").exists():
            raise  # told before anything was done
        results = read_results(out / "results.jsonl")
        raise BdlitError(next(r.error for r in results if r.defense == defense)) from None
    return out / "defended" / "suspect-seed0" / defense


def run(arguments):
    """Run a command; a line of error becomes the exception that it was."""
    from contextlib import redirect_stderr
    from io import StringIO

    said = StringIO()
    with redirect_stderr(said):
        code = main(arguments)
    if code:
        assert code == 2
        lines = [x for x in said.getvalue().splitlines() if x.startswith("bdlit: error: ")]
        assert len(lines) == 1, said.getvalue()
        raise BdlitError(lines[0].removeprefix("bdlit: error: "))


DOORS = [by_callback, by_study, by_defend, by_merge, by_python, by_python_on_a_victim]
each_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)


@pytest.mark.parametrize("misfit", MISFITS)
def test_every_door_says_the_same_line(models, misfit, tmp_path):
    defense, other, base, expected = MISFITS[misfit]
    lines = set()
    for door in DOORS:
        folder = tmp_path / door.__name__
        folder.mkdir()
        with pytest.raises(BdlitError) as told:
            door(models, defense, other, base, folder)
        line = str(told.value)
        assert expected in line, door.__name__
        assert "\n" not in line
        assert not list(folder.glob("**/provenance.json"))
        lines.add(without_names(line, models[other]))
    assert len(lines) == 1, lines


def without_names(line, other):
    """A line without what a door calls the two models, and what a study says around it."""
    line = re.sub(r"\S*/other-seed0/model", "OTHER", line.replace(str(other), "OTHER"))
    return re.sub(r"\S*/suspect\b(-seed0/model)?|\bvictim\b(?= )", "SUSPECT", line)


@each_door
def test_permuted_classes_are_brought_into_one_order(models, door, tmp_path):
    other, own = open_weights(models["permuted"]), open_weights(models["suspect"])
    found = open_weights(door(models, "WAG", "permuted", "fits", tmp_path, labels="permute"))
    for name, tensor in own.items():
        theirs = other[name].flip(0) if name.startswith("classifier.") else other[name]
        torch.testing.assert_close(found[name], (tensor + theirs) / 2)


@each_door
def test_a_tensor_that_the_other_lacks_stays_the_suspects_on_request(models, door, tmp_path):
    found = open_weights(
        door(models, "WAG", "missing", "fits", tmp_path, differences="keep_suspect")
    )
    assert fingerprint(found) == fingerprint(open_weights(models["suspect"]))


def test_three_classes_are_brought_into_order_by_every_kind_of_suspect(tmp_path):
    """A permutation of three that is not its own inverse."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from conftest import TINY

    orders = {"suspect": ("a", "b", "c"), "other": ("b", "c", "a")}
    for seed, (name, labels) in enumerate(orders.items()):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(**{**TINY, "vocab_size": 20, **named(*labels)})
        AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / name)
    own, other = (open_weights(tmp_path / name) for name in orders)
    saved = open_suspect(str(tmp_path / "suspect"))
    held = hold(saved, WAG(), others=[str(tmp_path / "other")], matching=Matching(labels="permute"))
    merged = purify(saved, WAG(), held).weights
    expected = (own["classifier.bias"] + other["classifier.bias"][[2, 0, 1]]) / 2
    torch.testing.assert_close(merged["classifier.bias"], expected)
