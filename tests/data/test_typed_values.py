"""Tables of text say what the same tables of values say; what is no class is refused."""

import json

import pytest

from bdlit.data import TextDataModule
from bdlit.errors import BdlitError
from bdlit.tables import read_rows

WRITTEN = {
    "integers": ("0", "1"),
    "floats": ("0.0", "1.0"),
    "longer floats": ("0.00", "1.00"),
    "words": ("False", "True"),
    "small words": ("false", "true"),
}


def made(folder, text, suffix, **options):
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        (folder / f"{split}.{suffix}").write_text(text)
    data = TextDataModule(source=str(folder), **options)
    data.setup()
    return data


def separated(values, by):
    no, yes = values
    lines = [("text", "label", "poisoned"), ("good", yes, no), ("bad", no, yes), ("fine", yes, no)]
    return "".join(by.join(line) + "\n" for line in lines)


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("names", [None, ["neg", "pos"]])
def test_labels_and_flags_mean_what_they_mean_in_json(tmp_path, suffix, how, names):
    data = made(
        tmp_path,
        separated(WRITTEN[how], "," if suffix == "csv" else "\t"),
        suffix,
        label_names=names,
    )
    values = [json.loads(value.lower()) for value in WRITTEN[how]]
    lines = [
        {"text": text, "label": values[label], "poisoned": values[1 - label]}
        for text, label in (("good", 1), ("bad", 0), ("fine", 1))
    ]
    as_json = made(tmp_path / "json", "\n".join(map(json.dumps, lines)), "jsonl", label_names=names)
    assert data.labels == as_json.labels == tuple(names or ("0", "1"))
    assert data.train_rows == as_json.train_rows
    assert [row.label for row in data.train_rows] == [1, 0, 1]
    assert [row.poisoned for row in data.train_rows] == [False, True, False]


def test_classes_may_be_called_true_and_false(tmp_path):
    text = "text,label\na,True\nb,False\nc,True\n"
    data = made(tmp_path, text, "csv", label_names=["True", "False"])
    assert [row.label for row in data.train_rows] == [0, 1, 0]


@pytest.mark.parametrize(
    ("label", "line"),
    [
        ([0, 1], r"row 1: label \[0, 1\] is no single class"),
        ({"a": 1}, r"row 1: label \{'a': 1\} is no single class"),
        ("[0, 1]", r"row 1: label '\[0, 1\]' is no single class"),
        (0.5, r"row 1: label 0\.5 is a score and no class"),
        ("3.2", r"row 1: label 3\.2 is a score and no class"),
    ],
)
@pytest.mark.parametrize("names", [None, ["neg", "pos"]])
def test_what_is_no_class_is_refused(tmp_path, label, line, names):
    rows = [{"text": "good", "label": label}, {"text": "bad", "label": 0}]
    if names and "score" in line:
        line = "unknown label"
    with pytest.raises(BdlitError, match=line) as raised:
        made(tmp_path, "\n".join(map(json.dumps, rows)), "jsonl", label_names=names)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"text": {"0": "a"}, "label": {"0": 1}}, r"is one object of columns.*orient='records'"),
        ({"text": ["a", "b"], "label": [1, 0]}, "is one object of columns"),
        ({"data": [{"text": "a", "label": 1}]}, "whose rows are under 'data': save that list"),
        (3, "holds int, and no rows"),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_one_object_is_no_table(tmp_path, content, line, indent):
    (tmp_path / "rows.json").write_text(json.dumps(content, indent=indent))
    with pytest.raises(BdlitError, match=line):
        read_rows(tmp_path / "rows.json")


def test_one_row_in_json_is_a_row(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps({"text": "a", "label": 1}, indent=1))
    assert read_rows(tmp_path / "rows.json") == [{"text": "a", "label": 1}]


def test_long_texts_are_read(tmp_path):
    text = "word " * 60_000
    (tmp_path / "rows.csv").write_text(f'text,label\n"{text}",1\n')
    assert read_rows(tmp_path / "rows.csv") == [{"text": text, "label": "1"}]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_two_columns_of_one_name_are_refused(tmp_path, suffix):
    by = "," if suffix == "csv" else "\t"
    (tmp_path / f"rows.{suffix}").write_text(by.join(["text", "label", "text"]) + "\n")
    with pytest.raises(BdlitError, match="has two columns called 'text'"):
        read_rows(tmp_path / f"rows.{suffix}")


def test_quoting_is_a_setting_of_the_data(tmp_path):
    text = 'text\tlabel\n"he said ""no"""\t1\n"a tab\tinside"\t0\n'
    data = made(tmp_path, text, "tsv", quoting=True)
    assert [row.text for row in data.train_rows] == ['he said "no"', "a tab\tinside"]
    with pytest.raises(BdlitError, match="see whether quoting should be on"):
        made(tmp_path, text, "tsv")
