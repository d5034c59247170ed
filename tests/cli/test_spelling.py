"""Options as people write them, and errors that are one line whatever happens."""

import pytest

from bdlit.cli import functions as commands
from bdlit.cli import main
from bdlit.cli.functions import _spelled_out
from bdlit.errors import BdlitError


def command(names: list[str], *, where: list[str] | str | None = None, flag: bool = False) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["--flag"], ["--flag=true"]),
        (["--flag", "true"], ["--flag=true"]),
        (["--flag", "False"], ["--flag=false"]),
        (["--flag=false"], ["--flag=false"]),
        (["--where", "a=b"], ["--where=a=b"]),
        (["--where=a=b", "--where=c=d"], ["--where=a=b", "--where+=c=d"]),
        (["--where", "a=b", "--where", "c=d"], ["--where=a=b", "--where+=c=d"]),
        (["--where=a=b", "--where+=c=d"], ["--where=a=b", "--where+=c=d"]),
        (["--where=a", "--where=[c]"], ["--where=a", "--where=[c]"]),
    ],
)
def test_options_mean_what_they_say(given, meant):
    assert _spelled_out(command, ["runs", *given]) == ['["runs"]', *meant]


def test_conditions_given_one_by_one_all_hold(tmp_path, capsys):
    from bdlit.evaluation import Result, append_results
    from bdlit.types import Rate

    results = [
        Result(data="toy", attack="a", victim=v, defense=d, seed=0, asr=Rate(1, 2), cacc=Rate(1, 2))
        for v in ("one", "two")
        for d in ("none", "WAG")
    ]
    append_results(tmp_path / "results.jsonl", results)
    arguments = ["--where", "victim=one", "--where", "defense=WAG", "--csv"]
    assert main(["compare", str(tmp_path), *arguments]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) == 2


@pytest.mark.parametrize("command", ["merge", "defend", "study", "poison"])
def test_an_unknown_key_of_a_config_is_told_with_the_nearest(tmp_path, capsys, command):
    config = tmp_path / "mine.yaml"
    config.write_text("outt: x\nseed: 1\n")
    assert main([command, f"--config={config}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"bdlit: error: config {config} has the key 'outt', which is no setting")
    assert "'out'" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("two\nlines"), "RuntimeError: two (--debug shows where)"),
        (KeyError("x"), "KeyError: 'x' (--debug shows where)"),
        (ValueError(), "ValueError: without a word (--debug shows where)"),
        (BdlitError("red \x1b[31m and\na line"), r"red \x1b[31m and\na line"),
    ],
)
def test_whatever_happens_is_one_line(monkeypatch, capsys, error, line):
    def broken(command, arguments):
        raise error

    monkeypatch.setattr(commands, "run", broken)
    assert main(["compare", "x"]) == 2
    assert capsys.readouterr().err == f"bdlit: error: {line}\n"
    with pytest.raises(type(error)):
        main(["compare", "x", "--debug"])
