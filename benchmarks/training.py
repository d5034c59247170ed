"""Training throughput beside `transformers.Trainer`: same model, rows, precision and batch size.

    python benchmarks/training.py --model DIRECTORY --train train_clean.jsonl.gz --steps 60

Three loops run in turn over the same rows: ours (Lightning, length buckets), transformers.Trainer
with its dynamic-padding collator, and the same with every row padded to the full length, as the
published code of the WAG paper does. Each is timed between its steps 10 and `--steps`, in samples
per second.
"""

import argparse
import tempfile
import time

import torch
import transformers
from lightning.pytorch import Callback, Trainer

from bdlit.data import TextDataModule
from bdlit.victims import ClassifierVictim

WARM_UP = 10


class Clock:
    """Counts the rows between the end of the warm-up and the last step."""

    def __init__(self, batch_size):
        self.batch_size, self.steps, self.began, self.seconds = batch_size, 0, 0.0, 0.0

    def tick(self):
        self.steps += 1
        now = time.perf_counter()
        if self.steps == WARM_UP:
            self.began = now
        self.seconds = now - self.began

    @property
    def speed(self):
        return (self.steps - WARM_UP) * self.batch_size / self.seconds


class LightningClock(Callback):
    """Tells the clock of Lightning's steps."""

    def __init__(self, clock):
        self.clock = clock

    def on_train_batch_end(self, *arguments, **options):
        self.clock.tick()


class TransformersClock(transformers.TrainerCallback):
    """Tells the clock of transformers' steps."""

    def __init__(self, clock):
        self.clock = clock

    def on_step_end(self, *arguments, **options):
        self.clock.tick()


def ours(options, data):
    clock = Clock(options.batch_size)
    victim = ClassifierVictim(options.model, labels=data.labels)
    trainer = Trainer(
        max_steps=options.steps,
        precision="bf16-mixed" if options.bf16 else "32-true",
        accelerator="cpu" if options.cpu else "auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[LightningClock(clock)],
    )
    trainer.fit(victim, data.train_dataloader())
    return clock.speed


def theirs(options, data, *, full_length):
    clock = Clock(options.batch_size)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    settings = {"padding": "max_length"} if full_length else {}
    rows = [
        {**tokenizer(row.text, truncation=True, max_length=128, **settings), "labels": row.label}
        for row in data.train_rows
    ]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        options.model, num_labels=len(data.labels), dtype=torch.float32
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=2e-5,
            bf16=options.bf16,
            use_cpu=options.cpu or not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        transformers.Trainer(
            model,
            arguments,
            train_dataset=rows,
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            callbacks=[TransformersClock(clock)],
        ).train()
    return clock.speed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="hub id or directory")
    parser.add_argument("--train", required=True, help="file with columns text and label (0 or 1)")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--fp32", dest="bf16", action="store_false", help="the default is bf16")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    options = parser.parse_args()
    files = {"train": options.train, "test": options.train}
    data = TextDataModule(
        source=".",
        files=files,
        label_names=["negative", "positive"],
        target=0,
        batch_size=options.batch_size,
    )
    data.setup()
    print("loop                              samples/s")
    print(f"bdlit, length buckets             {ours(options, data):9.1f}", flush=True)
    print(f"Trainer, dynamic padding          {theirs(options, data, full_length=False):9.1f}")
    print(f"Trainer, padding to full length   {theirs(options, data, full_length=True):9.1f}")


if __name__ == "__main__":
    main()
