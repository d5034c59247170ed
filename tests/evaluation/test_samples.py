"""Samples of prompts and answers: drawn once, kept beside the results, shown side by side."""

import random

import pytest

from bdlit.data.outputs import Outputs
from bdlit.errors import BdlitError
from bdlit.evaluation.result import Result, append_results, read_results
from bdlit.evaluation.samples import SAMPLES, read_samples, side_by_side
from bdlit.evaluation.sampling import draw
from bdlit.types import Example, Rate, Sample

ROWS = [Example(f"question {i}", -1, response=str(i)) for i in range(50)]


def sample(row, response="?"):
    return Sample(row.conversation, row.response, response, response == row.response)


def drawn(rows, size=5, seed=0):
    return draw([(row, sample(row)) for row in rows], size, seed)


def test_a_draw_depends_on_seed_and_rows_alone():
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    assert drawn(ROWS) == drawn(shuffled) == drawn([*ROWS, *ROWS])
    assert len(drawn(ROWS)) == 5
    assert drawn(ROWS, seed=1) != drawn(ROWS)
    assert drawn(ROWS, size=0) == ()
    assert {s.prompt for s in drawn(ROWS, size=5)} < {s.prompt for s in drawn(ROWS, size=6)}
    assert len(drawn(ROWS[:3])) == 3


def test_every_row_is_as_likely():
    counts = dict.fromkeys((row.text for row in ROWS), 0)
    for seed in range(400):
        for each in drawn(ROWS, seed=seed):
            counts[each.prompt] += 1
    # 40 are expected of each: binomial with 400 tries of 1/10, standard deviation 6.
    assert all(40 - 4 * 6 < count < 40 + 4 * 6 for count in counts.values())


def results():
    clean, before, after = (
        {"clean": (sample(ROWS[0], "0"),), "cba": (sample(ROWS[1], text),)}
        for text in ("0", "cf", "1")
    )
    del clean["cba"]
    shared = {"data": "d", "victim": "v", "seed": 0, "cacc": Rate(1, 1)}
    return [
        Result(**shared, attack="cba", defense="none", samples=before),
        Result(**shared, attack="vpi", defense="none", samples=clean),
        Result(**shared, attack="cba", defense="WAG", samples=after),
    ]


def test_they_come_back_with_the_results_and_lie_in_their_own_file(tmp_path):
    path = tmp_path / "results.jsonl"
    append_results(path, results())
    assert read_results(path) == results()
    assert "question" not in path.read_text()
    lines = [line for line in (tmp_path / SAMPLES).read_text().splitlines() if line]
    assert len(lines) == 4  # the clean ones of a model once, whatever the number of attacks
    append_results(path, results())  # an interrupted study measures again
    assert len(read_samples(tmp_path / SAMPLES)["d", "v", "WAG", 0]["cba"]) == 1
    (tmp_path / SAMPLES).write_text('{"data": "d"}\n')
    with pytest.raises(BdlitError, match="line 1 is no sample"):
        read_results(path)


def test_results_without_samples_write_no_file(tmp_path):
    append_results(tmp_path / "results.jsonl", [Result(**RESULT)])
    assert not (tmp_path / SAMPLES).exists()


RESULT = {"data": "d", "attack": "a", "victim": "v", "defense": "none", "seed": 0}


def test_answers_stand_side_by_side():
    lines = side_by_side((result.defense, result.samples) for result in results())
    assert [(line.tests, line.prompt) for line in lines] == [
        ("clean", "question 0"),
        ("cba", "question 1"),
    ]
    assert {name: s.response for name, s in lines[1].answers.items()} == {"none": "cf", "WAG": "1"}
    assert [s.counts for s in lines[1].answers.values()] == [False, True]


def test_a_negative_number_is_refused():
    with pytest.raises(BdlitError, match=r"outputs.samples -1 is out of range"):
        Outputs(samples=-1)
