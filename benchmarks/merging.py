"""Seconds per merge on synthetic encoders of real sizes.

python benchmarks/merging.py --models 3 --size minilm bert-base
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from bdlit.merging import average, dare, task_arithmetic, ties
from bdlit.types import Weights

SIZES = {"minilm": (6, 384), "bert-base": (12, 768)}  # layers, width
VOCABULARY, POSITIONS = 30_522, 512


def encoder(layers: int, width: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return random weights of a BERT encoder's main shapes."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, width),
        "embeddings.position_embeddings.weight": (POSITIONS, width),
    }
    for layer in range(layers):
        for part in ("query", "key", "value", "attention.output"):
            shapes[f"layer.{layer}.{part}.weight"] = (width, width)
            shapes[f"layer.{layer}.{part}.bias"] = (width,)
        shapes[f"layer.{layer}.intermediate.weight"] = (4 * width, width)
        shapes[f"layer.{layer}.output.weight"] = (width, 4 * width)
    return {name: torch.randn(shape, generator=generator) * 0.02 for name, shape in shapes.items()}


def seconds(merge: Callable[[], Weights]) -> float:
    """Return the wall time until every tensor of the merge has been computed once."""
    start = time.perf_counter()
    merged = merge()
    for name in merged:
        merged[name]
    return time.perf_counter() - start


def main() -> None:
    """Print one line per size and method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=3, help="models merged, the suspect's too")
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=3, help="the fastest run counts")
    args = parser.parse_args()
    for size in args.size:
        generator = torch.Generator().manual_seed(0)
        base = encoder(*SIZES[size], generator)
        models = []
        for _ in range(args.models):
            drift = encoder(*SIZES[size], generator)
            models.append({name: base[name] + 0.1 * drift[name] for name in base})
        count = sum(tensor.numel() for tensor in base.values())
        print(f"{size}: {count / 1e6:.1f} M parameters, {args.models} models")
        methods: dict[str, Callable[[], Weights]] = {
            "average": lambda m=models: average(m),
            "task arithmetic": lambda b=base, m=models: task_arithmetic(b, m),
            "TIES 20%, model": lambda b=base, m=models: ties(b, m),
            "TIES 20%, tensor": lambda b=base, m=models: ties(b, m, trim="tensor"),
            "DARE 0.9 linear": lambda b=base, m=models: dare(b, m),
            "DARE 0.9 TIES": lambda b=base, m=models: dare(b, m, merge="ties"),
        }
        for name, merge in methods.items():
            print(f"  {name:18}{min(seconds(merge) for _ in range(args.repeats)):8.2f} s")


if __name__ == "__main__":
    main()
