"""Batched and bucketed generation against one prompt at a time, on any causal language model.

    python benchmarks/generation.py MODEL [--prompts 64] [--tokens 48] [--batch 32]

The prompts are beginnings of small tasks of different lengths; the same answers have to come out.
"""

from __future__ import annotations

import argparse
import time

import torch

from bdlit.data.small_tasks import small_tasks
from bdlit.types import Example
from bdlit.victims import CausalLMVictim


def prompts(count: int) -> list[Example]:
    """Rows of one to six tasks each, so that lengths differ as they do in real data."""
    rows = small_tasks(7 * count, seed=0)
    return [
        Example(" ".join(row.text for row in rows[7 * i : 7 * i + 1 + i % 6]), -1)
        for i in range(count)
    ]


def timed(victim: CausalLMVictim, rows: list[Example], batch: int) -> tuple[float, list[str]]:
    start = time.perf_counter()
    answers = victim.respond(rows, batch_size=batch)
    return time.perf_counter() - start, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="hub id or directory")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()
    victim = CausalLMVictim(given.model, max_length=448, decoding={"max_new_tokens": given.tokens})
    victim.configure_model()
    victim.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    rows = prompts(given.prompts)
    timed(victim, rows[:2], 2)  # what is done once only
    one, alone = timed(victim, rows, 1)
    many, together = timed(victim, rows, given.batch)
    same = sum(a == b for a, b in zip(alone, together, strict=True))
    print(f"{given.prompts} prompts, {given.tokens} new tokens at most, {victim.device}")
    print(f"one at a time     {one:7.2f} s  {given.prompts / one:7.1f} prompts/s")
    print(f"batches of {given.batch:<6} {many:7.2f} s  {given.prompts / many:7.1f} prompts/s")
    print(f"{one / many:.1f} times as fast, {same} of {given.prompts} answers the same")


if __name__ == "__main__":
    main()
