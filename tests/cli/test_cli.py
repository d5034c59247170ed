import json
import resource
import signal
import subprocess
import sys

import pytest
import yaml

from bdlit.cli import main
from bdlit.data.poisoned_file import read_poisoned
from conftest import TINY, inspected
from launch import bdlit

TINY_FIT = {
    "model": {
        "class_path": "ClassifierVictim",
        "init_args": {"config": TINY, "max_length": 64, "learning_rate": 1e-3},
    },
    "data": {
        "class_path": "DemoReviews",
        "init_args": {
            "train_size": 96,
            "validation_size": 32,
            "test_size": 40,
            "attack": {"class_path": "BadNet"},
        },
    },
    "trainer": {
        "max_epochs": 1,
        "log_every_n_steps": 1,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": {
            "class_path": "lightning.pytorch.loggers.WandbLogger",
            "init_args": {"project": "test", "group": "g", "tags": ["t"]},
        },
    },
}


def fails(capsys, *arguments):
    """Run the command in this process, and return its one error line."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("bdlit: error: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def fit_file(folder, **changes):
    config = {**TINY_FIT, **changes}
    file = folder / "fit.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """The same fit twice in the same folder."""
    folder = tmp_path_factory.mktemp("fit")
    file = fit_file(folder)
    answers = [bdlit("fit", "--config", file, cwd=folder, WANDB_MODE="") for _ in range(2)]
    return folder, answers


def test_a_second_run_has_a_folder_of_its_own(two_runs):
    folder, answers = two_runs
    assert [answer.returncode for answer in answers] == [0, 0], answers[-1].stderr
    runs = sorted((folder / "runs").iterdir())
    assert len(runs) == 2
    for run in runs:
        assert (run / "config.yaml").is_file()
        assert list(run.glob("wandb/offline-run-*"))
        assert list(run.rglob("*.ckpt"))


def test_without_a_key_wandb_goes_offline_with_one_line(two_runs):
    _, answers = two_runs
    lines = [line for line in answers[0].stderr.splitlines() if "W&B is offline" in line]
    assert len(lines) == 1
    assert "wandb sync" in lines[0]


def test_the_whole_config_is_in_wandb_and_in_the_folder(two_runs):
    folder, _ = two_runs
    run = sorted((folder / "runs").iterdir())[0]
    saved = yaml.safe_load((run / "config.yaml").read_text())
    found = inspected(next(run.glob("wandb/offline-run-*")))
    logged = found["config"]
    assert logged["data"]["init_args"]["attack"]["class_path"] == "bdlit.BadNet"
    assert (
        logged["model"]["init_args"]["learning_rate"]
        == saved["model"]["init_args"]["learning_rate"]
    )
    assert {"train/loss", "val/cacc", "val/asr/badnet"} <= set(found["summary"])


def test_a_saved_config_reproduces_the_run_in_another_folder(two_runs, tmp_path, monkeypatch):
    from bdlit.weights import fingerprint, open_weights

    folder, _ = two_runs
    run = sorted((folder / "runs").iterdir())[0]
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(run / "config.yaml")]) == 0
    (first,), (again,) = run.rglob("*.ckpt"), tmp_path.rglob("*.ckpt")
    assert fingerprint(open_weights(first)) == fingerprint(open_weights(again))


def test_a_checkpoint_is_tested_and_predicts_by_command(two_runs, tmp_path, monkeypatch, capsys):
    from bdlit.data.demo import DemoReviews
    from bdlit.tables import read_rows

    folder, _ = two_runs
    checkpoint = str(next((folder / "runs").rglob("*.ckpt")))
    options = ["--config", str(fit_file(tmp_path)), "--ckpt_path", checkpoint]
    monkeypatch.chdir(tmp_path)
    assert main(["test", *options]) == 0
    shown = capsys.readouterr().out
    assert "victim/cacc" in shown
    assert "victim/asr/badnet" in shown

    assert main(["predict", *options]) == 0
    (file,) = tmp_path.rglob("predictions.jsonl")
    found, rows = read_rows(file), DemoReviews(test_size=40).load("test")
    assert [line["text"] for line in found] == [row.text for row in rows]
    for line in found:
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert line["predicted"] == max(line["probabilities"], key=line["probabilities"].get)


def test_help_names_every_command():
    answer = bdlit("--help", cwd=".")
    for command in ("fit", "validate", "test", "predict", "study", "compare", "poison", "list"):
        assert f"  {command} " in answer.stdout


@pytest.mark.parametrize("what", ["attacks", "data", "victims", "defenses", "recipes"])
def test_lists_name_what_there_is(what, capsys):
    assert main(["list", what]) == 0
    shown = capsys.readouterr().out
    expected = {
        "attacks": ["BadNet", "InsertSent", "Syntactic", "StyleBkd", "Mixture"],
        "data": ["SST2", "OLID", "DemoReviews", "DemoInstructions"],
        "victims": ["ClassifierVictim", "CausalLMVictim"],
        "defenses": ["WAG", "TIES", "DARE", "others, base"],
        "recipes": ["wag", "gms", "lethe", "language-model"],
    }[what]
    assert all(name in shown for name in expected)


def test_help_and_lists_import_neither_torch_nor_lightning():
    script = (
        "import sys; from bdlit.cli import main; "
        "[main(a.split()) for a in ('--help', 'list attacks', 'list data', 'list victims', "
        "'list defenses', 'list recipes')]; "
        "print([m for m in ('torch', 'lightning', 'transformers', 'wandb') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert answer.stdout.strip().splitlines()[-1] == "[]"


def test_poison_writes_what_training_would_see(tmp_path, capsys):
    from bdlit.attacks import BadNet
    from bdlit.data.demo import DemoReviews

    out = tmp_path / "poisoned.jsonl.gz"
    options = ["--data=DemoReviews", "--data.train_size=50", "--data.seed=3", "--attack=BadNet"]
    assert main(["poison", *options, "--attack.rate=0.4", f"--out={out}"]) == 0
    rows, manifest = read_poisoned(out)
    data = DemoReviews(train_size=50, seed=3, attack=BadNet(rate=0.4))
    data.setup()
    assert rows == data.train_rows
    assert manifest.poisoned == 20
    assert "20 poisoned" in capsys.readouterr().out
    reloaded = DemoReviews(train_size=50, poisoned_train=str(out))
    reloaded.setup()
    assert reloaded.train_rows == rows
    assert "exists" in fails(capsys, "poison", *options, f"--out={out}")


BAD_FIT = {
    "class": ("--model.class_path=ClasifierVictim", "did you mean 'ClassifierVictim'"),
    "key": ("--data.init_args.batch_sise=3", "batch_size"),
    "attack": ("--data.init_args.attack.class_path=BadNett", "did you mean 'BadNet'"),
    "rate": ("--data.init_args.attack.init_args.rate=1.5", "rate 1.5"),
    "target": ("--data.init_args.target=postive", "did you mean 'positive'"),
    "trainer": ("--trainer.max_epocs=3", "max_epocs"),
    "type": ("--trainer.max_epochs=many", "max_epochs"),
}


@pytest.mark.parametrize("name", BAD_FIT)
def test_bad_settings_end_in_one_line(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    option, expected = BAD_FIT[name]
    assert expected in fails(capsys, "fit", "--config", fit_file(tmp_path), option)


def test_an_unknown_defense_is_told_and_nothing_else(capsys):
    said = fails(capsys, "defend", "--suspect=a", "--out=b", "--defense=WAGG")
    assert said.endswith("unknown class 'WAGG': did you mean 'WAG'?")
    assert "path" not in said


def test_a_missing_config_is_told(capsys, tmp_path):
    assert "nowhere.yaml" in fails(capsys, "fit", "--config", tmp_path / "nowhere.yaml")
    assert "nowhere.yaml" in fails(capsys, "study", "--config", tmp_path / "nowhere.yaml")


def test_broken_yaml_is_told(capsys, tmp_path):
    (tmp_path / "bad.yaml").write_text("model: [unclosed\n  data: {")
    assert "bad.yaml" in fails(capsys, "fit", "--config", tmp_path / "bad.yaml")


def test_missing_and_empty_data_are_told(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"class_path": "SST2", "init_args": {"source": str(tmp_path / "nowhere")}}
    assert "nowhere" in fails(capsys, "fit", "--config", fit_file(tmp_path, data=data))
    (tmp_path / "train.jsonl").write_text("")
    (tmp_path / "test.jsonl").write_text('{"text": "good", "label": 1}\n')
    data = {"class_path": "SST2", "init_args": {"source": str(tmp_path)}}
    assert "train.jsonl" in fails(capsys, "fit", "--config", fit_file(tmp_path, data=data))


def test_unknown_words_get_the_nearest_one(capsys):
    assert "did you mean 'study'" in fails(capsys, "studdy")
    assert "defenses" in fails(capsys, "list", "defences")


def test_compare_of_nothing_is_told(capsys, tmp_path):
    assert str(tmp_path) in fails(capsys, "compare", tmp_path)


def test_values_may_stand_apart_from_their_options(capsys, tmp_path):
    from bdlit.evaluation.result import Result, append_results
    from bdlit.types import Rate

    cells = [
        Result(data="sst2", attack="badnet", victim="v", defense=defense, seed=0, asr=Rate(1, 2))
        for defense in ("none", "WAG", "TIES")
    ]
    append_results(tmp_path / "results.jsonl", cells)

    def shown(*options):
        assert main(["compare", *options]) == 0
        return {row["defense"] for row in json.loads(capsys.readouterr().out)}

    folder = str(tmp_path)
    assert shown(folder, "--where", "defense=W*", "--sort", "asr", "--json") == {"WAG"}
    assert shown("--where=defense=TIES", "--json", folder) == {"TIES"}
    assert shown("--json", "--where+", "defense!=W*", "--where+=victim=v", folder, folder) == {
        "none",
        "TIES",
    }


def test_debug_shows_the_traceback(tmp_path):
    from bdlit.errors import BdlitError

    with pytest.raises(BdlitError):
        main(["--debug", "compare", str(tmp_path)])


def limit_files_to_a_megabyte():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    """The process may write files of a megabyte at most; the poisoned set is larger."""
    out = tmp_path / "big.jsonl"
    options = ["--data=DemoReviews", "--data.train_size=12000", "--attack=BadNet", f"--out={out}"]
    answer = bdlit("poison", *options, before=limit_files_to_a_megabyte)
    assert answer.returncode == 2, answer.stderr
    assert "cannot write" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert list(tmp_path.iterdir()) == []
