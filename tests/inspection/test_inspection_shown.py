"""What `bdlit inspect` shows: terminal, JSON, page, heat map; and the command itself."""

import functools
import json
import re
import sys

import pytest
import torch
from safetensors.torch import save_file

from bdlit.cli import main
from bdlit.formatting import percent, printable
from bdlit.inspection.as_json import to_json
from bdlit.inspection.differences import Differences
from bdlit.inspection.distance import distances
from bdlit.inspection.distance_table import ordered_modules
from bdlit.inspection.facts import Inspection
from bdlit.inspection.page import distance_plot, write_inspection_page
from bdlit.inspection.terminal import (
    Comparison,
    difference_facts,
    facts,
    print_inspections,
)

HOSTILE = "<script>$x$</script>[bold]\x1b[2J"


def model(step=0.0):
    """A model of 3 layers, whose weights are 1 at step 0; the step grows with the layer."""
    weights = {
        "bert.embeddings.word_embeddings.weight": torch.ones(4),
        "classifier.weight": torch.ones(2, 4) + 10 * step,
    }
    for layer in range(3):
        for module in ("output.dense", "attention.self.value", "attention.self.query"):
            name = f"bert.encoder.layer.{layer}.{module}.weight"
            weights[name] = torch.ones(4) + step * (layer + 1)
    return weights


@pytest.fixture
def two(tmp_path):
    """Two models as folders; the second is 0.01 times the number of the layer away."""
    config = {"model_type": "bert", "id2label": {"0": "bad", "1": "good"}}
    for name, step in (("a", 0.0), ("b", 0.01)):
        (tmp_path / name).mkdir()
        save_file(model(step), tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def inspected(capsys, *arguments):
    assert main(["inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_one_checkpoint_in_a_pipe(two, capsys):
    text = inspected(capsys, two[0])
    assert "\x1b" not in text
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    assert [two[0]] == lines[0]
    assert ["verdict", "opens without running code"] in lines
    assert ["tensors", "11 (11 float32), 48 parameters, 192 bytes"] in lines
    assert ["labels", "2: 0 bad, 1 good"] in lines
    assert ["head", "classifier.weight"] in lines


def test_the_table_of_distances(two, capsys):
    text = inspected(capsys, *two)
    assert "can be merged" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["module", "0", "1", "2", "all", "cosine"] in rows
    # Steps of 1, 2, 3 percent: over all of them the root of (1 + 4 + 9) / 3.
    assert ["attention.self.query", "1.00", "2.00", "3.00", "2.16", "0.999968"] in rows
    assert ["embeddings.word_embeddings", "0", "1.000000"] in rows
    assert ["classifier", "10.0", "1.000000"] in rows
    # 3 modules in each layer, 4 entries each; (12 * 14 * 0.01^2 + 8 * 0.1^2) / 48 = 0.04491^2.
    (whole,) = [row for row in rows if row[:4] == ["all", "1.00", "2.00", "3.00"]]
    assert whole[4] == "4.49"
    order = [row[0] for row in rows if row and row[-1].startswith(("0.99", "1.00"))]
    assert order == [
        "embeddings.word_embeddings",
        "attention.self.query",
        "attention.self.value",
        "output.dense",
        "classifier",
        "all",
    ]


def test_json_has_everything(two, capsys):
    record = json.loads(inspected(capsys, *two, "--json"))
    first, second = record["checkpoints"]
    assert first["parameters"] == 48
    assert first["id2label"] == {"0": "bad", "1": "good"}
    assert first["fingerprint"] != second["fingerprint"]
    (comparison,) = record["comparisons"]
    assert (comparison["first"], comparison["other"]) == tuple(two)
    apart = comparison["distance"]
    assert apart["all"]["relative_l2"] == pytest.approx(0.04491, abs=1e-5)
    assert apart["layers"]["1"]["relative_l2"] == pytest.approx(0.02, rel=1e-5)
    assert apart["modules"]["classifier"]["relative_l2"] == pytest.approx(0.1, rel=1e-5)
    assert len(apart["tensors"]) == 11
    assert {"name", "layer", "module", "entries", "relative_l2", "cosine"} == set(
        apart["tensors"][0]
    )


def test_json_of_numbers_that_are_none():
    found = distances({"w": torch.tensor([1.0])}, {"w": torch.tensor([float("nan")])})
    record = json.loads(to_json([], [Comparison("a", "b", Differences(), found)]))
    assert record["comparisons"][0]["distance"]["all"] == {
        "entries": 1,
        "relative_l2": None,
        "cosine": None,
    }


@pytest.mark.parametrize("width", [60, 80, 120])
def test_wide_models_fit_their_terminal(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    first = {f"model.layers.{i}.self_attn.q_proj.weight": torch.ones(2) for i in range(80)}
    other = {name: tensor * 1.5 for name, tensor in first.items()}
    comparison = Comparison("a", "b", Differences(), distances(first, other))
    print_inspections([], [comparison])
    lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    (head,) = [line.split() for line in lines if line.startswith("module")]
    assert head[-2:] == ["all", "cosine"]
    assert head[1].startswith("0-")
    assert head[-3].endswith("79")
    assert any("50.0" in line for line in lines)


def test_what_files_say_is_neither_markup_nor_command(tmp_path, capsys):
    found = Inspection(address=HOSTILE, form="file", files={HOSTILE: 3}, model_type=HOSTILE)
    other = distances({HOSTILE: torch.ones(2)}, {HOSTILE: torch.zeros(2)})
    comparison = Comparison(HOSTILE, HOSTILE, Differences(only_first=(HOSTILE,)), other)
    print_inspections([found], [comparison])
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "[bold]" in text
    write_inspection_page(tmp_path / "page.html", [found], [comparison])
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page


def test_the_page_stands_alone(two, tmp_path, capsys):
    page = tmp_path / "out.html"
    inspected(capsys, *two, f"--html={page}")
    text = page.read_text()
    assert text.count("<svg") == 1
    assert "opens without running code" in text
    assert "can be merged" in text
    assert "attention.self.query" in text
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", text)
    assert text.count("3.00") >= 3


def test_a_page_of_one_needs_no_figure(two, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    inspected(capsys, two[0], "--html", tmp_path / "one.html")
    assert "<svg" not in (tmp_path / "one.html").read_text()
    assert main(["inspect", *two, "--html", str(tmp_path / "two.html")]) == 2
    assert "bdlit[plots]" in capsys.readouterr().err
    assert not (tmp_path / "two.html").exists()


def test_the_heat_map_has_a_cell_for_each_part():
    comparison = Comparison("a", "b", Differences(), distances(model(), model(0.01)))
    figure = distance_plot(comparison)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2", "all"]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ordered_modules(comparison.distances)
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written[(2.5, names.index("output.dense") + 0.5)] == "3.00"
    assert written[(3.5, names.index("classifier") + 0.5)] == "10.0"
    assert len(written) == 3 * 4 + 2


def test_a_heat_map_of_equal_models(tmp_path):
    comparison = Comparison("a", "b", Differences(), distances(model(), model()))
    write_inspection_page(tmp_path / "page.html", [], [comparison])
    assert distance_plot(comparison).axes[0].texts[0].get_text() == "0"


def test_what_a_pickle_wants_is_shown_and_the_command_succeeds(tmp_path, capsys):
    torch.save({"w": torch.ones(1), "x": functools.partial}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    text = inspected(capsys, tmp_path)
    assert "does not open without running code: pytorch_model.bin (functools.partial)" in text
    assert "gpt2" in text
    text = inspected(capsys, tmp_path, tmp_path)  # there is nothing to be measured
    assert "as far as is known" in text


def test_bad_addresses_end_in_one_line(tmp_path, capsys):
    (tmp_path / "a.safetensors").write_bytes(b"nonsense")
    for address, message in (("a.safetensors", "cannot be read"), ("b", "there is no model")):
        assert main(["inspect", str(tmp_path / address)]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert "\n" not in error


def test_long_lists_are_cut(tmp_path):
    found = difference_facts(Differences(only_first=tuple("abcdefgh")))
    assert found["only in first"] == "a, b, c, d, e and 3 more"
    broken = Inspection(address="a", form="f", files={}, not_finite={"w": 2}, outlines={})
    assert "NaN" in facts(broken)["verdict"]


def test_small_helpers():
    assert [percent(x) for x in (0.999, 0.0999, 9.99, 1e-9, float("nan"))] == [
        "99.9",
        "9.99",
        "999",
        "1e-07",
        "nan",
    ]
    assert printable("a\u202eb\n") == "a\\u202eb\\n"
