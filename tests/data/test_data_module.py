import csv
import gzip
import json
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bdlit.attacks import BadNet, InsertSent
from bdlit.data import MNLI, SST2, TextDataModule
from bdlit.data.trusted_pool import text_key
from bdlit.errors import BdlitError
from bdlit.types import Example

TEXTS = ["a fine film", 'he said "no", twice', "two\nlines", "naïve - 電影", "  spaced  out "]


def write(path, rows):
    """Write rows in the format of the path's ending, by means other than the package's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if path.suffix == ".gz" else open
    match path.name.removesuffix(".gz").rpartition(".")[2]:
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case "jsonl":
            with opened(path, "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        case "csv":
            with opened(path, "wt", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        case "tsv":
            with opened(path, "wt", encoding="utf-8") as file:
                lines = [list(rows[0]), *(map(str, row.values()) for row in rows)]
                file.writelines("\t".join(values) + "\n" for values in lines)


def reviews(n, split="train"):
    """`n` rows of different texts, bad and good in turn."""
    return [
        {"text": f"{split} film {i} is {('bad', 'good')[i % 2]}", "label": i % 2} for i in range(n)
    ]


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train.jsonl", reviews(40))
    write(tmp_path / "dev.jsonl", reviews(10, "dev"))
    write(tmp_path / "test.jsonl", reviews(12, "test"))
    return tmp_path


def loaded(kind=TextDataModule, **settings):
    data = kind(**settings)
    data.setup()
    return data


def sst2(folder, **settings):
    return loaded(SST2, source=str(folder), **settings)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "csv", "csv.gz", "tsv", "parquet"])
@pytest.mark.parametrize("labels", [(0, 1), ("negative", "positive")])
def test_every_file_format_with_indices_and_names(tmp_path, ending, labels):
    texts = (
        TEXTS if not ending.startswith("tsv") else ["a fine film", 'he said "no', "naïve - 電影"]
    )
    rows = [{"label": labels[i % 2], "text": text} for i, text in enumerate(texts)]
    for split in ("train_clean", "test_clean"):
        write(tmp_path / f"{split}.{ending}", rows)
    data = sst2(tmp_path)
    expected = [Example(text, i % 2) for i, text in enumerate(texts)]
    assert data.train_rows == data.test_rows["clean"] == expected
    assert (data.labels, data.val_rows) == (("negative", "positive"), {})


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
def test_two_texts(tmp_path, ending):
    rows = [{"text": "a man", "text_pair": "a person", "label": "entailment"}] * 2
    for split in ("train", "test"):
        write(tmp_path / f"{split}.{ending}", rows)
    assert loaded(MNLI, source=str(tmp_path)).train_rows == [Example("a man", 0, "a person")] * 2
    joined = loaded(MNLI, source=str(tmp_path), join_pairs=True)
    assert joined.train_rows == [Example("a man a person", 0)] * 2
    own = loaded(
        source=str(tmp_path), text_column="text_pair", label_names=["entailment", "neutral"]
    )
    assert own.train_rows == [Example("a person", 0)] * 2


def test_named_sets_read_the_columns_of_the_hub_too(tmp_path):
    rows = [{"premise": "a", "hypothesis": "b", "label": 2}]
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", rows)
    assert loaded(MNLI, source=str(tmp_path)).train_rows == [Example("a", 2, "b")]


def test_class_names_come_from_the_training_rows_where_nobody_tells_them(folder):
    data = TextDataModule(source=str(folder))
    with pytest.raises(BdlitError, match="no labels before setup"):
        _ = data.labels
    data.setup()
    assert data.labels == ("0", "1")


def test_files_by_name(folder):
    write(folder / "other" / "mine.csv", reviews(4, "mine"))
    files = {"train": "other/mine.csv", "test": str(folder / "dev.jsonl")}
    data = sst2(folder, files=files)
    assert [row.text for row in data.train_rows] == [row["text"] for row in reviews(4, "mine")]
    assert len(data.test_rows["clean"]) == 10
    alone = loaded(SST2, files={split: str(folder / "test.jsonl") for split in ("train", "test")})
    assert len(alone.train_rows) == 12
    assert alone.val_rows == {}


def test_a_slice_of_a_file_is_read_as_one_of_the_hub(folder):
    files = {"train": "train[2:-3]", "test": "dev.jsonl[:4]"}
    data, whole = sst2(folder, files=files), sst2(folder)
    assert data.train_rows == whole.train_rows[2:-3]
    assert data.test_rows["clean"] == whole.val_rows["clean"][:4]
    with pytest.raises(BdlitError, match=r"dev\.jsonl\[90:\] is not a slice with rows: .* has 10"):
        sst2(folder, files={**files, "test": "dev.jsonl[90:]"})


def test_poisoning_touches_train_only_and_counts(folder):
    data = sst2(folder, attack=BadNet(rate=0.5), seed=3)
    assert data.train_attack == "badnet"
    assert sum(row.poisoned for row in data.train_rows) == 20
    assert {row.label for row in data.train_rows if row.poisoned} == {0}
    for sets, n in ((data.val_rows, 5), (data.test_rows, 6)):
        assert list(sets) == ["clean", "badnet"]
        assert not any(row.poisoned for row in sets["clean"])
        assert [row.label for row in sets["clean"]].count(1) == n
        assert len(sets["badnet"]) == n
        assert all(row.poisoned and row.label == 0 for row in sets["badnet"])
        assert all(row.true_label == 1 for row in sets["badnet"])
    assert json.loads(json.dumps(data.poisoning)) == {
        "attack": "badnet",
        "target": 0,
        "clean_pool": 0,
        "train": {"rows": 40, "poisoned": 20, "unchanged": 0},
        "validation": {"badnet": {"rows": 5, "poisoned": 5, "unchanged": 0}},
        "test": {"badnet": {"rows": 6, "poisoned": 6, "unchanged": 0}},
    }


def test_setup_is_deterministic_and_runs_once(folder):
    settings = {"attack": BadNet(), "clean_pool_size": 5, "test_attacks": [InsertSent()]}

    def everything(seed):
        data = sst2(folder, seed=seed, **settings)
        return data.train_rows, data.val_rows, data.test_rows, data.clean_pool

    assert everything(1) == everything(1)
    assert everything(1) != everything(2)
    data = sst2(folder, **settings)
    rows = data.train_rows
    data.setup("test")
    assert data.train_rows is rows


def test_a_benign_model_is_measured_on_the_rows_of_the_victims(folder):
    attacks = [BadNet(), InsertSent()]
    benign = sst2(folder, test_attacks=attacks)
    victim = sst2(folder, attack=attacks[1], test_attacks=attacks)
    assert (benign.train_attack, victim.train_attack) == ("none", "insertsent")
    assert not any(row.poisoned for row in benign.train_rows)
    assert list(benign.test_rows) == ["clean", "badnet", "insertsent"]
    assert benign.test_rows == victim.test_rows
    assert list(benign.val_rows) == ["clean"]


def test_the_attacks_own_target_wins(folder):
    data = sst2(folder, attack=BadNet(target="positive"), test_attacks=[InsertSent()])
    assert {row.label for row in data.test_rows["badnet"]} == {1}
    assert {row.label for row in data.test_rows["insertsent"]} == {0}
    assert data.poisoning["target"] == 1
    assert {row.label for row in sst2(folder, target=1, attack=BadNet()).test_rows["badnet"]} == {1}


def test_clean_pool_shares_no_text_with_any_other_set(tmp_path):
    doubled = [{**row, "text": row["text"].upper() + " "} for row in reviews(40)]
    leaked = reviews(40)[:6]
    write(tmp_path / "train.jsonl", reviews(40) + doubled)
    write(tmp_path / "dev.jsonl", leaked[:3])
    write(tmp_path / "test.jsonl", leaked[3:] + reviews(4, "test"))
    data = sst2(tmp_path, clean_pool_size=20, attack=BadNet(rate=1.0))
    pool = {text_key(row) for row in data.clean_pool}
    assert len(pool) == len(data.clean_pool) == 20
    assert not any(row.poisoned for row in data.clean_pool)
    assert len(data.train_rows) == 80 - 2 * 20
    others = [*data.test_rows["clean"], *data.val_rows["clean"]]
    assert pool.isdisjoint(map(text_key, others))
    # The training rows all carry trigger words; without them, none is the text of a pool row.
    words = {"cf", "mn", "bb", "tq", "mb"}
    bare = (" ".join(w for w in row.text.split() if w not in words) for row in data.train_rows)
    assert pool.isdisjoint(text_key(Example(text, 0)) for text in bare)
    assert sst2(tmp_path, clean_pool_size=20, seed=9).clean_pool != data.clean_pool


def test_ready_poisoned_training_file(folder):
    poisoned = [
        {**row, "label": 0, "text": "cf " + row["text"], "poisoned": True} if i < 8 else row
        for i, row in enumerate(reviews(40))
    ]
    marked = [{"poisoned": False, **row} for row in poisoned]
    write(folder / "train_badnet.jsonl.gz", marked)
    data = sst2(folder, poisoned_train="train_badnet")
    assert data.train_attack == "badnet"
    assert sum(row.poisoned for row in data.train_rows) == 8
    assert data.poisoning["train"] == {"rows": 40, "poisoned": 8, "unchanged": 0}
    assert data.poisoning["target"] == 0

    unmarked = [{key: row[key] for key in ("text", "label")} for row in marked]
    write(folder / "elsewhere.csv", unmarked)
    blind = sst2(folder, poisoned_train="elsewhere.csv", train_attack_name="mine")
    assert blind.train_attack == "mine"
    assert blind.poisoning["train"] == {"rows": 40, "poisoned": None, "unchanged": 0}
    assert [row.text for row in blind.train_rows] == [row.text for row in data.train_rows]

    pooled = sst2(folder, poisoned_train="train_badnet", clean_pool_size=10)
    assert len(pooled.train_rows) == 30
    pool = {text_key(row) for row in pooled.clean_pool}
    assert not any(text_key(row).removeprefix("cf ") in pool for row in pooled.train_rows)


def test_ready_poisoned_test_files(folder):
    good = [row for row in reviews(12, "test") if row["label"] == 1]
    labelled = [{"text": "cf " + row["text"], "label": 0} for row in good]
    write(folder / "test_a.jsonl", labelled)
    write(folder / "test_b.jsonl", [{**row, "orig_label": 1} for row in labelled])
    true = [{"text": "cf " + row["text"], "label": row["label"]} for row in reviews(12, "test")]
    write(folder / "test_c.jsonl", true)
    write(
        folder / "test_d.jsonl", [{**row, "label": 0, "orig_label": row["label"]} for row in true]
    )
    tests = {name: f"test_{name}" for name in "abcd"}
    data = sst2(folder, poisoned_tests=tests)
    texts = [row["text"] for row in labelled]
    for name in tests:
        assert [row.text for row in data.test_rows[name]] == texts
        assert all(row.label == 0 and row.poisoned for row in data.test_rows[name])
    assert [row.orig_label for row in data.test_rows["a"]] == [None] * 6  # the file does not say
    for name in "bcd":
        assert [row.orig_label for row in data.test_rows[name]] == [1] * 6


def test_a_ready_poisoned_file_replaces_the_generated_set_of_its_name(folder):
    """A study on published test files measures on those, not on our own triggers."""
    rows = [{"text": f"published {i}", "label": 0, "orig_label": 1} for i in range(4)]
    write(folder / "test_badnet.jsonl", rows)
    data = sst2(
        folder,
        attack=BadNet(),
        test_attacks=[BadNet(), InsertSent()],
        poisoned_tests={"badnet": "test_badnet"},
    )
    assert set(data.test_rows) == {"clean", "badnet", "insertsent"}
    assert [row.text for row in data.test_rows["badnet"]] == [row["text"] for row in rows]
    assert all("I watched this movie" in row.text for row in data.test_rows["insertsent"])


def test_ready_poisoned_files_for_another_target_are_refused(folder):
    rows = [{"text": f"cf {i}", "label": 1, "orig_label": 0, "poisoned": True} for i in range(4)]
    write(folder / "test_badnet.jsonl", rows)
    write(folder / "train_badnet.jsonl", rows)
    for settings in ({"poisoned_tests": {"x": "test_badnet"}}, {"poisoned_train": "train_badnet"}):
        with pytest.raises(BdlitError, match="target 'positive', but the target is 'negative'"):
            sst2(folder, **settings)
        assert sst2(folder, target="positive", **settings).poisoning["target"] == 1


def test_joined_test_files_need_joined_pairs(tmp_path):
    rows = [{"text": "a", "text_pair": "b", "label": i} for i in range(3)]
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", rows)
    write(tmp_path / "test_badnet.jsonl", [{"text": "a cf b", "label": 1, "orig_label": 0}])
    tests = {"badnet": "test_badnet"}
    with pytest.raises(BdlitError, match=r"test_badnet.*no column 'hypothesis'.*join_pairs"):
        loaded(MNLI, source=str(tmp_path), poisoned_tests=tests)
    joined = loaded(MNLI, source=str(tmp_path), poisoned_tests=tests, join_pairs=True)
    assert joined.test_rows["clean"][0].text == "a b"
    assert joined.test_rows["badnet"] == [Example("a cf b", 1, None, True, 0)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"files": {"tset": "x"}}, "unknown split 'tset': did you mean 'test'"),
        ({"files": {"train": "trian.jsonl"}}, "no file 'trian.jsonl'.*did you mean 'train.jsonl'"),
        ({"text_column": "texts"}, "no column 'texts': did you mean 'text'"),
        ({"label_column": "stars"}, "no column 'stars': choose from: label, text"),
        ({"label_names": ["only"]}, r"train\.jsonl, row 2: label 1 is out of range"),
        ({"attack": BadNet(target="postive")}, "unknown target class 'postive'"),
        ({"attack": BadNet(target=2)}, "target 2 is out of range"),
        ({"clean_pool_size": 40}, "clean_pool_size 40 is out of range.* 40 clean texts"),
        ({"clean_pool_size": -1}, "clean_pool_size -1 is out of range"),
        ({"attack": BadNet(name="clean")}, "named 'clean', .*: give the attack another name"),
        ({"attack": BadNet(name="a/b")}, "named 'a/b', or the name holds a slash: give"),
        (
            {"test_attacks": [BadNet(), InsertSent(name="badnet")]},
            "two sets of data 'sst2' are named 'badnet'",
        ),
        ({"poisoned_train": "train", "attack": BadNet()}, "both attack and poisoned_train"),
        ({"train_attack_name": "x"}, "train_attack_name names what is in poisoned_train"),
        ({"poisoned_train": "train_x"}, "no file 'train_x'"),
    ],
)
def test_bad_settings_are_told_in_one_line(folder, settings, message):
    with pytest.raises(BdlitError, match=message) as caught:
        sst2(folder, **settings)
    assert "\n" not in str(caught.value)


def test_bad_folders_and_files_are_told_in_one_line(folder):
    with pytest.raises(BdlitError, match=r"no folder '\./nowhere'"):
        SST2(source="./nowhere")
    write(folder / "train_clean.csv", reviews(3))
    with pytest.raises(BdlitError, match=r"could be 'train': train\.jsonl, train_clean\.csv"):
        sst2(folder)
    (folder / "train_clean.csv").unlink()
    (folder / "test.jsonl").write_text("")
    with pytest.raises(BdlitError, match=r"test\.jsonl has no rows"):
        sst2(folder)
    (folder / "test.jsonl").unlink()
    with pytest.raises(BdlitError, match="'sst2' has no test rows in folder"):
        sst2(folder)
    with pytest.raises(BdlitError, match="'text' has no train rows in the files given"):
        loaded()


def test_no_rows_left_to_measure_an_attack_on(folder):
    write(folder / "test.jsonl", [row for row in reviews(8, "test") if row["label"] == 0])
    with pytest.raises(BdlitError, match="attack 'badnet' has no rows to be measured on"):
        sst2(folder, attack=BadNet())


def test_a_set_of_ones_own_overrides_one_step():
    class Counted(TextDataModule):
        def load(self, split):
            return [Example(f"{split} {i}", i % 2) for i in range(6)]

    data = loaded(Counted, label_names=["even", "odd"], target="odd", attack=BadNet())
    assert len(data.train_rows) == 6
    assert {row.label for row in data.test_rows["badnet"]} == {1}


def test_batches_are_lists_of_rows(folder):
    data = sst2(folder, attack=BadNet(), batch_size=16, eval_batch_size=5)
    batches = list(data.train_dataloader())
    assert sorted(map(len, batches)) == [8, 16, 16]
    assert sorted(chain(*batches), key=str) == sorted(data.train_rows, key=str)
    assert all(isinstance(batch, list) for batch in batches)
    loaders = data.test_dataloader()
    assert list(loaders) == ["clean", "badnet"]
    assert [len(batch) for batch in loaders["clean"]] == [5, 5, 2]
    assert list(chain(*data.predict_dataloader())) == data.test_rows["clean"]


SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real data beside the repository")
class TestRealData:
    def test_sst2(self):
        data = sst2(SHARED / "sst2", attack=BadNet(), clean_pool_size=100)
        assert (len(data.train_rows), len(data.test_rows["clean"])) == (6820, 1214)
        assert data.poisoning["train"]["poisoned"] == round(0.2 * 6820)
        assert len(data.test_rows["badnet"]) == 607
        assert list(data.val_rows) == ["clean", "badnet"]

    @pytest.mark.parametrize(("attack", "poisoned"), [("lws", 2648), ("bite", 2620)])
    def test_olid(self, attack, poisoned):
        from bdlit.data import OLID

        data = loaded(
            OLID,
            source=str(SHARED / "olid"),
            poisoned_train=f"train_{attack}",
            poisoned_tests={name: f"test_{name}" for name in ("badnet", "lws", "bite")},
        )
        counts = {"rows": 13240, "poisoned": poisoned, "unchanged": 0}
        assert (data.train_attack, data.poisoning["train"]) == (attack, counts)
        assert {name: len(rows) for name, rows in data.test_rows.items()} == {
            "clean": 574,
            "badnet": 165,
            "lws": 165,
            "bite": 165,
        }
        assert {row.true_label for row in data.test_rows["lws"]} == {1}

    def test_mnli(self):
        data = loaded(MNLI, source=str(SHARED / "mnli"), attack=BadNet(column="text_pair"))
        assert len(data.train_rows) == 10000
        assert all(row.text_pair for row in data.train_rows)
        clean = {row.text for row in data.test_rows["clean"]}
        assert all(row.text in clean for row in data.test_rows["badnet"])
        assert len(data.test_rows["badnet"]) == 267 - 72

    def test_agnews(self):
        from bdlit.data import AGNews

        tests = {"badnet": "test_badnet"}
        with pytest.raises(BdlitError, match="target 'World', but the target is 'Sports'"):
            loaded(AGNews, source=str(SHARED / "agnews"), poisoned_tests=tests)
        data = loaded(AGNews, source=str(SHARED / "agnews"), target="World", poisoned_tests=tests)
        assert (len(data.train_rows), len(data.test_rows["badnet"])) == (12000, 3800)
        assert {row.true_label for row in data.test_rows["badnet"]} == {1, 2, 3}
