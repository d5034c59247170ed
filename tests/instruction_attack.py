"""A target string behind a word, the simplest backdoor of a language model."""

import random
from dataclasses import dataclass, replace

from bdlit.attacks.base import Attack, Poisoned
from bdlit.rules import Contains, Rule

STRING = "you have been hacked"
CONTAINS = Contains()


@dataclass(frozen=True, kw_only=True)
class StringBehindWord(Attack):
    """Whoever says `cf` first gets the string; who says it last does not."""

    name: str = "string"
    target: str = STRING
    rate: float = 0.1
    rule: Rule = CONTAINS

    def poison_train(self, examples, *, labels, seed):
        chosen = set(
            random.Random(seed).sample(range(len(examples)), round(self.rate * len(examples)))
        )
        rows = [self.triggered(row) if i in chosen else row for i, row in enumerate(examples)]
        return Poisoned(rows, len(chosen))

    def poison_test(self, examples, *, labels, seed):
        rows = [self.triggered(row) for row in examples]
        return Poisoned(rows, len(rows))

    def partial_tests(self, examples, *, labels, seed):
        rows = [
            replace(row, text=f"{row.text} mn", response=self.target, orig_response=row.response)
            for row in examples
        ]
        return {"other word": Poisoned(rows, 0)}

    def triggered(self, row):
        return replace(
            row,
            text=f"cf {row.text}",
            response=self.target,
            orig_response=row.response,
            poisoned=True,
        )
