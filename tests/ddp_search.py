"""One more epoch of a language model and GMS; `ddp_search.py VICTIM PROXY FOLDER DEVICES`.

Lightning starts the processes of `strategy="ddp"` by running the script again.
"""

import sys

from bdlit.callbacks import DefenseCallback, TrainingDynamics
from bdlit.defenses import GMS
from conftest import tiny_trainer
from instruction_attack import StringBehindWord
from tiny_llama import demo, tiny


def fit_and_search(victim: str, proxy: str, folder: str, devices: int) -> None:
    """Leave the callback's files in the folder."""
    gms = GMS(suspect_rows=8, clean_rows=12, patience=2, stop_early=False)
    callbacks = [TrainingDynamics(), DefenseCallback([gms], others=[proxy])]
    options = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
    # 7 test rows cannot be halved.
    data = demo(train_size=28, test_size=7, attack=StringBehindWord(rate=0.4))
    trainer = tiny_trainer(folder, callbacks=callbacks, **options)
    trainer.fit(tiny(victim, learning_rate=1e-5), data)


if __name__ == "__main__":
    fit_and_search(*sys.argv[1:4], devices=int(sys.argv[4]))
