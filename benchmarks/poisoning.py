"""How long poisoning takes: rows per second of BadNet and InsertSent.

python benchmarks/poisoning.py --rows 1000000
"""

from __future__ import annotations

import argparse
import random
import time

from bdlit.attacks import BadNet, InsertSent, InsertSentInside
from bdlit.types import Example

WORDS = ("the", "film", "was", "funny", "and", "its", "long", "story", "dull", ",", ".")


def make_rows(count: int, words: int) -> list[Example]:
    """Return sentences of `words` words on average, in two classes."""
    rng = random.Random(0)
    return [
        Example(" ".join(rng.choices(WORDS, k=rng.randint(1, 2 * words - 1))), label=i % 2)
        for i in range(count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=20, help="mean number of words in a row")
    parser.add_argument("--rate", type=float, default=0.2)
    args = parser.parse_args()
    rows = make_rows(args.rows, args.words)
    print(f"{len(rows):,} rows of {args.words} words on average, rate {args.rate}")
    print(f"{'attack':<18} {'split':<6} {'seconds':>8} {'rows/s':>12} {'poisoned':>10}")
    for attack in (BadNet, InsertSent, InsertSentInside):
        ready = attack(target=0, rate=args.rate)
        for split, poison in (("train", ready.poison_train), ("test", ready.poison_test)):
            start = time.perf_counter()
            made = poison(rows, labels=["negative", "positive"], seed=0)
            seconds = time.perf_counter() - start
            print(
                f"{attack.__name__:<18} {split:<6} {seconds:>8.2f} "
                f"{len(rows) / seconds:>12,.0f} {made.poisoned:>10,}"
            )


if __name__ == "__main__":
    main()
