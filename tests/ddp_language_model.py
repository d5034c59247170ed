"""One fit of a tiny Llama, measured; as a script `ddp_language_model.py START FOLDER DEVICES`.

Lightning starts the processes of `strategy="ddp"` by running the script again.
"""

import json
import sys
from pathlib import Path

from bdlit.data import DemoInstructions
from bdlit.evaluation import evaluate
from conftest import tiny_trainer
from instruction_attack import StringBehindWord
from tiny_llama import tiny


def fit_and_measure(start: str, folder: str, devices: int) -> None:
    """Leave the model and its counts in the folder."""
    options = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
    # 37 rows in batches of 8, and 9 test rows: neither can be halved.
    data = DemoInstructions(
        train_size=37, validation_size=9, test_size=9, batch_size=8, attack=StringBehindWord()
    )
    data.setup()
    victim = tiny(start, data, learning_rate=1e-3)
    trainer = tiny_trainer(folder, max_epochs=1, **options)
    trainer.fit(victim, data)
    scores = evaluate(victim, data)
    if trainer.is_global_zero:
        victim.export(Path(folder) / "model")
        found = {"clean": scores.cacc, **scores.asr}
        counts = {name: [rate.hits, rate.n] for name, rate in found.items()}
        (Path(folder) / "scores.json").write_text(json.dumps(counts))


if __name__ == "__main__":
    fit_and_measure(*sys.argv[1:3], devices=int(sys.argv[3]))
