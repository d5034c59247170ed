"""Attacks are named in YAML by their class alone."""

from __future__ import annotations

import pytest
from jsonargparse import ArgumentParser

from bdlit.attacks import (
    Attack,
    BadNet,
    InsertedSentence,
    InsertSent,
    Mixture,
    ParaphraseTable,
    RareWords,
    Syntactic,
)

CASES = {
    "attack: BadNet": BadNet(),
    "attack: {class_path: BadNet, init_args: {target: positive, rate: 0.1}}": BadNet(
        target="positive", rate=0.1
    ),
    """
attack:
  class_path: BadNet
  init_args:
    target: 1
    trigger: {class_path: RareWords, init_args: {words: [xx, yy], counts: [2]}}
""": BadNet(target=1, trigger=RareWords(("xx", "yy"), (2,))),
    """
attack:
  class_path: Mixture
  init_args:
    attacks:
      - BadNet
      - class_path: InsertSent
        init_args: {trigger: {class_path: InsertedSentence, init_args: {place: end}}}
""": Mixture(attacks=(BadNet(), InsertSent(trigger=InsertedSentence(place="end")))),
    """
attack:
  class_path: Syntactic
  init_args: {trigger: {class_path: ParaphraseTable, init_args: {originals: a.tsv}}}
""": Syntactic(trigger=ParaphraseTable(originals="a.tsv")),
}


@pytest.mark.parametrize("text", CASES)
def test_yaml(text):
    parser = ArgumentParser()
    parser.add_argument("--attack", type=Attack)
    made = parser.instantiate_classes(parser.parse_string(text)).attack
    assert made == CASES[text]
    assert type(made) is type(CASES[text])
