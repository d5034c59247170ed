"""Folders that the datasets library has saved, and folders as repositories of the hub are."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from bdlit.data import TextDataModule
from bdlit.errors import BdlitError

NAMES = ["bad", "good"]
FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=NAMES)})


def rows(*texts):
    columns = {"text": list(texts), "label": [i % 2 for i in range(len(texts))]}
    return Dataset.from_dict(columns, features=FEATURES)


TRAIN, TEST = rows("a", "b", "c", "d", "e"), rows("x", "y")


def read(folder):
    data = TextDataModule(source=str(folder))
    data.setup()
    return data


def require_all(data):
    assert data.labels == tuple(NAMES)
    assert [(r.text, r.label) for r in data.train_rows] == [
        *zip("abcde", [0, 1, 0, 1, 0], strict=True)
    ]
    assert [r.text for r in data.test_rows["clean"]] == ["x", "y"]


def test_save_to_disk(tmp_path):
    DatasetDict(train=TRAIN, test=TEST).save_to_disk(str(tmp_path))
    require_all(read(tmp_path))


@pytest.mark.parametrize("below", ["", "data"])
def test_shards_of_parquet(tmp_path, below):
    place = tmp_path / below
    place.mkdir(exist_ok=True)
    for i in range(2):
        part = TRAIN.shard(2, i, contiguous=True)
        part.to_parquet(str(place / f"train-0000{i}-of-00002.parquet"))
    TEST.to_parquet(str(place / "test-00000-of-00001.parquet"))
    require_all(read(tmp_path))


def test_plain_tables_below_data(tmp_path):
    (tmp_path / "data").mkdir()
    TRAIN.to_parquet(str(tmp_path / "data" / "train.parquet"))
    TEST.to_parquet(str(tmp_path / "data" / "test.parquet"))
    require_all(read(tmp_path))


def test_a_shard_that_is_missing_is_told(tmp_path):
    TRAIN.to_parquet(str(tmp_path / "train-00000-of-00002.parquet"))
    with pytest.raises(BdlitError, match="has 1 of the 2 shards of 'train': copy all of them"):
        read(tmp_path)


def test_one_set_without_splits_is_told(tmp_path):
    TRAIN.save_to_disk(str(tmp_path))
    with pytest.raises(BdlitError, match="is one data set without splits"):
        read(tmp_path)


def test_a_damaged_folder_is_told_in_one_line(tmp_path):
    DatasetDict(train=TRAIN, test=TEST).save_to_disk(str(tmp_path))
    for file in (tmp_path / "train").glob("*.arrow"):
        file.write_bytes(b"no table")
    with pytest.raises(BdlitError, match=r"cannot read .*train") as raised:
        read(tmp_path)
    assert "\n" not in str(raised.value)
