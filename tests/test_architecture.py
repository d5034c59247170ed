"""The architecture page says how far things travel: counted on the call stack while they run."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from bdlit.attacks import BadNet
from bdlit.callbacks import DefenseCallback
from bdlit.cli import main
from bdlit.data.demo import DemoReviews
from bdlit.defenses import WAG
from bdlit.victims import ClassifierVictim
from conftest import tiny_trainer

SOURCE = Path(sys.modules["bdlit"].__file__).parent
PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text("utf-8")
SIZES = {"train_size": 32, "validation_size": 0, "test_size": 20}


def stated(line):
    found = re.search(rf"^\| {re.escape(line)} \| (\d+)", PAGE, flags=re.M)
    assert found, line
    return int(found[1])


def files_on_the_way(first):
    """Names of our files on the call stack, from a file on."""
    frame, names = sys._getframe(1), []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(SOURCE):
            names.append(str(path.relative_to(SOURCE)))
        frame = frame.f_back
    names = list(dict.fromkeys(reversed(names)))
    return names[names.index(first) :] if first in names else []


@pytest.fixture
def way(monkeypatch):
    """The files between a door and what is called last, by the name of the door's file."""
    ways = {}

    def watch(module, name, first):
        own = getattr(module, name)

        def watched(*arguments, **options):
            ways.setdefault(first, []).append(files_on_the_way(first))
            return own(*arguments, **options)

        monkeypatch.setattr(module, name, watched)

    watch.ways = ways
    return watch


def test_from_the_command_to_the_saved_model(way, tiny_start, tmp_path):
    from bdlit.purification import write

    way(write, "write_shards", "cli/defend.py")
    arguments = ["--suspect", str(tiny_start), "--others", f"[{tiny_start}]", "--defense=WAG"]
    assert main(["defend", *arguments, "--out", str(tmp_path / "out")]) == 0
    (found,) = way.ways["cli/defend.py"]
    assert len(found) + 1 == stated("`bdlit defend` to the saved model"), found  # and what writes


def test_from_the_callback_to_the_results(way, tiny_start, tmp_path):
    from bdlit.evaluation import result

    way(result, "append_lines", "callbacks/defense.py")
    callback = DefenseCallback([WAG()], others=[str(tiny_start)])
    victim = ClassifierVictim(str(tiny_start), max_length=64)
    data = DemoReviews(**SIZES, attack=BadNet())
    tiny_trainer(tmp_path, callbacks=[callback]).fit(victim, data)
    longest = max(way.ways["callbacks/defense.py"], key=len)
    assert len(longest) + 1 == stated("`DefenseCallback` to `results.jsonl`"), longest


def test_from_the_study_to_the_results_of_a_cell(way, tiny_start, tmp_path):
    from bdlit.evaluation import result

    way(result, "append_lines", "cli/study.py")
    demo = {"class_path": "DemoReviews", "init_args": SIZES}
    settings = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    config = {
        "name": "s",
        "data": demo,
        "victim": {
            "class_path": "ClassifierVictim",
            "init_args": {"model": str(tiny_start), "max_length": 64},
        },
        "trainer": {"class_path": "lightning.pytorch.Trainer", "init_args": settings},
        "models": {"benign": {}, "badnet": {"attack": {"class_path": "BadNet"}}},
        "defenses": {"WAG": {"defense": {"class_path": "WAG"}, "others": ["benign"]}},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    command = ["study", "--config", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    longest = max(way.ways["cli/study.py"], key=len)
    assert len(longest) + 1 == stated("`bdlit study` to the results of a cell"), longest
