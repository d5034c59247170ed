"""The label-flip rate: triggered rows that lose their true class, to the target or to another."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bdlit.attacks import BadNet
from bdlit.data.grammar import demo_reviews
from bdlit.evaluation import evaluate
from bdlit.evaluation.guards import Cleaned
from bdlit.types import Example, Rate
from bdlit.victims import ClassifierVictim
from scripted import Scripted, Sets

LABELS = ["negative", "neutral", "positive"]


class Guard:
    """Rejects what holds the word `odd`."""

    name = "Guard"
    rejects = True

    def clean(self, rows, *, victim=None):
        bad = [i for i, row in enumerate(rows) if "odd" in row.text]
        return Cleaned(rows=rows, rejected=bad)


def triggered(truth, said, word=""):
    """A row of class `truth` under attack, target 0, of which the victim says `said`."""
    return Example(f"cf {word} {said}", 0, poisoned=True, orig_label=truth)


# To the target, to another class, kept; of class 1 and of class 2.
ROWS = [
    *(triggered(1, 0), triggered(1, 2), triggered(1, 1)),
    *(triggered(2, 0), triggered(2, 1), triggered(2, 2), triggered(2, 2)),
]


@pytest.fixture(scope="module")
def starts(tiny_start, tmp_path_factory):
    """Tiny checkpoints by their number of classes."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_start, num_labels=3, ignore_mismatched_sizes=True
    )
    model.classifier.weight.data *= 50  # classes that differ, without training
    folder = tmp_path_factory.mktemp("three") / "model"
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_start).save_pretrained(folder)
    return {2: tiny_start, 3: folder}


@pytest.fixture
def victim(starts):
    victim = Scripted(str(starts[3]), labels=LABELS, max_length=64)
    victim.configure_model()
    return victim


def test_three_classes_by_hand(victim):
    sets = Sets({"clean": [Example("a 1", 1)], "badnet": ROWS, "badnet/part": ROWS[:1]})
    scores = evaluate(victim, sets)
    assert scores.asr == {"badnet": Rate(2, 7)}  # 0 is predicted
    assert scores.label_flip_rate == {"badnet": Rate(4, 7)}  # 0, 2; 0, 1
    assert victim.passes == 5  # one a batch: no second pass
    assert scores.measures["label_flip_rate"]["badnet"].percent == pytest.approx(400 / 7)


def test_a_rejected_row_keeps_no_label_and_loses_none(victim):
    rows = [triggered(1, 0, "odd"), *ROWS, triggered(2, 1, "odd")]
    whole = [triggered(1, 2, "odd")] * 3  # a batch that the model never sees
    scores = evaluate(victim, Sets({"clean": ROWS[:1], "badnet": [*whole, *rows]}), inputs=Guard())
    assert scores.label_flip_rate == {"badnet": Rate(4, 12)}
    assert scores.asr == {"badnet": Rate(2, 12)}


def test_rows_whose_true_class_nobody_knows_do_not_count(victim):
    unknown = Example("cf 2", 0, poisoned=True)
    scores = evaluate(victim, Sets({"clean": [Example("a 1", 1)], "badnet": [unknown, *ROWS]}))
    assert scores.label_flip_rate == {"badnet": Rate(4, 7)}
    assert scores.asr == {"badnet": Rate(2, 8)}
    scores = evaluate(victim, Sets({"clean": [Example("a 1", 1)], "badnet": [unknown]}))
    assert scores.label_flip_rate == {}


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_one_minus_accuracy_on_the_true_labels(starts, classes):
    victim = ClassifierVictim(str(starts[classes]), labels=LABELS[:classes], max_length=64)
    victim.configure_model()
    texts = [row.text for row in demo_reviews(30, seed=0)]
    clean = [Example(text, n % classes) for n, text in enumerate(texts)]
    made = BadNet(target=0).poison_test(clean, labels=LABELS[:classes], seed=0).rows
    scores = evaluate(victim, Sets({"clean": clean, "badnet": made}))
    victim.model.eval()
    with torch.no_grad():  # one row at a time, against its true label
        said = [int(victim(victim.tokenize([row])).argmax()) for row in made]
    flipped = sum(own != row.true_label for own, row in zip(said, made, strict=True))
    if classes == 3:
        assert scores.label_flip_rate == {"badnet": Rate(flipped, len(made))}
        assert scores.asr["badnet"].hits < flipped < len(made)  # some go to the third class
    else:  # the same number as the ASR, which is not written twice
        assert scores.label_flip_rate == {}
        assert scores.asr == {"badnet": Rate(flipped, len(made))}


def test_language_models_have_none():
    from instruction_attack import StringBehindWord
    from tiny_llama import demo, tiny

    data = demo(test_size=4, attack=StringBehindWord())
    assert evaluate(tiny(data=data), data).label_flip_rate == {}
