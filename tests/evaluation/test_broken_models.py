"""Models that say one thing, or do worse than guessing, are told of everywhere."""

import pytest

from bdlit.evaluation import evaluate
from bdlit.evaluation.measure import Measured
from bdlit.evaluation.measures import by_key
from bdlit.types import Example, Rate
from scripted import Scripted, Sets

HALF = Rate(50, 100)


def measured(classes, cacc=HALF):
    return Measured(victim=None, outputs=None, rates={"clean": cacc}, classes=classes)


@pytest.mark.parametrize(
    ("true", "predicted", "one"),
    [
        ((50, 50), (98, 2), Rate(98, 100)),
        ((50, 50), (2, 98), Rate(98, 100)),
        ((50, 50), (94, 6), None),
        ((90, 10), (99, 1), None),  # the data itself is mostly of that class
        ((80, 20), (99, 1), Rate(99, 100)),
        ((10, 90), (99, 1), Rate(99, 100)),
        ((34, 33, 33), (0, 100, 0), Rate(100, 100)),
        ((), (), None),
        ((5, 5), (10, 0), None),  # too few rows to tell
    ],
)
def test_one_class_for_nearly_all_rows(true, predicted, one):
    assert by_key()["one_class"].compute(measured((true, predicted))) == one


@pytest.mark.parametrize(
    ("classes", "cacc", "told"),
    [
        (2, Rate(10, 100), True),
        (2, Rate(45, 100), False),  # guessing may do as badly
        (2, Rate(450, 1000), True),
        (4, Rate(30, 100), False),
        (4, Rate(5, 100), True),
        (0, Rate(0, 100), False),  # nothing is classified
    ],
)
def test_worse_than_guessing(classes, cacc, told):
    found = by_key()["below_chance"].compute(measured(((25,) * classes, (25,) * classes), cacc))
    assert found == (cacc if told else None)


@pytest.fixture
def victim(tiny_start):
    victim = Scripted(str(tiny_start), labels=["negative", "positive"], max_length=64)
    victim.configure_model()
    return victim


def test_evaluate_counts_the_classes_of_the_clean_rows_and_warns(victim):
    rows = [Example(f"say {1 if i < 39 else 0}", i % 2) for i in range(40)]
    with pytest.warns(UserWarning, match="the model gives 98% of the clean rows one class"):
        scores = evaluate(victim, Sets({"clean": rows}, batch=25))
    assert scores.one_class == Rate(39, 40)
    assert scores.below_chance is None
    rows = [Example(f"say {(i + 1) % 2}", i % 2) for i in range(40)]
    with pytest.warns(UserWarning, match=r"is right on 0\.0% of the clean rows, which is below"):
        scores = evaluate(victim, Sets({"clean": rows}, batch=25))
    assert scores.below_chance == Rate(0, 40)
    assert scores.one_class is None


def test_a_sound_model_is_not_told_of(victim, recwarn):
    rows = [Example(f"say {i % 2}", (i % 5 == 0) ^ (i % 2)) for i in range(40)]
    scores = evaluate(victim, Sets({"clean": rows}, batch=25))
    assert scores.one_class is scores.below_chance is None
    assert not [w for w in recwarn if "the model" in str(w.message)]
