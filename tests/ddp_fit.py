"""One fit with four defenses; as a script `ddp_fit.py START BENIGN FOLDER DEVICES`.

Lightning starts the processes of `strategy="ddp"` by running the script again.
"""

import json
import sys
from pathlib import Path

from bdlit.attacks import BadNet
from bdlit.callbacks import DefenseCallback, TrainingDynamics
from bdlit.data.demo import DemoReviews
from bdlit.defenses import DARE, GMS, TIES, WAG
from bdlit.victims import ClassifierVictim
from conftest import tiny_trainer


def fit_and_defend(start: str, benign: str, folder: str, devices: int) -> None:
    """Leave the callback's files in the folder, and the validation metrics beside them."""
    gms = GMS(suspect_rows=20, clean_rows=30, stop_early=False)
    callback = DefenseCallback([WAG(), TIES(), DARE(), gms], others=[benign], benign=benign)
    options = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
    victim = ClassifierVictim(start, max_length=64, learning_rate=1e-3)
    # 97 rows: the last batch of 32 holds one row, and 61 test rows cannot be halved.
    data = DemoReviews(train_size=97, validation_size=33, test_size=61, attack=BadNet())
    trainer = tiny_trainer(
        folder, callbacks=[TrainingDynamics(), callback], max_epochs=2, **options
    )
    trainer.fit(victim, data)
    if trainer.is_global_zero:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        (Path(folder) / "metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    fit_and_defend(*sys.argv[1:4], devices=int(sys.argv[4]))
