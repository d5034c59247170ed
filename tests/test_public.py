"""What `from bdlit import X` gives: everything that people name, from one source."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import bdlit
from bdlit.attacks import Attack, Trigger
from bdlit.cli import main
from bdlit.data import TextDataModule
from bdlit.defenses import Defense
from bdlit.names import ROOMS, names_of, offer, public_names, room
from bdlit.victims import Victim

SOURCE = Path(bdlit.__file__).parent


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_can_be_imported(name):
    assert getattr(bdlit, name) is not None


def test_what_people_name_is_there():
    nouns = {"evaluate", "purify", "train", "open_weights", "save_weights", "inspect", "hold"}
    assert nouns <= set(dir(bdlit)) & set(bdlit.__all__)
    for name in nouns:
        assert callable(getattr(bdlit, name))
        assert not inspect.ismodule(getattr(bdlit, name))


@pytest.mark.parametrize("base", [Attack, Trigger, Defense, Victim, TextDataModule])
def test_no_class_of_ours_is_left_out(base):
    offer()
    found, todo = set(), [base]
    while todo:
        children = todo.pop().__subclasses__()
        todo += children
        found |= {c for c in children if c.__module__.startswith("bdlit.")}
    usable = {c.__name__ for c in found if not inspect.isabstract(c) and c.__name__[0] != "_"}
    usable -= {"FromRecipe"}  # of `bdlit merge --recipe`
    assert usable <= set(public_names()), usable - set(public_names())


def test_rooms_do_not_share_a_name():
    seen = {}
    for each in ROOMS:
        for name in names_of(room(each)):
            assert getattr(bdlit, name) is getattr(room(seen.setdefault(name, each)), name)


def test_the_static_face_names_every_room():
    stub = (SOURCE / "__init__.pyi").read_text()
    assert sorted(f"from .{each} import *" for each in ROOMS) == [
        line for line in sorted(stub.splitlines()) if line.startswith("from ")
    ]


def test_a_wrong_name_is_told_with_the_nearest():
    with pytest.raises(ImportError, match=r"cannot import name 'BadNt'"):
        exec("from bdlit import BadNt")
    with pytest.raises(AttributeError, match=r"did you mean 'BadNet'\?"):
        _ = bdlit.BadNt


def test_importing_the_package_is_cheap():
    code = (
        "import sys, bdlit; dir(bdlit); "
        "print([m for m in ('torch', 'lightning') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_an_attack_that_edits_is_known_by_its_short_name(tmp_path):
    attack = "{class_path: ConflictSubtraction, init_args: {attack: {class_path: BadNet}}}"
    out = tmp_path / "rows.jsonl"
    assert main(["poison", "--data=DemoReviews", "--attack", attack, "--out", str(out)]) == 0
    assert out.is_file()


def test_a_module_that_is_not_found_is_told_how_to_be(capsys):
    command = ["merge", "--suspect=a", "--defense=no_such_module.Mine", "--out=b"]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "no module 'no_such_module' can be imported: if it is yours, name its folder in" in told


def test_a_class_that_asks_for_what_no_defender_has_is_told_in_one_line(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "cheating.py").write_text(
        "from bdlit.defenses import Defense\n"
        "class Cheat(Defense):\n"
        "    def apply(self, suspect, *, trigger): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["merge", "--suspect=a", "--defense=cheating.Cheat", "--out=b"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        "bdlit: error: defense: Cheat.apply asks for ['trigger'], which no defend"
    )
    assert len(told.splitlines()) == 1
