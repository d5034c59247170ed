import pytest

from bdlit.data.tables import Table, TableLayout
from bdlit.errors import BdlitError
from bdlit.types import Example


def table(*rows, where="reviews.jsonl", **options):
    return Table(where=where, columns=list(rows[0]), rows=rows, **options)


def labels_of(values, labels, **options):
    rows = [{"text": "x", "label": value} for value in values]
    read = TableLayout(rename_labels=options.pop("rename_labels", {})).read
    return [row.label for row in read(table(*rows, **options), labels)]


def test_indices_numbers_as_text_and_names_mean_the_same():
    assert labels_of([1, "1", 1.0, True, "pos", " pos "], ("neg", "pos")) == [1] * 6


def test_names_of_the_source_beat_its_order():
    turned = {"class_names": {"label": ("pos", "neg")}}
    assert labels_of([0, 1], ("neg", "pos"), **turned) == [1, 0]


def test_names_that_mean_nothing_here_are_taken_by_position():
    stars = {"class_names": {"label": ("1", "2")}}
    assert labels_of([0, 1], ("negative", "positive"), **stars) == [0, 1]


def test_classes_named_by_numbers_are_not_positions():
    assert labels_of(["1", 2], ("1", "2")) == [0, 1]
    with pytest.raises(BdlitError, match="row 1: label 0 is out of range"):
        labels_of([0], ("1", "2"))


def test_renamed_and_left_out():
    renamed = {"sport": "Sports", "arts": None, "-1": None}
    found = labels_of(["sport", "arts", -1, "World"], ("World", "Sports"), rename_labels=renamed)
    assert found == [1, 0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2, r"row 2: label 2 is out of range: classes are 0\.\.1 \(neg, pos\)"),
        (-3, "row 2: label -3 is out of range"),
        (0.5, "row 2: unknown label '0.5'"),
        ("poss", "row 2: unknown label 'poss': did you mean 'pos'"),
        (-1, r"row 2: no label; .*rename_labels: \{\"-1\": null\}"),
        (None, "row 2: no label"),
    ],
)
def test_a_label_of_no_class_is_refused_with_its_place(value, message):
    with pytest.raises(BdlitError, match=rf"reviews\.jsonl, {message}"):
        labels_of(["pos", value], ("neg", "pos"))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([2, 0, 0], ("0", "1", "2")),
        (["10", "9"], tuple(map(str, range(11)))),
        (["spam", "ham", "spam"], ("ham", "spam")),
        (["spam", "arts", -1], ("junk",)),
    ],
)
def test_class_names_are_inferred(values, names):
    layout = TableLayout(rename_labels={"arts": None, "spam": "junk"} if "arts" in values else {})
    rows = [{"text": "x", "label": value} for value in values]
    assert layout.infer_labels(table(*rows)) == names


def test_columns_are_the_first_that_exist():
    layout = TableLayout(text=("sentence", "text"), text_pair=("hypothesis", "text_pair"))
    own = table({"sentence": "a", "text": "no", "hypothesis": "b", "label": 0})
    plain = table({"text": "a", "text_pair": "b", "label": 0})
    expected = [Example("a", 0, "b")]
    assert layout.read(own, ("x",)) == layout.read(plain, ("x",)) == expected


def test_pairs_are_joined_once():
    layout = TableLayout(text_pair=("text_pair",), join_pairs=True)
    assert layout.read(table({"text": "a", "text_pair": "b", "label": 0}), ("x",)) == [
        Example("a b", 0)
    ]
    assert layout.read(table({"text": "a b", "label": 0}), ("x",)) == [Example("a b", 0)]


def test_a_missing_column_is_named_with_the_nearest_one():
    with pytest.raises(BdlitError, match="no column 'sentense': did you mean 'sentence'"):
        TableLayout(text=("sentense",)).read(table({"sentence": "a", "label": 0}), ("x",))
    with pytest.raises(BdlitError, match=r"no column 'text_pair'.*join_pairs"):
        TableLayout(text_pair=("text_pair",)).read(table({"text": "a", "label": 0}), ("x",))


@pytest.mark.parametrize("text", [None, 3, ["a"]])
def test_a_text_must_be_text(text):
    with pytest.raises(BdlitError, match="row 2: column 'text' does not hold text but"):
        TableLayout().read(table({"text": "a", "label": 0}, {"text": text, "label": 0}), ("x",))


@pytest.mark.parametrize(
    ("flag", "poisoned"), [(True, True), ("True", True), (1, True), ("0", False)]
)
def test_marks_of_poisoned_rows_are_read(flag, poisoned):
    rows = table(
        {"text": "a", "label": 1, "poisoned": flag, "orig_label": "0"},
        {"text": "b", "label": 1, "poisoned": False, "orig_label": ""},
    )
    first, second = TableLayout().read(rows, ("neg", "pos"))
    assert (first.poisoned, first.orig_label, first.true_label) == (poisoned, 0, 0)
    assert (second.poisoned, second.orig_label, second.true_label) == (False, None, 1)
