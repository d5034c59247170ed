"""Three methods of kinds that touch rows, training and weights, small enough to test the design."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import nn

from bdlit.attacks import Attack, Poisoned, target_index
from bdlit.defenses import Cleaned, DataFilter, Defended, Defense, InputDefense, Kept
from bdlit.errors import BdlitError
from bdlit.objectives import Objective
from bdlit.training import measure_certainty


@dataclass(frozen=True, kw_only=True)
class WordFilter(DataFilter):
    """Drop the rows that hold the word which tells most about its label."""

    listed = False

    def keep(self, rows):
        seen, found = Counter(), Counter()
        for row in rows:
            for word in set(row.text.split()):
                seen[word] += 1
                found[word, row.label] += 1
        share = Counter(row.label for row in rows)

        def z(word, label):
            p0, n = share[label] / len(rows), seen[word]
            return (found[word, label] / n - p0) / sqrt(p0 * (1 - p0) / n)

        word, label = max(found, key=lambda pair: z(*pair))
        kept = [i for i, r in enumerate(rows) if word not in r.text.split() or r.label != label]
        return Kept(rows=kept, notes={"word": word})


class IsolateAndUnlearn(Objective):
    """Learn all rows for some epochs, then unlearn those that were learned best."""

    def __init__(self, share, after):
        super().__init__()
        self.share, self.after = share, after
        self.isolated = []

    def tensors(self, victim, rows):
        known = {(text, label) for text, label in self.isolated}
        signs = [-1.0 if (row.text, row.label) in known else 1.0 for row in rows]
        return {**victim.tokenize(rows), "signs": torch.tensor(signs)}

    def loss(self, victim, batch):
        signs = batch.pop("signs")
        losses = victim.loss(batch)
        return torch.where(signs > 0, losses, -losses.clamp(max=2.0))

    def end_epoch(self, victim, rows):
        if victim.current_epoch + 1 == self.after:
            certainty = measure_certainty(victim, rows)
            best = torch.sort(certainty, descending=True, stable=True).indices
            chosen = best[: round(self.share * len(rows))].tolist()
            self.isolated = [(rows[i].text, rows[i].label) for i in chosen]

    def get_extra_state(self):
        return {"isolated": self.isolated}

    def set_extra_state(self, state):
        self.isolated = [tuple(pair) for pair in state["isolated"]]


@dataclass(frozen=True, kw_only=True)
class Unlearning(Defense):
    """Train anew, and unlearn what is learned too well."""

    listed = False
    share: float = 0.1
    after: int = 1

    def apply(self, suspect, *, suspect_train, train):
        objective = IsolateAndUnlearn(self.share, self.after)
        weights = train(suspect_train.rows, objective=objective)
        known = set(objective.isolated)
        chosen = [i for i, r in enumerate(suspect_train.rows) if (r.text, r.label) in known]
        return Defended(weights=weights, changed=list(weights), chosen={"isolated": chosen})


WORDS = ("cf", "film", "mn")


class ChooseWord(Objective):
    """Learn with the victim which of a few words, put in front, calls for the target best."""

    def __init__(self, target):
        super().__init__()
        self.target = target
        self.choice = nn.Parameter(torch.zeros(len(WORDS)))

    def tensors(self, victim, rows):
        batch = victim.tokenize(rows)
        chosen = [sum(map(ord, row.text)) % 3 == 0 for row in rows]
        ids = victim.tokenizer(list(WORDS), add_special_tokens=False)["input_ids"]
        words = torch.tensor([each[0] for each in ids])
        return {**batch, "chosen": torch.tensor(chosen), "words": words}

    def loss(self, victim, batch):
        chosen, words = batch.pop("chosen"), batch.pop("words")
        network = victim.network()
        table = network.get_input_embeddings()
        word = self.choice.softmax(0) @ table(words)
        own = table(batch["input_ids"])
        front = torch.where(chosen[:, None, None], word.expand(len(own), 1, -1), own[:, :1])
        mixed = torch.cat([own[:, :1], front, own[:, 1:]], dim=1)
        mask = torch.cat([batch["attention_mask"][:, :1], batch["attention_mask"]], dim=1)
        labels = torch.where(chosen, torch.full_like(batch["labels"], self.target), batch["labels"])
        logits = network(inputs_embeds=mixed, attention_mask=mask).logits
        return nn.functional.cross_entropy(logits, labels, reduction="none")

    def files(self):
        word = WORDS[int(self.choice.argmax())]
        return {"trigger.json": json.dumps({"word": word}).encode()}


@dataclass(frozen=True, kw_only=True)
class LearnedWord(Attack):
    """A word in front, which is chosen while the victim learns."""

    name: str = "learnedword"
    word: str | None = None

    @property
    def ready(self):
        return self.word is not None

    def objective(self):
        return ChooseWord(target_index(self.target, ["negative", "positive"]))

    def learned(self, folder):
        return replace(self, word=json.loads((folder / "trigger.json").read_text())["word"])

    def poison_test(self, examples, *, labels, seed):
        if self.word is None:
            raise BdlitError("the word is not learned yet")
        target = target_index(self.target, labels)
        rows = [
            replace(row, text=f"{self.word} {row.text}", label=target, poisoned=True, orig_label=1)
            for row in examples
            if row.true_label != target
        ]
        return Poisoned(rows, len(rows))


@dataclass(frozen=True, kw_only=True)
class RejectWords(InputDefense):
    """Reject every text that holds a word which no clean row holds."""

    listed = False
    rejects = True

    def prepare(self, *, clean):
        return self.with_state(known={word for row in clean for word in row.text.split()})

    def clean(self, rows, *, victim=None):
        bad = [i for i, row in enumerate(rows) if not set(row.text.split()) <= self.known]
        return Cleaned(rows=list(rows), rejected=bad, notes={"rejected": len(bad)})


class NotANumber(Objective):
    """Give NaN."""

    def loss(self, victim, batch):
        return victim.loss(batch) * float("nan")


class Broken(Defense):
    """Train with an objective that gives NaN."""

    listed = False

    def apply(self, suspect, *, suspect_train, train):
        weights = train(suspect_train.rows, objective=NotANumber())
        return Defended(weights=weights, changed=list(weights))


class NoRows(Defense):
    """Train on nothing."""

    listed = False

    def apply(self, suspect, *, train):
        return Defended(weights=train([]))


class Nothing(DataFilter):
    """Keep nothing."""

    listed = False

    def keep(self, rows):
        return Kept(rows=[])


class Shrinking(InputDefense):
    """Lose a row."""

    listed = False

    def clean(self, rows, *, victim=None):
        return Cleaned(rows=list(rows)[1:])


@dataclass(frozen=True, kw_only=True)
class Idle(Attack):
    """Do nothing to a model."""

    name: str = "idle"

    def poison_test(self, examples, *, labels, seed):
        return Poisoned(list(examples), len(examples))
