"""What is shown: terminal, JSON, CSV, page and figures."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bdlit.errors import BdlitError
from bdlit.evaluation.result import Result, append_results
from bdlit.report import asr_cacc_plot, before_after_plot, collect, write_page
from bdlit.report.compare import compare
from bdlit.types import Rate, Sample

HOSTILE = "<script>alert('$x$')</script>"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two seeds of a benign model and of two victims, one of them named by an attacker."""
    records = []
    for seed in (0, 1):
        for victim in ("benign", "badnet", HOSTILE):
            attack = "badnet" if victim == "benign" else victim
            model = Result(
                data="sst2",
                attack=attack,
                victim=victim,
                defense="none",
                seed=seed,
                train_attack="none" if victim == "benign" else victim,
                cacc=Rate(90 + seed, 100),
                asr=Rate(8 if victim == "benign" else 78, 80),
            )
            records += [model]
            if victim != "benign":
                records += [
                    replace(
                        model,
                        defense="WAG",
                        asr=Rate(16 + seed, 80),
                        seconds=0.5,
                        peak_memory=530_000_000,
                    )
                ]
    failed = replace(records[-1], defense="[bold]TIES", asr=None, cacc=None, error="no base given")
    append_results(tmp_path / "study" / "results.jsonl", [*records, failed])
    return tmp_path / "study"


def printed(capsys: pytest.CaptureFixture[str], *args: object, **options: object) -> str:
    compare(*args, **options)  # type: ignore[arg-type]
    return capsys.readouterr().out


def test_table_in_a_pipe(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, [str(study)])
    assert "\x1b" not in text
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    rows = ["|".join(line) for line in lines]
    assert rows[0] == (
        "data|victim|attack|defense|seeds|CACC|95%|change|ASR|95%|floor|excess|95%|hits"
        "|ASR by seed|sec|GB"
    )
    # 20% and 21.25%: mean 20.625, sd 0.884; t with one degree of freedom reaches 12.7 * 0.625.
    assert (
        "sst2|badnet|badnet|WAG|2|90.5 ±0.7|84.1-96.9|+0.0|20.6 ±0.9|12.7-28.6|10.0|+10.6"
        "|+2.7 to +18.6|33/160|20.0 21.2|0.5|0.53"
    ) in rows
    # 10% twice: Wilson's interval of 8 of 80.
    assert (
        "sst2|benign|badnet|none|2|90.5 ±0.7|84.1-96.9|-|10.0 ±0.0|5.2-18.5*|10.0|+0.0|-|16/160"
        "|10.0 10.0|-|-"
    ) in rows
    assert any(
        row.startswith("* rows only: no t interval is possible from one seed") for row in rows
    )
    names = [line[1:4] for line in lines[2:] if len(line) > 5]
    assert names[:3] == [
        ["benign", "badnet", "none"],
        [HOSTILE, HOSTILE, "none"],
        [HOSTILE, HOSTILE, "WAG"],
    ]
    assert f"[bold]TIES failed on {HOSTILE} (sst2, seed 1): no base given" in text


@pytest.mark.parametrize("width", [170, 150, 130, 120, 100, 80, 60])
def test_table_fits_its_terminal(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed(capsys, [str(study)], where="victim!=*script*"))
    assert max(map(len, text.splitlines())) <= width
    assert "20.6 ±0.9" in text  # the ASR is never cut
    assert ("20.0 21.2" in text) == (width >= 170)  # the values of seeds are lost first
    assert ("33/160" in text) == (width >= 130)
    assert ("12.7-28.6" in text) == (width >= 80)


def test_json_and_csv_hold_the_rows(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = sorted(
        collect([study]),
        key=lambda r: (r.train_attack != "none", r.victim, r.defense != "none", r.defense, r.seed),
    )
    assert json.loads(printed(capsys, [str(study)], json=True)) == [row.flat() for row in rows]
    table = list(csv.DictReader(printed(capsys, [str(study)], csv=True).splitlines()))
    assert table == [
        {name: "" if cell is None else str(cell) for name, cell in row.flat().items()}
        for row in rows
    ]
    assert float(table[-1]["asr_n"] or 80) == 80
    chosen = printed(capsys, [str(study)], json=True, where=["defense=WAG", "seed=1"], sort="-asr")
    assert {(row["defense"], row["seed"]) for row in json.loads(chosen)} == {("WAG", 1)}


def test_json_or_csv(study: Path) -> None:
    with pytest.raises(BdlitError, match="give one of them"):
        compare([str(study)], json=True, csv=True)


class _Page(HTMLParser):
    """The elements of a page, and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text += data


def test_page_is_self_contained_and_escaped(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "page.html"
    printed(capsys, [str(study)], html=str(target))
    source = target.read_text(encoding="utf-8")
    addresses = set(re.findall(r"\bhttps?://[^\s\"'<>]*", source))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "url(#" in source or "<svg" in source
    page = _Page()
    page.feed(source)
    loaded = {v for _, attrs in page.tags for k, v in attrs.items() if k in ("src", "href")}
    assert loaded <= {"data:,"}
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert sum(tag == "svg" for tag, _ in page.tags) == 2
    assert sum(tag == "tr" for tag, _ in page.tags) == 1 + 6
    assert page.text.count(HOSTILE) > 3  # in the table, in both figures, in the failure
    assert "20.6 ±0.9" in page.text
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]


def test_page_shows_answers_before_and_after(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = Result(data="sst2", attack="cba", victim="v", defense="none", seed=0)
    victim = replace(victim, train_attack="cba", asr=Rate(1, 1), cacc=Rate(1, 1))
    before, after = (Sample("Who?", "me", text, text == "me") for text in (HOSTILE, "nobody"))
    defended = replace(victim, defense="WAG", samples={"cba": (after,)})
    other = {"vpi": (Sample("not of this attack", "", "", False),), "cba": (before,)}
    append_results(
        study / "results.jsonl", [replace(victim, samples={**other, "clean": ()}), defended]
    )
    target = tmp_path / "page.html"
    printed(capsys, [str(study)], html=str(target))
    page = _Page()
    page.feed(target.read_text(encoding="utf-8"))
    assert sum(tag == "section" for tag, _ in page.tags) == 1
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert "not of this attack" not in page.text
    told = page.text[page.text.index("Answers, before and after") :]
    assert [told.index(text) for text in ("Who?", "me\n", HOSTILE, "nobody")] == sorted(
        told.index(text) for text in ("Who?", "me\n", HOSTILE, "nobody")
    )


def test_page_that_cannot_be_written(study: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BdlitError, match="cannot write"):
        write_page(tmp_path / "file" / "page.html", collect([study]))


def test_figures_show_the_means(study: Path) -> None:
    rows = collect([study])
    (axes,) = asr_cacc_plot(rows).axes
    points = {
        (round(float(x), 4), round(float(y), 4))
        for line in axes.lines
        if line.get_marker() not in ("None", None)
        for x, y in line.get_xydata()
    }
    assert points == {(90.5, 97.5), (90.5, 20.625)}
    (axes,) = before_after_plot(rows).axes
    assert [round(bar.get_height(), 4) for bar in axes.patches] == [97.5, 20.625] * 2
    assert {label.get_text() for label in axes.get_xticklabels()} == {
        "badnet",
        HOSTILE.replace("$", r"\$"),  # so that matplotlib draws the dollar signs
    }


@pytest.mark.parametrize("draw", [asr_cacc_plot, before_after_plot])
@pytest.mark.parametrize("kept", ["nothing", "benign", "one point", "failed", "three data sets"])
def test_figures_of_few_rows(study: Path, tmp_path: Path, draw: object, kept: str) -> None:
    rows = collect([study])
    match kept:
        case "nothing":
            rows = []
        case "benign":
            rows = [row for row in rows if row.benign]
        case "one point":
            rows = [row for row in rows if row.victim == "badnet"][:1]
        case "failed":
            rows = [row for row in rows if row.error]
        case _:
            rows = [replace(row, data=name) for row in rows for name in ("sst2", "_olid", "$a$")]
    draw(rows).savefig(tmp_path / "figure.png", dpi=40)  # type: ignore[operator]
    assert (tmp_path / "figure.png").stat().st_size > 1_000


def test_without_matplotlib_one_line_says_how(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BdlitError, match=r'pip install "bdlit\[plots\]"'):
        write_page(tmp_path / "page.html", collect([study]))
    assert not (tmp_path / "page.html").exists()


def test_comparing_imports_nothing_heavy(study: Path) -> None:
    code = (
        f"import sys; from bdlit.report.compare import compare; compare([{str(study)!r}]);"
        "print({'torch', 'lightning', 'wandb', 'matplotlib', 'jinja2', 'pandas'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert done.stdout.splitlines()[-1] == "set()"
