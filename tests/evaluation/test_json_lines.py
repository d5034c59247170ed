"""Lines that several processes append to: no blank ones, and none torn for long."""

import json
from multiprocessing import get_context

import pytest

from bdlit.evaluation.json_lines import append_lines, read_lines


def contents(file):
    return [content for _, content in read_lines(file, "numbers")]


def test_every_line_is_json(tmp_path):
    file = tmp_path / "new" / "lines.jsonl"
    for i in range(3):
        append_lines(file, [json.dumps({"i": i}), json.dumps({"i": -i})])
    assert [json.loads(line) for line in file.read_text().splitlines()] == contents(file)
    assert file.read_bytes().count(b"\n") == 6
    append_lines(file, [])
    assert len(contents(file)) == 6


@pytest.mark.parametrize("torn", ['{"i": 1, "text": "half', "x" * 200_000, "{"])
@pytest.mark.parametrize("whole", ["", '{"i": 0}\n', '{"i": 0}\n\n{"i": 0}\n'])
def test_a_torn_line_is_mended_by_the_next_write(tmp_path, torn, whole):
    file = tmp_path / "lines.jsonl"
    file.write_text(whole + torn)
    before = contents(file)
    append_lines(file, ['{"i": 7}'])
    assert file.read_text() == whole + '{"i": 7}\n'
    assert contents(file) == [*before, {"i": 7}]


def _append(file, who):
    for i in range(50):
        append_lines(file, [json.dumps({"who": who, "i": i, "text": "x" * 5000})])


def test_processes_do_not_disturb_each_other(tmp_path):
    file = tmp_path / "lines.jsonl"
    processes = [get_context("spawn").Process(target=_append, args=(file, w)) for w in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    found = [(line["who"], line["i"]) for line in map(json.loads, file.read_text().splitlines())]
    assert sorted(found) == [(who, i) for who in range(3) for i in range(50)]
