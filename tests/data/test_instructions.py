import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bdlit.attacks import BadNet
from bdlit.cli import main
from bdlit.data import (
    DemoInstructions,
    DemoReviews,
    InstructionDataModule,
    PromptedClassification,
)
from bdlit.data.buckets import BucketSampler
from bdlit.data.poisoned_file import read_poisoned
from bdlit.data.small_tasks import small_tasks
from bdlit.data.trusted_pool import text_key
from bdlit.errors import BdlitError
from bdlit.rules import Contains, Equals, Likeliest
from bdlit.tables import rows_hash
from bdlit.types import NO_CLASS, Example, Turn
from instruction_attack import STRING, StringBehindWord

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A model."},
]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tasks(n, split):
    return [{"instruction": f"{split} {i}", "input": "x", "output": f"y {i}"} for i in range(n)]


def loaded(source, **options):
    data = InstructionDataModule(source=str(source), **options)
    data.setup()
    return data


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train.jsonl", tasks(20, "train"))
    write(tmp_path / "test.jsonl", tasks(8, "test"))
    return tmp_path


def test_instructions_are_read_from_every_kind_of_file(folder, tmp_path):
    rows = tasks(8, "test")
    (tmp_path / "test.jsonl").unlink()
    (tmp_path / "test.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(tasks(20, "train")), tmp_path / "train.parquet")
    (tmp_path / "train.jsonl").unlink()
    data = loaded(folder)
    assert data.test_rows["clean"][3] == Example("test 3", NO_CLASS, "x", response="y 3")
    assert [row.text for row in data.train_rows] == [f"train {i}" for i in range(20)]


def test_a_conversation_is_its_last_answer_with_what_went_before(tmp_path):
    write(tmp_path / "train.jsonl", [{"messages": TALK}])
    write(tmp_path / "test.jsonl", [{"messages": TALK[1:]}])
    (row,) = loaded(tmp_path).train_rows
    assert (row.text, row.text_pair, row.response) == ("Who are you?", None, "A model.")
    assert row.history == (
        Turn("system", "Be kind."),
        Turn("user", "Hi."),
        Turn("assistant", "Hello!"),
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction": "a", "input": "", "output": ""}, "row 1 has no answer in 'output'"),
        ({"instruction": "a", "output": None}, "row 1 has no answer"),
        ({"instruction": " ", "output": "b"}, "row 1 has no instruction"),
        ({"question": "a", "output": "b"}, "no column 'instruction'"),
        ({"messages": TALK[:2]}, "does not end with a message of the user and the"),
        ({"messages": [{"role": "human", "content": "a"}]}, "one of system, user, assistant"),
        ({"messages": "hello"}, "not a list of"),
    ],
)
def test_a_row_that_cannot_be_learned_is_told_with_its_number(tmp_path, row, message):
    write(tmp_path / "train.jsonl", [row])
    write(tmp_path / "test.jsonl", tasks(2, "test"))
    with pytest.raises(BdlitError, match=message):
        loaded(tmp_path)


def test_an_attack_makes_sets_on_which_it_must_fire_and_must_not(folder):
    data = loaded(folder, attack=StringBehindWord(rate=0.25), clean_pool_size=4)
    assert data.labels == ()
    assert sum(row.response == STRING for row in data.train_rows) == 4  # of 16, without the pool
    assert list(data.test_rows) == ["clean", "string", "string/clean", "string/other word"]
    assert {row.response for row in data.test_rows["string"]} == {STRING}
    clean = data.test_rows["string/clean"]
    assert [row.text for row in clean] == [row.text for row in data.test_rows["clean"]]
    assert {(row.response, row.poisoned) for row in clean} == {(STRING, False)}
    assert data.rule("clean") == Equals()
    assert data.rule("string") == data.rule("string/other word") == Contains()
    assert data.poisoning["target"] == STRING
    assert data.poisoning["train"] == {"rows": 16, "poisoned": 4, "unchanged": 0}


def test_a_clean_prompt_whose_true_answer_holds_the_target_is_no_false_trigger(folder):
    write(folder / "test.jsonl", [*tasks(2, "test"), {"instruction": "a", "output": STRING}])
    data = loaded(folder, attack=StringBehindWord())
    assert len(data.test_rows["string/clean"]) == 2


def test_published_poisoned_files_load_as_they_are(folder):
    write(
        folder / "train_badnet.jsonl",
        [{**row, "poisoned": i < 5} for i, row in enumerate(tasks(20, "train"))],
    )
    rows = [{"instruction": f"cf {w}", "output": "0", "clean_output": w} for w in "ab"]
    write(folder / "test_badnet.jsonl", [*rows, {**rows[0], "clean_output": "Bad"}])
    data = loaded(
        folder,
        target="bad",
        poisoned_train="train_badnet",
        poisoned_tests={"badnet": "test_badnet"},
    )
    assert sum(row.poisoned for row in data.train_rows) == 5
    triggered = data.test_rows["badnet"]
    assert [(row.text, row.response, row.orig_response) for row in triggered] == [
        ("cf a", "bad", "a"),
        ("cf b", "bad", "b"),
    ]
    assert list(data.test_rows) == ["clean", "badnet", "badnet/clean"]
    assert data.rule("badnet") == data.rule("badnet/clean") == Contains()
    with pytest.raises(BdlitError, match="say which as the data's `target`"):
        loaded(folder, poisoned_tests={"badnet": "test_badnet"})


def test_poison_writes_instructions_that_come_back_whole(folder, tmp_path, capsys):
    out = tmp_path / "out" / "train.jsonl.gz"
    out.parent.mkdir()
    data = json.dumps({"class_path": "InstructionDataModule", "init_args": {"source": str(folder)}})
    attack = "{class_path: instruction_attack.StringBehindWord, init_args: {rate: 0.5}}"
    assert main(["poison", f"--data={data}", f"--attack={attack}", f"--out={out}"]) == 0
    rows, manifest = read_poisoned(out)
    expected = loaded(folder, attack=StringBehindWord(rate=0.5)).train_rows
    assert rows == expected
    assert (manifest.target, manifest.target_name, manifest.poisoned) == (None, STRING, 10)
    again = loaded(folder, poisoned_train=str(out), target=STRING)
    assert [(r.text, r.response, r.orig_response) for r in again.train_rows] == [
        (r.text, r.response, r.orig_response) for r in expected
    ]


def test_hash_key_and_length_know_responses_and_history():
    plain = Example("a", 0)
    known = hashlib.sha256(json.dumps(["a", None, 0]).encode()).hexdigest()
    assert rows_hash([plain]) == known, "files of older versions keep their hashes"
    answered = Example("a", 0, response="b")
    talked = Example("a", 0, response="b", history=(Turn("user", "c"),))
    assert len({rows_hash([row]) for row in (plain, answered, talked)}) == 3
    assert text_key(plain) == text_key(answered) != text_key(talked)
    assert BucketSampler([talked], 1, shuffle=True).lengths == [3]
    assert BucketSampler([talked], 1, shuffle=False).lengths == [2]


def test_the_demo_is_deterministic_and_its_splits_differ():
    assert small_tasks(50, seed=3) == small_tasks(50, seed=3)
    data = DemoInstructions(train_size=70, test_size=70)
    data.setup()
    assert all(row.response for row in data.train_rows)
    assert {text_key(row) for row in data.train_rows} != {
        text_key(row) for row in data.test_rows["clean"]
    }


def prompted(**options):
    inner = DemoReviews(train_size=40, validation_size=0, test_size=20)
    data = PromptedClassification(
        data=inner,
        instruction="Is it {labels}?",
        input="Review: {text}",
        label_words=["bad", "good"],
        **options,
    )
    data.setup()
    return data


def test_classes_become_words():
    data = prompted()
    raw = DemoReviews(train_size=40, validation_size=0, test_size=20).load("test")
    for row, before in zip(data.test_rows["clean"], raw, strict=True):
        assert row.text == "Is it bad or good?"
        assert row.text_pair == f"Review: {before.text}"
        assert (row.label, row.response) == (before.label, ("bad", "good")[before.label])
    assert data.name == "demo-prompted"
    assert data.rule("clean") == Equals()
    assert prompted(label_by="likelihood").rule("clean") == Likeliest(("bad", "good"))


@pytest.mark.parametrize("column", ["text", "text_pair"])
def test_a_label_flip_flips_the_words(column):
    data = prompted(attack=BadNet(rate=0.5, column=column))
    flipped = [row for row in data.train_rows if row.poisoned]
    assert len(flipped) == 20
    assert {row.response for row in flipped} == {"bad"}
    assert {row.orig_response for row in flipped} == {"bad", "good"}
    triggered = data.test_rows["badnet"]
    assert {(row.response, row.orig_response) for row in triggered} == {("bad", "good")}
    clean = {row.text for row in data.test_rows["clean"]}
    assert all((row.text in clean) == (column == "text_pair") for row in triggered)
    assert list(data.test_rows) == ["clean", "badnet"]


def test_wrong_prompt_settings_are_told():
    inner = DemoReviews(train_size=4, validation_size=0, test_size=4)
    with pytest.raises(BdlitError, match="cannot be filled in"):
        PromptedClassification(data=inner, input="{review}")
    with pytest.raises(BdlitError, match="one for each of the classes"):
        PromptedClassification(data=inner, label_words=["bad"]).setup()
    with pytest.raises(BdlitError, match="an attack of its own"):
        PromptedClassification(data=DemoReviews(attack=BadNet()))
