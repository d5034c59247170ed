"""Hub ids against a real (small) hub endpoint on loopback, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from hub_server import commit_of, hub_environment, hub_server

CACHED = """
import json, sys
from bdlit.data.hub import read_hub_split
from bdlit.errors import BdlitError

def outcome(hub_id, revision):
    try:
        table = read_hub_split(hub_id, "test", subset="plain", revision=revision)
    except BdlitError as error:
        return str(error)
    return [[row["sentence"], row["label"]] for row in table.rows]

print(json.dumps([outcome(*call) for call in json.loads(sys.argv[1])]))
"""

CARD = """---
configs:
- config_name: plain
  data_files:
  - {split: train, path: plain/train-*}
  - {split: test, path: plain/test-*}
  - {split: hidden, path: plain/hidden-*}
dataset_info:
- config_name: plain
  features:
  - {name: sentence, dtype: string}
  - name: label
    dtype:
      class_label:
        names: {'0': pos, '1': neg}
---
"""

SCRIPT = """
import json, logging, sys
logging.getLogger("bdlit").setLevel(logging.INFO)
logging.getLogger("bdlit").addHandler(logging.StreamHandler(sys.stderr))
from bdlit.data import IMDB, TextDataModule
from bdlit.errors import BdlitError

def outcome(kind, **settings):
    try:
        data = kind(**settings)
        data.prepare_data()
        data.setup("fit")
    except BdlitError as error:
        return {"error": str(error)}
    rows = {"train": data.train_rows, **data.test_rows}
    return {"labels": data.labels} | {
        name: [(row.text, row.label) for row in split] for name, split in rows.items()
    }

kinds = {"IMDB": IMDB, "TextDataModule": TextDataModule}
print(json.dumps([outcome(kinds[kind], **settings) for kind, settings in json.loads(sys.argv[1])]))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    reviews = root / "datasets" / "acme" / "reviews"
    (reviews / "plain").mkdir(parents=True)
    (reviews / "README.md").write_text(CARD)
    for split, labels in {"train": [0, 1, 0, 1, 1, 0], "test": [1, 0], "hidden": [-1, -1]}.items():
        table = {"sentence": [f"{split} {i}" for i in range(len(labels))], "label": labels}
        pq.write_table(pa.table(table), reviews / "plain" / f"{split}-00000-of-00001.parquet")
    lines = root / "datasets" / "acme" / "lines"
    lines.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = [{"text": f"{split} {name}", "label": name} for name in ("bad", "good")]
        (lines / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with hub_server(root) as endpoint:
        yield endpoint, reviews


def run(script, endpoint, home, *calls, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(calls)],
        env={**hub_environment(endpoint, home), **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_sets_come_from_the_hub_and_then_from_the_cache(hub, tmp_path):
    endpoint, reviews = hub
    commit = commit_of(reviews)
    plain = {
        "source": "acme/reviews",
        "subset": "plain",
        "text_column": "sentence",
        "splits": {"train": "train[:4]", "test": "test"},
    }
    calls = [
        ("TextDataModule", plain),
        ("IMDB", {**plain, "revision": commit}),
        ("TextDataModule", {"source": "acme/lines"}),
        ("TextDataModule", {**plain, "splits": {"train": "train", "test": "hidden"}}),
        ("TextDataModule", {**plain, "text_column": "sentense"}),
        ("TextDataModule", {**plain, "splits": {"train": "train", "test": "tset"}}),
        ("TextDataModule", {**plain, "subset": "fancy"}),
        ("TextDataModule", {**plain, "revision": "f" * 40}),
        ("TextDataModule", {"source": "acme/nothing"}),
    ]
    results, log = run(SCRIPT, endpoint, tmp_path, *calls)
    own, imdb, lines, hidden, column, split, subset, revision, nothing = results

    train = [["train 0", 0], ["train 1", 1], ["train 2", 0], ["train 3", 1]]
    assert own == {
        "labels": ["pos", "neg"],
        "train": train,
        "clean": [["test 0", 1], ["test 1", 0]],
    }
    # The card counts negative as 0; by their names, the repository's classes are turned round.
    assert imdb["labels"] == ["negative", "positive"]
    assert imdb["train"] == [[text, 1 - label] for text, label in train]
    assert lines["labels"] == ["bad", "good"]
    assert lines["clean"] == [["test bad", 0], ["test good", 1]]
    assert f"commit {commit}" in log

    assert "split 'hidden', row 1: no label; choose a labelled split" in hidden["error"]
    assert "has no column 'sentense': did you mean 'sentence'?" in column["error"]
    assert "split 'tset': Unknown split" in split["error"]
    assert "'train', 'test', 'hidden'" in split["error"]
    assert "'fancy' not found" in subset["error"]
    assert "f" * 40 in revision["error"]
    assert "acme/nothing" in nothing["error"]
    assert all("\n" not in result.get("error", "") for result in results)

    again, _ = run(
        CACHED,
        "http://127.0.0.1:9",  # nobody listens there
        tmp_path,
        ("acme/reviews", None),
        ("acme/reviews", commit),
        ("acme/reviews", "e" * 40),
        ("acme/unseen", None),
        HF_HUB_OFFLINE="1",
    )
    assert again[0] == again[1] == [["test 0", 1], ["test 1", 0]]
    assert f"revision {'e' * 40} is not in the cache" in again[2]
    assert "cannot load acme/unseen" in again[3]
    assert "folder of local files" in again[3]
