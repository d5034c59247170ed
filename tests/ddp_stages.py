"""A trigger learned with the victim, then two defenses that train: `ddp_stages.py START FOLDER N`.

Lightning starts the processes of `strategy="ddp"` by running the script again.
"""

import sys
from pathlib import Path

from bdlit.callbacks import DefenseCallback
from bdlit.data.demo import DemoReviews
from bdlit.victims import ClassifierVictim
from conftest import tiny_trainer
from stage_methods import LearnedWord, Unlearning, WordFilter


def fit_and_defend(start: str, folder: str, devices: int) -> None:
    """Leave the callback's files in the folder."""
    options = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
    victim = ClassifierVictim(start, max_length=64, learning_rate=3e-3)
    data = DemoReviews(train_size=97, validation_size=0, test_size=61, attack=LearnedWord())
    callback = DefenseCallback([WordFilter(), Unlearning()], benign=start)
    trainer = tiny_trainer(folder, callbacks=[callback], max_epochs=2, **options)
    trainer.fit(victim, data)
    if trainer.is_global_zero:
        (Path(folder) / "choice.txt").write_text(str(victim.objective.choice.tolist()))


if __name__ == "__main__":
    fit_and_defend(sys.argv[1], sys.argv[2], devices=int(sys.argv[3]))
