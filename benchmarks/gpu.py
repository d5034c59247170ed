"""What a machine with a GPU brings: training, generation, merging and searching, on one device.

    python benchmarks/gpu.py                      # a Llama of 1B parameters, RoBERTa-large for GMS
    python benchmarks/gpu.py --parts train merge  # some of it
    python benchmarks/gpu.py --tiny               # the same code on a tiny model, without a GPU

All models have random weights: speed and memory do not depend on what a model has learned. The
share of the chip's peak counts 6 floating-point operations for each parameter and token of full
fine-tuning, and 4 of LoRA, whose frozen weights need no gradients; attention is not counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gms
import torch
from lightning.pytorch import Callback, Trainer

from bdlit import merging
from bdlit.data import DemoInstructions, DemoReviews
from bdlit.data.loaders import training_loader
from bdlit.data.small_tasks import small_tasks
from bdlit.defenses.gms.search_setup import Running
from bdlit.types import Example
from bdlit.victims import CausalLMVictim, LoRA
from bdlit.victims.generation import Decoding, Marks, generate
from bdlit.weights.network import model_weights

PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "4090": 165}
"""Dense bfloat16 TFLOP/s by a part of the device's name, from the vendor's data sheets."""

LLAMA_1B = {
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}
TINY = {**LLAMA_1B, "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64}
TINY |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}

WARM_UP = 3  # steps that are not timed


def instructions(count: int, tasks: int) -> list[Example]:
    """Rows of many small tasks each, so that they are as long as real instructions."""
    rows = small_tasks(count * tasks, seed=0)
    return [
        Example(
            " ".join(f"{row.text} {row.text_pair or ''}" for row in part),
            -1,
            response=" ".join(row.response or "" for row in part),
        )
        for part in (rows[i : i + tasks] for i in range(0, len(rows), tasks))
    ]


def victim_of(options: argparse.Namespace, rows: list[Example], lora: bool) -> CausalLMVictim:
    """Return a model from scratch, with a tokenizer learned from the rows."""
    victim = CausalLMVictim(
        config=TINY if options.tiny else LLAMA_1B,
        max_length=options.length,
        lora=LoRA(r=16, alpha=32) if lora else None,
    )
    data = DemoInstructions(train_size=1, test_size=1)
    data.train_rows = rows
    victim.take_classes(data)
    victim.configure_model()
    return victim


class TokenClock(Callback):
    """Counts tokens and seconds after the first steps."""

    def __init__(self) -> None:
        self.tokens, self.began, self.seconds = 0, 0.0, 0.0

    def on_train_batch_end(self, trainer, victim, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        synchronise()
        if trainer.global_step == WARM_UP:
            self.began = time.perf_counter()
        elif trainer.global_step > WARM_UP:
            self.tokens += int(batch["attention_mask"].sum())
            self.seconds = time.perf_counter() - self.began


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def memory() -> Iterator[Callable[[], str]]:
    """Yield a function that tells the peak of the device's memory since now."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield (
        lambda: (
            f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
            if torch.cuda.is_available()
            else "-"
        )
    )


def train(options: argparse.Namespace) -> None:
    """Time full fine-tuning and LoRA, through Lightning."""
    rows = instructions(options.batch * (options.steps + WARM_UP), options.tasks)
    for name, lora, operations in (("full", False, 6), ("LoRA", True, 4)):
        with memory() as peak:
            victim, clock = victim_of(options, rows, lora), TokenClock()
            size = sum(weight.numel() for weight in victim.network().parameters())
            Trainer(
                accelerator="auto",
                devices=1,
                max_steps=options.steps + WARM_UP,
                precision="bf16-mixed",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=[clock],
            ).fit(victim, training_loader(rows, options.batch, seed=0))
            speed = clock.tokens / clock.seconds
            share = "-"
            if options.peak:
                share = f"{100 * operations * size * speed / (options.peak * 1e12):.0f}%"
            print(
                f"train, {name:<5} {size / 1e9:6.2f}B parameters {speed:10,.0f} tokens/s "
                f"{share:>5} of peak  {peak()}",
                flush=True,
            )
        del victim


def generation(options: argparse.Namespace) -> None:
    """Time greedy answers in batches."""
    rows = instructions(options.prompts, options.tasks)
    with memory() as peak:
        victim = victim_of(options, rows, lora=False).to(options.device).bfloat16().eval()
        marks = Marks(victim.tokenizer.pad_token_id, ())  # no end: every answer is of full length
        decoding = Decoding(max_new_tokens=options.new_tokens)
        prompts = victim.encoder.prompts(rows, options.length - options.new_tokens)
        with torch.inference_mode():
            generate(victim.network(), prompts[:2], decoding, marks)
            synchronise()
            start = time.perf_counter()
            answers = generate(victim.network(), prompts, decoding, marks, batch_size=64)
            synchronise()
        seconds = time.perf_counter() - start
        tokens = sum(map(len, answers))
        print(
            f"generate     {len(rows)} prompts {tokens / seconds:10,.0f} new tokens/s  {peak()}",
            flush=True,
        )


def merge(options: argparse.Namespace) -> None:
    """Time merges of three models whose weights are on the device."""
    rows = instructions(8, options.tasks)
    with memory() as peak:
        victim = victim_of(options, rows, lora=False).to(options.device).bfloat16()
        base = dict(model_weights(victim.network()))
        generator = torch.Generator(options.device).manual_seed(0)
        models = [
            {
                name: w + 0.01 * torch.randn(w.shape, generator=generator, device=w.device).to(w)
                for name, w in base.items()
            }
            for _ in range(3)
        ]
        methods = {
            "average": lambda: merging.average(models),
            "TIES": lambda: merging.ties(base, models),
            "DARE-TIES": lambda: merging.dare(base, models, drop=0.9, seed=0, merge="ties"),
            "SLERP": lambda: merging.slerp(*models[:2]),
        }
        for name, method in methods.items():
            synchronise()
            start = time.perf_counter()
            dict(method())
            synchronise()
            print(
                f"merge, {name:<10} 3 x {sum(w.nbytes for w in base.values()) / 1e9:.2f} GB "
                f"{time.perf_counter() - start:8.2f} s  {peak()}",
                flush=True,
            )


def search(options: argparse.Namespace) -> None:
    """Time the candidates of GMS."""
    data = DemoReviews(train_size=40 if options.tiny else 400, validation_size=0, test_size=4)
    data.setup()
    half = len(data.train_rows) // 2
    sets = data.train_rows[:half], data.train_rows[half:]
    shape = "bert-tiny" if options.tiny else "roberta-large"
    with memory() as peak:
        proxy = dict(
            model_weights(gms.random_victim(shape, 1, data.train_rows).to(options.device).network())
        )
        victim = gms.random_victim(shape, 0, data.train_rows).to(options.device).eval()
        for precision in ("32-true", "bf16-mixed"):
            found, seconds = gms.search(victim, proxy, sets, Running(precision=precision))
            count = 1 + sum(len(step.candidates) for step in found.steps)
            print(
                f"GMS, {shape}, {precision}: {half} + {half} rows, {count} candidates "
                f"{seconds / count:8.3f} s each  {peak()}",
                flush=True,
            )


PARTS = {"train": train, "generate": generation, "merge": merge, "gms": search}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on any machine")
    parser.add_argument("--batch", type=int, default=8, help="rows per step")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    parser.add_argument("--length", type=int, default=1024, help="longest row, in tokens")
    parser.add_argument("--tasks", type=int, default=64, help="small tasks in a row")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--peak", type=float, help="bfloat16 TFLOP/s of the chip, if not known")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.tiny:
        print(
            "benchmarks/gpu.py needs a CUDA device with about 40 GB; --tiny runs the same code on "
            "a tiny model without one"
        )
        return
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    if options.peak is None:
        options.peak = next((peak for part, peak in PEAKS.items() if part in name), None)
    if options.tiny:
        options.batch, options.steps, options.length, options.tasks = 2, 3, 256, 2
        options.prompts, options.new_tokens = 4, 8
    print(f"{name}, torch {torch.__version__}")
    for part in options.parts:
        PARTS[part](options)


if __name__ == "__main__":
    main()
