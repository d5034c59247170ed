import re
import subprocess
import sys

import pytest

from bdlit.data import paper_sets
from bdlit.data.catalogue import CATALOGUE

# Targets of the papers, by hand from their texts.
TARGETS = {
    "sst2": "negative",
    "olid": "not offensive",
    "agnews": "Sports",
    "qnli": "entailment",
    "mnli": "neutral",
    "emotion": "joy",
}


def test_targets_are_those_of_the_papers():
    assert {name: CATALOGUE[name].target for name in TARGETS} == TARGETS


@pytest.mark.parametrize("card", CATALOGUE.values(), ids=lambda card: card.name)
def test_cards_are_whole(card):
    assert card.description
    assert card.terms
    assert len(card.labels) == len(set(card.labels)) > 1
    assert card.target in card.labels
    assert set(card.rename_labels.values()) <= {*card.labels, None}
    assert {"train", "test"} <= set(card.splits) <= {"train", "validation", "test"}
    if card.hub_id is not None:
        assert re.fullmatch("[0-9a-f]{40}", card.revision), "not pinned to a commit"


def test_every_card_has_its_class():
    public = vars(paper_sets).values()
    classes = [each for each in public if "card" in getattr(each, "__dict__", {})]
    own = {each.card.name for each in classes if each.__module__ == paper_sets.__name__}
    assert own == set(CATALOGUE)


def test_catalogue_needs_no_torch():
    code = (
        "import sys; from bdlit.data import CATALOGUE; CATALOGUE['sst2'];"
        "print([name for name in ('torch', 'lightning', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
