from __future__ import annotations

import csv
import gzip
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdlit.errors import BdlitError
from bdlit.tables import read_rows, write_jsonl

HARD = 'line one\nline "two", with\u2028all\rsorts 👊'


def refused(path, **settings) -> str:
    with pytest.raises(BdlitError) as error:
        read_rows(path, **settings)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
@settings(deadline=None)
@given(texts=st.lists(st.text(), min_size=1, max_size=5))
def test_json_lines_round_trip(tmp_path_factory, suffix, texts):
    path = tmp_path_factory.mktemp("rows") / f"rows.{suffix}"
    rows = [{"text": text, "label": i} for i, text in enumerate([*texts, HARD, "\ud83d"])]
    write_jsonl(path, rows)
    assert read_rows(path) == rows


def test_gzip_bytes_depend_on_the_rows_alone(tmp_path):
    write_jsonl(tmp_path / "a.jsonl.gz", [{"text": HARD}])
    write_jsonl(tmp_path / "b.jsonl.gz", [{"text": HARD}])
    packed = (tmp_path / "a.jsonl.gz").read_bytes()
    assert packed == (tmp_path / "b.jsonl.gz").read_bytes()
    assert json.loads(gzip.decompress(packed)) == {"text": HARD}


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"text": "old"}])

    def rows():
        yield {"text": "new"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows())
    assert read_rows(path) == [{"text": "old"}]
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BdlitError, match="cannot write"):
        write_jsonl(tmp_path / "file" / "rows.jsonl", [{"text": "x"}])


def test_json_array_and_json_lines_under_the_name_json(tmp_path):
    rows = [{"sentence": "a", "label": 1}, {"sentence": "b", "label": 0}]
    array, lines = tmp_path / "array.json", tmp_path / "lines.json"
    array.write_text(json.dumps(rows, indent=1))
    lines.write_text("\n".join(map(json.dumps, rows)))
    assert read_rows(array) == read_rows(lines) == rows


def test_csv_with_nameless_index_and_line_breaks(tmp_path):
    path = tmp_path / "rows.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["", "0", "1"], ["0", HARD, "1"], ["1", "plain", "0"]])
    rows = read_rows(path)
    assert rows == [{"": "0", "0": HARD, "1": "1"}, {"": "1", "0": "plain", "1": "0"}]


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("\ufefftext,label\r\nhi,0\r\n\r\n".encode())
    assert read_rows(path) == [{"text": "hi", "label": "0"}]
    path = tmp_path / "rows.tsv"
    path.write_bytes("\ufefftext\tlabel\r\nhi\t0\r\n".encode())
    assert read_rows(path) == [{"text": "hi", "label": "0"}]


def test_quotes_of_tsv_are_literal_unless_asked(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text('text \t label\n"odd \t 1\n"say ""x""" \t 0\n')
    assert read_rows(path) == [
        {"text": '"odd', "label": "1"},
        {"text": '"say ""x"""', "label": "0"},
    ]
    path.write_text('text\tlabel\n"say ""x""\tand y"\t0\n')
    assert read_rows(path, quoting=True) == [{"text": 'say "x"\tand y', "label": "0"}]
    assert "line 2 has 3 columns, but the header has 2" in refused(path)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"text": HARD, "label": 1}, {"text": "b", "label": 0}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet") == rows
    (tmp_path / "bad.parquet").write_bytes(b"no parquet at all")
    assert "no valid Parquet file" in refused(tmp_path / "bad.parquet")
    assert "No such file" in refused(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text"\n', "line 2 is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n\n[1]\n', "line 3 is not a JSON object"),
        ("a.jsonl", b"\n \n", "has no rows"),
        ("a.jsonl", b"\xff\xfe", "not UTF-8"),
        ("a.jsonl.gz", b'{"text": "x"}', "Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}', mtime=0)[:-9], "cut off or damaged"),
        ("a.json", b"[1, 2]", "item 1 is not a JSON object"),
        ("a.json", b'[{"text": 1}', "is not JSON"),
        ("a.json", b"", "has no rows"),
        ("a.csv", b"text,label\n", "has no rows"),
        ("a.csv", b"text,label\nx,1\ny\n", "line 3 has 1 columns"),
        ("a.csv", b'text,label\n"never closed,1\ny,2\n', "not a valid table"),
        ("a.xlsx", b"", "unknown file type '.xlsx'; choose from: .jsonl"),
        ("a", b"", "unknown file type"),
    ],
)
def test_bad_files_say_what_and_where(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    assert told in refused(tmp_path / name)


def test_missing_file_and_folder(tmp_path):
    assert "No such file" in refused(tmp_path / "none.jsonl")
    (tmp_path / "folder.csv").mkdir()
    assert "Is a directory" in refused(tmp_path / "folder.csv")
