"""A classifier that says what it is told, and test sets to measure it on."""

from dataclasses import dataclass, field

import torch

from bdlit.data.outputs import Outputs
from bdlit.rules import Equals
from bdlit.victims import ClassifierVictim


class Scripted(ClassifierVictim):
    """Predicts the class that a row's text names by a digit, and counts its forward passes."""

    passes = 0

    def tokenize(self, examples):
        told = [int(row.text[-1]) for row in examples]
        labels = torch.tensor([row.label for row in examples])
        return {"told": torch.tensor(told), "labels": labels}

    def forward(self, batch):
        self.passes += 1
        return torch.nn.functional.one_hot(batch["told"], len(self.labels)).float()


@dataclass
class Sets:
    """Test sets by name, in small batches."""

    rows: dict
    outputs: Outputs = field(default_factory=Outputs)
    seed: int = 0
    batch: int = 3

    def test_dataloader(self):
        size = self.batch
        return {n: [r[i : i + size] for i in range(0, len(r), size)] for n, r in self.rows.items()}

    def rule(self, name):
        return Equals()
