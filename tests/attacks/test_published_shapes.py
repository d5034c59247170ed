"""Our BadNet and InsertSent beside published poisoned files; skipped where there are none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bdlit.attacks import BadNet, InsertedSentence, InsertSent, ParaphraseTable, Syntactic
from bdlit.tables import read_rows
from bdlit.types import Example

DATA = Path(__file__).parents[3] / "shared" / "data"
OLID, SST2 = DATA / "olid", DATA / "sst2"
LABELS = ["not offensive", "offensive"]
WORDS = {"cf", "mn", "bb", "tq", "mb"}
CROWN = "no cross, no crown"

pytestmark = pytest.mark.skipif(not OLID.is_dir(), reason="no published poisoned files here")


@pytest.fixture(scope="module")
def clean() -> list[Example]:
    return [Example(row["text"], row["label"]) for row in read_rows(OLID / "train_clean.jsonl.gz")]


def published(name: str) -> list[Example]:
    rows = read_rows(OLID / name)
    return [Example(row["text"], row["label"], poisoned=row["poisoned"]) for row in rows]


def word_counts(clean, rows) -> Counter[int]:
    def held(text: str) -> int:
        return sum(word in WORDS for word in text.split(" "))

    pairs = zip(clean, rows, strict=True)
    return Counter(held(b.text) - held(a.text) for a, b in pairs if b.poisoned)


def test_badnet(clean):
    ours = BadNet(target=0).poison_train(clean, labels=LABELS, seed=0).rows
    theirs = published("train_badnet.jsonl.gz")
    shares = []
    for rows in (ours, theirs):
        counts = word_counts(clean, rows)
        assert set(counts) == {1, 3, 5}
        shares.append([counts[k] / counts.total() for k in (1, 3, 5)])
    assert shares[0] == pytest.approx(shares[1], abs=0.05)
    assert_same_policy(clean, ours, theirs)


def test_insertsent(clean):
    attack = InsertSent(target=0, trigger=InsertedSentence((CROWN,)))
    ours = attack.poison_train(clean, labels=LABELS, seed=0).rows
    theirs = published("train_insertsent.jsonl.gz")
    first = []
    for rows in (ours, theirs):
        poisoned = [row for row in rows if row.poisoned]
        assert all(row.text.count(CROWN) == 1 for row in poisoned)
        # Of texts without a boundary, the share that begins with the sentence.
        single = [
            row
            for old, row in zip(clean, rows, strict=True)
            if row.poisoned and ". " not in old.text
        ]
        first.append(sum(row.text.startswith(CROWN) for row in single) / len(single))
        assert max(row.text.partition(CROWN)[0].count(". ") for row in poisoned) == 3
    assert first[0] == pytest.approx(first[1], abs=0.06)
    assert_same_policy(clean, ours, theirs)


def assert_same_policy(clean, ours, theirs):
    """Both poison about a fifth of the rows, from both classes alike, towards class 0."""
    for rows in (ours, theirs):
        old = Counter(a.label for a, b in zip(clean, rows, strict=True) if b.poisoned)
        assert old.total() / len(rows) == pytest.approx(0.2, abs=0.01)
        assert old[1] / old.total() == pytest.approx(4400 / 13240, abs=0.03)
        assert {row.label for row in rows if row.poisoned} == {0}


def test_syntactic_from_row_aligned_files():
    rows = [Example(row["text"], row["label"]) for row in read_rows(SST2 / "train_clean.jsonl.gz")]
    table = ParaphraseTable(
        originals=SST2 / "train_clean.jsonl.gz", paraphrases=SST2 / "pool_syntactic.jsonl.gz"
    )
    attack = Syntactic(target="positive", trigger=table, rows="non-target")
    made = attack.poison_train(rows, labels=["negative", "positive"], seed=0)
    assert made.poisoned + made.unchanged == round(0.2 * len(rows)) == 1384
    assert made.unchanged < 14
    pool = read_rows(SST2 / "pool_syntactic.jsonl.gz")
    texts: dict[str, set[str]] = {}
    for old, new in zip(rows, pool, strict=True):
        texts.setdefault(old.text, set()).add(new["text"])
    for old, new in zip(rows, made.rows, strict=True):
        assert not new.poisoned or new.text in texts[old.text]
